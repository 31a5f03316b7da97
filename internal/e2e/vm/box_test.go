package vm

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/testenv"
)

// vbox is a virtual testbox with an own system on its first disk.
type vbox struct {
	*lab.Machine
	bench  *bench
	own    lab.OwnSystem
	disks  []lab.Disk
	hashes []string // of the disks, as they were made
}

// newBox makes a box that is switched off, with a disk on each of the buses.
// The first one has the own system, the others noise and zeros.
func (b *bench) newBox(t *testing.T, spec lab.Spec, buses ...lab.Bus) *vbox {
	t.Helper()
	number := spec.Number
	x := &vbox{bench: b, own: lab.OwnSystem{Name: fmt.Sprintf("box%d", number), Kernel: b.kernel, Size: 112 << 20, Data: 24 << 20}}
	if x.forUEFI(t, &spec) {
		b.installLoaders(t)
	}
	for i, bus := range buses {
		d := lab.Disk{Path: filepath.Join(b.lab.Dir, fmt.Sprintf("box%d-disk%d", number, i)), Bus: bus,
			Serial: fmt.Sprintf("TB%d-DISK%d", number, i)}
		if i == 0 {
			must(t, x.own.MakeDisk(t.Context(), d.Path))
		} else {
			must(t, os.WriteFile(d.Path, nil, 0o644))
			must(t, os.Truncate(d.Path, int64(8+8*i)<<20))
			must(t, lab.Wreck(d.Path))
			must(t, os.Truncate(d.Path, int64(16+16*i)<<20))
		}
		x.disks = append(x.disks, d)
		x.hashes = append(x.hashes, hash(t, d.Path))
	}
	var err error
	spec.Disks = x.disks
	x.Machine, err = b.lab.Machine(spec)
	must(t, err)
	return x
}

// forUEFI makes a box with UEFI of one with a BIOS, if its firmware is so.
func (x *vbox) forUEFI(t *testing.T, spec *lab.Spec) bool {
	t.Helper()
	if spec.Firmware == "" || spec.Firmware == lab.BIOS {
		return false
	}
	testenv.Tools(t, "mkfs.vfat", "mmd", "mcopy")
	f, err := ownLoaders()
	must(t, err)
	x.own.Loaders, spec.Memory = f.Loaders, 1024
	if spec.Firmware == lab.UEFISecure {
		spec.ROM = f.rom
	}
	return true
}

// change is how a case changes a boot file that pxe-conf wrote.
type change func(*bootcfg.BootFile)

// faulty makes the box boot the agent that breaks, and says where. The times
// are short so that the test is.
func (b *bench) faulty(fault string) change {
	return func(f *bootcfg.BootFile) {
		f.Cmdline.Fault = fault
		f.Kernel = path.Join(bootcfg.MaintDir, b.faults, bootcfg.KernelFile)
		f.Initrd = path.Join(bootcfg.MaintDir, b.faults, bootcfg.InitrdFile)
	}
}

func times(retry, stall time.Duration) change {
	return func(f *bootcfg.BootFile) { f.Cmdline.Retry, f.Cmdline.Stall = retry, stall }
}

// arm arms the box, and changes its boot file then.
func (x *vbox) arm(t *testing.T, action box.Action, changes ...change) {
	t.Helper()
	x.armAsAdmin(t, action)
	x.next(t, changes...)
}

// armAsAdmin arms the box with the newest maintenance system that is there.
func (x *vbox) armAsAdmin(t *testing.T, action box.Action) {
	t.Helper()
	must(t, x.bench.lab.Arm(t.Context(), x.Machine, action))
	x.bench.step(t, "%s armed for %s", x.Addr, action)
}

// next makes the next start of an armed box one of the plain maintenance
// system, but for the changes.
func (x *vbox) next(t *testing.T, changes ...change) {
	t.Helper()
	name := x.bench.lab.BootFile(x.Addr)
	data, err := os.ReadFile(name)
	must(t, err)
	cmd, _, _, err := bootcfg.ParseBootFile(data)
	must(t, err)
	cmd.Fault, cmd.Retry, cmd.Stall = "", 0, 0
	f := bootcfg.BootFile{
		Cmdline: *cmd,
		Kernel:  path.Join(bootcfg.MaintDir, x.bench.plain, bootcfg.KernelFile),
		Initrd:  path.Join(bootcfg.MaintDir, x.bench.plain, bootcfg.InitrdFile),
	}
	for _, c := range changes {
		c(&f)
	}
	data, err = bootcfg.Generate(f)
	must(t, err)
	must(t, durable.WriteFile(durable.OS{}, name, data, 0o644)) // a loader never reads half of it
}

