package bootfiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
)

var (
	someLoaders  = []bootcfg.LocalLoader{{Volume: "1A2B-3C4D", Path: "/EFI/debian/shimx64.efi", Name: "debian"}}
	otherLoaders = []bootcfg.LocalLoader{{Volume: "0000-0001", Path: "/EFI/Microsoft/Boot/bootmgfw.efi", Name: "Windows"}}
)

// TestWriteLoaders: a TFTP server can read what is written, what says the same is not
// written again, and what cannot be expressed is told.
func TestWriteLoaders(t *testing.T) {
	f := New(durable.OS{}, newFolder(t))
	if _, err := f.Loaders(addr); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	bad := bootcfg.LocalLoader{Volume: "1A2B-3C4D", Path: "/$(reboot)"}
	left, err := f.WriteLoaders(addr, append([]bootcfg.LocalLoader{bad}, someLoaders...))
	if err != nil || len(left) != 1 {
		t.Fatal(left, err)
	}
	if got, err := f.Loaders(addr); err != nil || !slices.Equal(got, someLoaders) {
		t.Errorf("read as %+v, %v", got, err)
	}
	if err := f.CheckFiles("grub/boxes/" + addr.Hex() + ".cfg"); err != nil {
		t.Error(err)
	}
	before, err := os.Stat(f.LoadersFile(addr))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteLoaders(addr, someLoaders); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(f.LoadersFile(addr)); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same loaders were written again: %v", err)
	}
	for range 2 {
		if _, err := f.WriteLoaders(addr, nil); err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, filepath.Dir(f.LoadersFile(addr))); left != "" {
		t.Errorf("left is %q", left)
	}
}

// TestWriteLoadersFails: whatever fails, the box has the old loaders or the new ones.
func TestWriteLoadersFails(t *testing.T) {
	for k, hit := 1, true; hit; k++ {
		dir := newFolder(t)
		if _, err := New(durable.OS{}, dir).WriteLoaders(addr, someLoaders); err != nil {
			t.Fatal(err)
		}
		kth := &faults.Kth{FS: durable.OS{}, K: k}
		_, err := New(kth, dir).WriteLoaders(addr, otherLoaders)
		hit = kth.Failed() != ""
		got, rerr := New(durable.OS{}, dir).Loaders(addr)
		if rerr != nil || !slices.Equal(got, someLoaders) && !slices.Equal(got, otherLoaders) || err == nil && !slices.Equal(got, otherLoaders) {
			t.Errorf("%s fails: %v, and there is %+v, %v", kth.Failed(), err, got, rerr)
		}
	}
}

// TestMoveLoaders: the loaders go with the box, also if it is done again.
func TestMoveLoaders(t *testing.T) {
	to, err := box.ParseAddr("10.88.0.99")
	if err != nil {
		t.Fatal(err)
	}
	const a, b = "LOADER 0000-0001 '/a' ''\n", "LOADER 0000-0002 '/b' ''\n"
	own := []bootcfg.LocalLoader{{Volume: "0000-0001", Path: "/a"}}
	for what, c := range map[string]struct {
		from, to string // texts before
		want     []bootcfg.LocalLoader
	}{
		"moved":            {a, "", own},
		"over another's":   {a, b, own},
		"moved already":    {"", a, own},
		"none of both":     {"", "", nil},
		"a damaged one":    {"reboot", a, own},
		"onto a damaged":   {a, "reboot", own},
		"damaged, none to": {"reboot", "", nil},
	} {
		f := New(durable.OS{}, newFolder(t))
		if err := os.MkdirAll(filepath.Dir(f.LoadersFile(to)), 0o755); err != nil {
			t.Fatal(err)
		}
		for a, text := range map[box.Addr]string{addr: c.from, to: c.to} {
			if text != "" {
				if err := os.WriteFile(f.LoadersFile(a), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := f.MoveLoaders(addr, to); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		got, err := f.Loaders(to)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: the new address has %+v, %v", what, got, err)
		}
		if _, err := f.Loaders(addr); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the old address has some still: %v", what, err)
		}
	}
}
