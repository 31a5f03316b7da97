package disk

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The functions here ask the running kernel about a device node by its device
// number. The node is what was opened, and a name in /sys may be another
// device's.

// devNumber is a block device's "major:minor".
func devNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))), nil
}

func sysDir(number string) string { return "/sys/dev/block/" + number }

// partitionsOf lists the kernel names of a disk's partitions.
func partitionsOf(path string) []string {
	number, err := devNumber(path)
	if err != nil {
		return nil
	}
	found, _ := filepath.Glob(sysDir(number) + "/*/partition")
	parts := make([]string, len(found))
	for i, f := range found {
		parts[i] = filepath.Base(filepath.Dir(f))
	}
	return parts
}

// WholeOf returns the kernel name of the disk that the partition at path
// belongs to. It is "" if path is not a partition.
func WholeOf(path string) string {
	number, err := devNumber(path)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(sysDir(number) + "/partition"); err != nil {
		return ""
	}
	real, err := filepath.EvalSymlinks(sysDir(number))
	if err != nil {
		return ""
	}
	return filepath.Base(filepath.Dir(real))
}

// Users says who uses a disk or one of its partitions, such as "by dm-0, by a
// mount on /srv". It is "" if nobody does, or if the kernel does not tell.
func Users(devDir string, d Disk) string {
	path, err := filepath.EvalSymlinks(Path(devDir, d.Name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(holders(path))
}

// holders says who uses a block device or one of its partitions, such as " by
// dm-0, by a mount on /srv". It is "" if the kernel does not tell.
func holders(path string) string {
	number, err := devNumber(path)
	if err != nil {
		return ""
	}
	numbers := []string{number}
	for _, p := range partitionsOf(path) {
		if b, err := os.ReadFile(filepath.Join(sysDir(number), p, "dev")); err == nil {
			numbers = append(numbers, strings.TrimSpace(string(b)))
		}
	}
	var by []string
	for _, n := range numbers {
		links, _ := filepath.Glob(sysDir(n) + "/holders/*")
		for _, l := range links {
			by = append(by, "by "+filepath.Base(l))
		}
	}
	by = append(by, mounts(numbers)...)
	if len(by) == 0 {
		return ""
	}
	return " " + strings.Join(by, ", ")
}

// mounts says where devices are mounted. The third field of a line in mountinfo
// is the device number, the fifth is the mount point (proc(5)).
func mounts(numbers []string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var by []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 4 && slices.Contains(numbers, w[2]) {
			by = append(by, "by a mount on "+w[4])
		}
	}
	return by
}
