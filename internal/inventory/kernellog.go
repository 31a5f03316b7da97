package inventory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelLog reads the kernel's log buffer by syslog(2), oldest line first, as
// dmesg shows it. It does not need /dev/kmsg. If the kernel restricts the log,
// it needs root.
func KernelLog() ([]byte, error) {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("size of the kernel log: %w", err)
	}
	buf := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return nil, fmt.Errorf("read the kernel log: %w", err)
	}
	return buf[:n], nil
}
