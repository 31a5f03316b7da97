package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// probeTime is how long a kernel may take to its init with KVM; it needs two seconds.
const probeTime = 10 * time.Second

const probeInit = `#!/bin/busybox sh
echo "kvm works"
exec /bin/busybox sleep 3600
`

var probe struct {
	sync.Mutex // guards the answer
	asked, yes bool
}

// ProbeKVM reports whether KVM boots the kernel to its init. That /dev/kvm can
// be opened proves nothing: there are machines on which no guest gets that far.
// It asks once in a process.
func ProbeKVM(ctx context.Context, kernel Kernel) bool {
	probe.Lock()
	defer probe.Unlock()
	if !probe.asked {
		probe.yes = probeKVM(ctx, kernel)
		probe.asked = ctx.Err() == nil
	}
	return probe.yes
}

func probeKVM(ctx context.Context, kernel Kernel) bool {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return false
	} else {
		f.Close()
	}
	dir, err := os.MkdirTemp("", "testbox-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	image, initrd, console := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd"), filepath.Join(dir, "console")
	if os.WriteFile(image, kernel.Image, 0o644) != nil || makeInitrd(ctx, initrd, nil, probeInit) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	argv := append(qemu(true, 512), "-serial", "file:"+console, "-kernel", image, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1", "-no-reboot")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() != nil {
		return false
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	w := &Watch{Path: console, Alive: func() error {
		select {
		case <-ended:
			return os.ErrProcessDone
		default:
			return nil
		}
	}}
	_, err = w.Wait(ctx, regexp.MustCompile(`^kvm works`), probeTime)
	cancel()
	<-ended
	return err == nil
}
