// Package vm runs virtual testboxes where firmware, loader, kernel or power is
// part of what is tested; all else is tested by running the agent as a
// process. Test only.
//
//	      one lab: namespaces of its own, everything in one folder
//	┌──────────────────────────────────────────────────────────────────┐
//	│ testbox-tftp/ ──> dnsmasq: DHCP, TFTP ──┐                        │
//	│   maintenance-boot/ plain, faults       ├── bridge               │
//	│ testbox-backup/ ──> nfs-ganesha ────────┘   │  │                 │
//	│   (both areas with root squash)             │  │                 │
//	│                                             │  │                 │
//	│ box 0: e1000e ──────────────────────────────┘  │                 │
//	│        AHCI disk; i6300esb watchdog            │                 │
//	│ box 1: UEFI, virtio-net, a second e1000e ──────┘                 │
//	│        virtio disk (boots), NVMe, AHCI                           │
//	└──────────────────────────────────────────────────────────────────┘
//	      │ serial console, firmware's words, power, reset (QMP)
//	    test: arms by the testbox program, edits boot files, cuts power,
//	          takes NFS away, compares disks and images
//
// Each test has a lab, with one box that runs at a time, or two. The tests run
// beside each other. The boxes run by emulation unless KVM works. TestMatrix has
// boxes of all kinds, with UEFI too, each in a lab of its own.
package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/testenv"
)

// How long things may take. By emulation, alone on two cores, a start takes
// 20 s and an action 40 s; the other tests and a busy machine make it ten times
// as long.
const (
	bootTime   = 5 * time.Minute
	actionTime = 10 * time.Minute
)

// bench is the lab that all cases of a test share.
type bench struct {
	lab           *lab.Lab
	kernel        lab.Kernel
	begun         time.Time
	serves        bool   // there is a storage server
	plain, faults string // versions of the form ram; the second one breaks on demand
}

// newLab makes a lab of share mode without a maintenance system.
func newLab(t *testing.T) *bench { t.Helper(); return makeLab(t, lab.Options{}) }

// needs skips a test where there can be no lab.
func needs(t *testing.T) {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "ip", "dnsmasq", "rpcbind", "ganesha.nfsd", "qemu-system-x86_64", "sfdisk", "mkfs.ext4", "grub-mkimage", "busybox")
}

// makeLab makes a lab, with a storage server or of share mode.
func makeLab(t *testing.T, opt lab.Options) *bench {
	t.Helper()
	needs(t)
	b := &bench{begun: time.Now(), serves: opt.Server}
	kernel, err := ownKernel()
	must(t, err)
	b.kernel = *kernel
	programs, err := builtPrograms()
	must(t, err)
	opt.Testbox, opt.KVM = programs.testbox, lab.ProbeKVM(t.Context(), b.kernel)
	b.lab, err = lab.New(t.Context(), opt)
	must(t, err)
	t.Cleanup(func() { b.close(t) })
	b.step(t, "lab in %s", b.lab.Dir)
	return b
}

// close removes the lab; after a failure its folder stays to be looked at.
func (b *bench) close(t *testing.T) {
	if t.Failed() {
		t.Logf("the lab's logs and disks stay in %s", b.lab.Dir)
	}
	if err := b.lab.Close(t.Failed()); err != nil {
		t.Error(err)
	}
}

// step tells when what was reached.
func (b *bench) step(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("%6.1f s  %s", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hash(t *testing.T, path string) string {
	t.Helper()
	sum, err := lab.HashDisk(path)
	must(t, err)
	return sum
}

// until asks every few milliseconds until what is so.
func until(ctx context.Context, timeout time.Duration, what string, so func() bool) error {
	for end := time.Now().Add(timeout); !so(); time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v", what, timeout)
		}
	}
	return nil
}

// logText is everything in the box's maintenance.log.
func (x *vbox) logText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(x.bench.lab.BoxDir(x.Addr), "maintenance.log"))
	must(t, err)
	return string(data)
}

func contains(t *testing.T, text, what string) {
	t.Helper()
	if !strings.Contains(text, what) {
		t.Errorf("no %q in:\n%s", what, text)
	}
}
