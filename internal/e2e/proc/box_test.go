package proc

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/testenv"
)

// The box of all tests, and its machine.
const (
	boxAddr = "10.88.0.11"
	boxHex  = "0A58000B"
	boxHost = "box11"
	boxUUID = "3e2b7d54-90c1-4f6e-8a55-0c1d2e3f4a5b"
	bootIF  = "BOOTIF=01-52-54-00-12-34-56"
)

// testBox is a testbox and its storage server.
type testBox struct {
	t     testing.TB
	prog  programs
	dir   string  // sys, dev, proc and the kernel command line
	root  string  // the areas as the storage server has them
	areas *server // the areas as the box has them mounted
	uuid  string  // SMBIOS
	key   string  // the address that names the box's folder and boot file
	addr  string  // that the box has got
	host  string  // the name that the box has got
	disks []*testDisk
}

// newBox gives the box areas, mounts them squashed, and plugs the disks in.
func newBox(t testing.TB, disks ...*testDisk) *testBox {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "gzip", "dd", "setpriv")
	prog, err := built()
	must(t, err)
	root := tempDir(t)
	areas, err := madeAreas()
	must(t, err)
	run(t, "", "cp", "-a", areas+"/.", root)
	b := &testBox{t: t, prog: prog, root: root, areas: serveFolder(t, root, true), uuid: boxUUID, key: boxAddr, host: boxHost}
	b.make(disks)
	return b
}

// beside makes another box of the same storage server.
func (b *testBox) beside(addr, host, uuid string, disks ...*testDisk) *testBox {
	b.t.Helper()
	other := &testBox{t: b.t, prog: b.prog, root: b.root, areas: b.areas, uuid: uuid, key: addr, host: host}
	other.make(disks)
	return other
}

// make makes the machine.
func (b *testBox) make(disks []*testDisk) {
	t := b.t
	t.Helper()
	b.dir, b.addr, b.disks = tempDir(t), b.key, disks
	for _, d := range disks {
		d.attach(t)
	}
	must(t, os.MkdirAll(filepath.Join(b.dir, "proc"), 0o755))
	must(t, os.WriteFile(filepath.Join(b.dir, "proc", "cpuinfo"), []byte("processor\t: 0\nmodel name\t: Test CPU\n"), 0o644))
	b.plug()
}

// madeAreas are made once, by `testbox share init`, and copied for each box.
var madeAreas = sync.OnceValues(func() (dir string, err error) {
	prog, err := built()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(buildDir, "areas")
	if out, err := exec.Command(prog.testbox, "share", "init", "--server", "10.88.0.1", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("share init: %w\n%s", err, out)
	}
	return dir, addMaintenance(filepath.Join(dir, "testbox-tftp"), bootcfg.FormRAM)
})

// addMaintenance makes a maintenance system that nothing here boots.
func addMaintenance(tftp string, form bootcfg.Form) error {
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: string(form) + "-1.0", Form: form, Kernel: "6.1.0-37-amd64",
		Built: time.Now().UTC()}
	text, err := v.Marshal()
	if err != nil {
		return err
	}
	dir := filepath.Join(tftp, bootcfg.MaintDir, v.Version)
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.MkdirAll(filepath.Join(filepath.Dir(tftp), "testbox-nfsroot", v.Version), 0o755),
		os.WriteFile(filepath.Join(dir, bootcfg.KernelFile), []byte("kernel"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.InitrdFile), []byte("initrd"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.VersionFile), text, 0o644))
}

// plug makes /sys and /dev anew for the disks as they are now.
func (b *testBox) plug() {
	b.t.Helper()
	must(b.t, os.RemoveAll(b.path("sys")))
	must(b.t, os.RemoveAll(b.path("dev")))
	must(b.t, os.MkdirAll(b.path("dev"), 0o755))
	writeSysfs(b.t, b.path("sys"), b.uuid, b.disks)
	for _, d := range b.disks {
		must(b.t, os.Symlink(d.dev, b.path("dev", d.name)))
		for _, p := range d.parts {
			must(b.t, os.Symlink(p.dev, b.path("dev", d.name+string(rune('0'+p.number)))))
		}
	}
}