// disarm takes the boot file away, as an admin would.
func (x *vbox) disarm(t *testing.T) {
	t.Helper()
	must(t, os.Remove(x.bench.lab.BootFile(x.Addr)))
}

func (x *vbox) armed() bool {
	_, err := os.Stat(x.bench.lab.BootFile(x.Addr))
	return err == nil
}

// console waits for a line on the serial console.
func (x *vbox) console(t *testing.T, pattern string, timeout time.Duration) string {
	t.Helper()
	line, err := x.Console.Wait(t.Context(), regexp.MustCompile(pattern), timeout)
	must(t, err)
	x.bench.step(t, "console: %s", line)
	return line
}

// ownSystem waits for the own system's sign of life. A box that gets there is
// not armed, unless a case left it so.
func (x *vbox) ownSystem(t *testing.T) {
	t.Helper()
	line, err := x.Console.Wait(t.Context(), x.own.Up(), bootTime)
	must(t, err)
	x.bench.step(t, "%s", line)
}

// done waits until the box's log says that the action is done, and fails if it
// says anything else of the action's end.
func (x *vbox) done(t *testing.T, log *lab.Watch, action box.Action) {
	t.Helper()
	x.doneWithin(t, log, action, actionTime)
}

func (x *vbox) doneWithin(t *testing.T, log *lab.Watch, action box.Action, timeout time.Duration) {
	t.Helper()
	line, err := log.Wait(t.Context(), lab.Ended(action), timeout)
	must(t, err)
	if !lab.Succeeded(action).MatchString(line) {
		t.Fatalf("box %s says: %s", x.Addr, line)
	}
	x.bench.step(t, "%s", line)
}

// backHome waits for the own system, and is off then.
func (x *vbox) backHome(t *testing.T) {
	t.Helper()
	x.ownSystem(t)
	x.off(t)
}

// off switches the box off, and checks that it is disarmed and that all its
// disks are what they were made.
func (x *vbox) off(t *testing.T) {
	t.Helper()
	x.PowerOff()
	if x.armed() {
		t.Errorf("box %s has done its action and is still armed", x.Addr)
	}
	x.sameDisks(t)
}

func (x *vbox) sameDisks(t *testing.T) {
	t.Helper()
	for i, d := range x.disks {
		if hash(t, d.Path) != x.hashes[i] {
			t.Errorf("disk %d of box %s is not what it was", i, x.Addr)
		}
	}
}

// images are the committed images of the box, by file name.
func (x *vbox) images(t *testing.T, ending string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(x.bench.lab.BoxDir(x.Addr), "*"+ending))
	must(t, err)
	return names
}

// sameImages checks that the images with this ending are those of the disks,
// by unpacking them with plain gzip.
func (x *vbox) sameImages(t *testing.T, ending string) {
	t.Helper()
	want := map[string]bool{}
	for _, h := range x.hashes {
		want[h] = true
	}
	names := x.images(t, ending)
	if len(names) != len(x.disks) {
		t.Fatalf("images %q for %d disks", names, len(x.disks))
	}
	for _, name := range names {
		sum := hashImage(t, name)
		if !want[sum] {
			t.Errorf("%s is no disk's image", name)
		}
		delete(want, sum)
	}
}

func hashImage(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	h := sha256.New()
	_, err = io.Copy(h, z)
	must(t, err)
	return hex.EncodeToString(h.Sum(nil))
}

// unfinished is how many bytes are in the box's images that are not committed.
func (x *vbox) unfinished() (size int64) {
	filepath.WalkDir(x.bench.lab.BoxDir(x.Addr), func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(d.Name(), ".new") {
			return nil
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}

// readAt reads a MiB of the box's first disk.
func (x *vbox) readAt(t *testing.T, offset int64) []byte {
	t.Helper()
	f, err := os.Open(x.disks[0].Path)
	must(t, err)
	defer f.Close()
	mib := make([]byte, 1<<20)
	_, err = f.ReadAt(mib, offset)
	must(t, err)
	return mib
}

var (
	hanging  = regexp.MustCompile(`: hanging, as asked$`)
	diskSeen = regexp.MustCompile(`: seen: disk sda`)
)
