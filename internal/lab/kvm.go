package lab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// probeTime is how long a kernel may need with KVM until its init runs. It
// needs two seconds.
const probeTime = 10 * time.Second

const probeInit = `#!/bin/busybox sh
echo "init runs"
exec /bin/busybox sleep 3600
`

var probe struct {
	sync.Mutex // guards the answer
	asked, yes bool
}

// ProbeKVM reports whether KVM boots the kernel to its init. It is not enough
// that /dev/kvm can be opened, since there are machines on which no guest gets
// that far. ProbeKVM tries it only once in a process.
func ProbeKVM(ctx context.Context, kernel Kernel) bool {
	probe.Lock()
	defer probe.Unlock()
	if !probe.asked {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err == nil {
			f.Close()
			probe.yes = boots(ctx, kernel, true, probeTime)
		}
		probe.asked = ctx.Err() == nil
	}
	return probe.yes
}

// boots reports whether QEMU, with or without KVM, boots the kernel to its
// init. It runs in namespaces of its own like a lab, so that nothing of it is
// left.
func boots(ctx context.Context, kernel Kernel, kvm bool, limit time.Duration) bool {
	l := &Lab{}
	if l.makeDir() != nil {
		return false
	}
	defer func() { l.Close(false) }()
	var err error
	if l.ns, err = newNamespace(); err != nil {
		return false
	}
	image, initrd := filepath.Join(l.Dir, "vmlinuz"), filepath.Join(l.Dir, "initrd")
	if os.WriteFile(image, kernel.Image, 0o644) != nil || makeInitrd(ctx, initrd, nil, probeInit) != nil {
		return false
	}
	console := &Watch{Path: l.logFile("console")}
	argv := append(qemu(BIOS.machine(), kvm, 1, 512), "-serial", "file:"+console.Path, "-kernel", image, "-initrd", initrd, "-append",
		"console=ttyS0 quiet panic=-1", "-no-reboot")
	p, err := l.ns.start("qemu", l.logFile("qemu"), nil, argv...)
	if err != nil {
		return false
	}
	defer p.kill()
	console.Alive = p.alive
	_, err = console.Wait(ctx, regexp.MustCompile(`^init runs`), limit)
	return err == nil
}