func (b *testBox) path(names ...string) string { return filepath.Join(b.dir, filepath.Join(names...)) }

// folder is a path in the box's folder, as the storage server has it.
func (b *testBox) folder(name string) string {
	return filepath.Join(b.root, "testbox-backup", b.key, name)
}

// bootFile is the path of the box's boot file, as the storage server has it.
func (b *testBox) bootFile() string {
	return filepath.Join(b.root, "testbox-tftp", "pxelinux.cfg", b.hex())
}

// hex is the box's address in hexadecimal.
func (b *testBox) hex() string {
	a, err := box.ParseAddr(b.key)
	must(b.t, err)
	return a.Hex()
}

// arm arms the box through the mounted area, as an admin does from anywhere,
// and has the loader read the boot file.
func (b *testBox) arm(action string, flags ...string) {
	b.t.Helper()
	args := append([]string{"pxe-conf", "-c", filepath.Join(b.areas.dir, "testbox-tftp", "pxelinux.cfg")}, flags...)
	run(b.t, "", b.prog.testbox, append(args, b.key, action)...)
	b.boot()
}

var appendLine = regexp.MustCompile(`(?m)^\s*APPEND\s+(.*)$`)

// boot is the loader's part: the kernel command line is the boot file's
// arguments and the card that booted.
func (b *testBox) boot() {
	b.t.Helper()
	text, err := os.ReadFile(b.bootFile())
	must(b.t, err)
	m := appendLine.FindSubmatch(text)
	if m == nil {
		b.t.Fatalf("boot file without APPEND:\n%s", text)
	}
	must(b.t, os.WriteFile(b.path("cmdline"), append(m[1], " "+bootIF+"\n"...), 0o644))
}

// armed reports whether the boot file is there.
func (b *testBox) armed() bool {
	_, err := os.Stat(b.bootFile())
	return err == nil
}

// runs runs the agent, which must end with the code and print each of says.
func (b *testBox) runs(code int, says ...string) string {
	b.t.Helper()
	return b.start().ends(code, says...)
}

// does arms and runs an action, which must be done and disarm.
func (b *testBox) does(action string, flags ...string) string {
	b.t.Helper()
	b.arm(action, flags...)
	out := b.runs(done)
	if b.armed() {
		b.t.Fatalf("%s is done, but the box is still armed:\n%s", action, out)
	}
	return out
}

// snapshot has the hash of all disks and of all files in the box's folder but
// logs and inventory.
type snapshot map[string]string

func (b *testBox) snapshot() snapshot {
	b.t.Helper()
	s := snapshot{}
	for _, d := range b.disks {
		s["disk "+d.serial] = d.hash(b.t)
	}
	for _, name := range b.files() {
		s[name] = hashFile(b.t, b.folder(name))
	}
	return s
}

// files are the names in the box's folder without logs, inventory and the
// files by which people find the folder.
func (b *testBox) files() []string {
	b.t.Helper()
	entries, err := os.ReadDir(b.folder(""))
	if !os.IsNotExist(err) {
		must(b.t, err)
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasSuffix(name, ".log"), strings.HasPrefix(name, "testbox-info."), name == "testbox-firmware.json",
			name == b.host, name == b.hex():
		default:
			names = append(names, name)
		}
	}
	return names
}

// unchanged checks that disks and images are as they were.
func (b *testBox) unchanged(before snapshot) {
	b.t.Helper()
	after := b.snapshot()
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if after[name] != before[name] {
			b.t.Errorf("%s has changed", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] == "" {
			b.t.Errorf("%s is new", name)
		}
	}
}

// image checks that the image of that name, unpacked by gzip, is the disk with
// that hash.
func (b *testBox) image(file, hash string) {
	b.t.Helper()
	raw := filepath.Join(b.t.TempDir(), "raw")
	run(b.t, "", "sh", "-c", `gzip -dc <"$1" >"$2"`, "sh", b.folder(file), raw)
	if got := hashFile(b.t, raw); got != hash {
		b.t.Errorf("%s is not an image of the disk", file)
	}
}

// log is the text of a log in the box's folder.
func (b *testBox) log(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(b.folder(name))
	must(b.t, err)
	return string(text)
}
