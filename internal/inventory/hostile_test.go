package inventory

import (
	"bytes"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// hostileFS answers some names in its own way: reads that never end, that
// fail, or that give more than anything should.
type hostileFS struct {
	fs.FS
	bad     map[string]func() io.Reader
	badDirs map[string]func() ([]fs.DirEntry, error)
}

type hostileFile struct {
	fs.File
	r io.Reader
}

func (f hostileFile) Read(b []byte) (int, error) { return f.r.Read(b) }

func (h hostileFS) Open(name string) (fs.File, error) {
	f, err := h.FS.Open(name)
	if bad := h.bad[name]; err == nil && bad != nil {
		return hostileFile{f, bad()}, nil
	}
	return f, err
}

func (h hostileFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if bad := h.badDirs[name]; bad != nil {
		return bad()
	}
	return fs.ReadDir(h.FS, name)
}

type hang chan struct{}

func (h hang) Read([]byte) (int, error) { <-h; return 0, io.EOF }

type failing struct{}

func (failing) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: "x", Err: fs.ErrPermission}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// fastLimits are of the clock of synctest, which goes on only while all wait: on
// a busy machine nothing is late.
func fastLimits() limits {
	l := defaultLimits
	l.file, l.raw = 30*time.Millisecond, 2*time.Second
	return l
}

func TestHostileFiles(t *testing.T) { synctest.Test(t, hostileFiles) }

func hostileFiles(t *testing.T) {
	release := make(hang)
	defer close(release)
	o := options(t)
	o.limits = fastLimits()
	o.limits.file = 200 * time.Millisecond
	o.limits.rawFile = 1 << 16
	o.Sys = hostileFS{FS: o.Sys, bad: map[string]func() io.Reader{
		"firmware/acpi/tables/DSDT":             func() io.Reader { return release },
		"firmware/dmi/tables/DMI":               func() io.Reader { return endless{} },
		"class/net/eth0/speed":                  func() io.Reader { return failing{} },
		"firmware/memmap/0/start":               func() io.Reader { return failing{} },
		"firmware/efi/fw_platform_size":         func() io.Reader { return endless{} },
		efivars + "/BootOrder" + globalVariable: func() io.Reader { return strings.NewReader("\x07") },
	}}
	start := time.Now()
	inv := Collect(t.Context(), o)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	all := strings.Join(append(inv.Problems, inv.skipped...), "\n")
	for _, want := range []string{
		"DSDT: no answer in time", "SMBIOS: /sys/firmware/dmi/tables/DMI: larger than expected", "memmap/0/start: permission denied",
		"BootOrder: 1 bytes are too short", "fw_platform_size: larger than expected",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
	if len(inv.Network) != 1 || inv.Network[0].Speed != 0 || inv.CPU.Threads != 4 {
		t.Errorf("the rest is not there: %+v, %+v", inv.Network, inv.CPU)
	}
}

// TestEverythingHangs is a machine of which nothing answers: it must end, and
// leave no more goroutines behind than the limit.
func TestEverythingHangs(t *testing.T) { synctest.Test(t, everythingHangs) }

func everythingHangs(t *testing.T) {
	release := make(hang)
	defer close(release)
	all := map[string]func() io.Reader{}
	sys := sysTree()
	for name := range sys {
		all[name] = func() io.Reader { return release }
	}
	o := options(t)
	o.limits = fastLimits()
	o.Sys = hostileFS{FS: sys, bad: all}
	start := time.Now()
	inv := Collect(t.Context(), o)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if len(inv.Problems) == 0 || inv.CPU.Threads != 4 {
		t.Errorf("problems %q, processors %+v", inv.Problems, inv.CPU)
	}
}

func TestHangingCallbacks(t *testing.T) { synctest.Test(t, hangingCallbacks) }

func hangingCallbacks(t *testing.T) {
	release := make(hang)
	defer close(release)
	o := options(t)
	o.limits = fastLimits()
	wait := func() ([]byte, error) { <-release; return nil, nil }
	o.PCIIDs, o.Kmsg = wait, wait
	all := strings.Join(Collect(t.Context(), o).Problems, "\n")
	for _, want := range []string{"names of PCI devices: no answer in time", "kernel log: no answer in time"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
}

func TestRawLimits(t *testing.T) {
	sys := fstest.MapFS{}
	for i := range 30 {
		sys["firmware/many/"+string(rune('a'+i))] = file(strings.Repeat("x", 100))
	}
	sys["firmware/large"] = file(strings.Repeat("x", 1001))
	sys["firmware/"+strings.Repeat("d/", maxDepth+2)+"deep"] = file("x")
	o := options(t)
	o.Sys, o.limits = sys, defaultLimits
	o.limits.rawFile, o.limits.rawTotal, o.limits.rawFiles = 1000, 1000, 25
	inv := Collect(t.Context(), o)
	all := strings.Join(inv.skipped, "\n")
	for _, want := range []string{"large: larger than expected", "more than 1000 bytes in all", "more than 25 files", "too deep"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
	var total int
	for _, f := range inv.raw {
		if strings.HasPrefix(f.name, "sys/") {
			total += len(f.data)
		}
	}
	if total == 0 || total > 1000 {
		t.Errorf("%d bytes were taken, limit 1000", total)
	}
}

func TestKernelLogIsCut(t *testing.T) {
	o := options(t)
	o.Kmsg = func() ([]byte, error) {
		return append(bytes.Repeat([]byte("old line\n"), maxKernelLog/4), "newest line\n"...), nil
	}
	inv := Collect(t.Context(), o)
	if n := len(inv.KernelLog); n == 0 || inv.KernelLog[n-1] != "newest line" {
		t.Errorf("the log's end is lost")
	}
	if !strings.Contains(strings.Join(inv.Problems, "\n"), "oldest") {
		t.Errorf("problems %q do not say that the log was cut", inv.Problems)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"  plain \n": "plain", "a\x1b[2Jb": "a?[2Jb", "tab\there": "tab here", "\xff\xfe": "??", "näme": "näme", "\x00pad\x00\x00": "pad",
		"a\u202eb": "a?b", strings.Repeat("ä", 200): strings.Repeat("ä", 128), strings.Repeat("xä", 100): strings.Repeat("xä", 85) + "x",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) is %q, want %q", in, got, want)
		}
	}
}
