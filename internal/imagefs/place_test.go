package imagefs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMountedOn(t *testing.T) {
	const info = `22 27 0:20 / /proc rw,nosuid - proc proc rw
30 27 8:1 / /mnt rw,relatime shared:1 - ext4 /dev/sda1 rw
31 30 0:50 / /mnt rw - fuse.testbox testbox rw,user_id=0
32 27 0:51 / /mnt/a\040b\134 rw - tmpfs none rw
nonsense
33 27 0:52
`
	for dir, want := range map[string]string{"/mnt": "fuse.testbox", "/mnt/a b\\": "tmpfs", "/mn": "", "/proc": "proc", "": ""} {
		if got, err := mountedOn(strings.NewReader(info), dir); err != nil || got != want {
			t.Errorf("on %s is %q, %v; want %q", dir, got, err, want)
		}
	}
}

func FuzzMountedOn(f *testing.F) {
	f.Add(`31 30 0:50 / /mnt\040x rw - fuse.testbox testbox rw`, "/mnt x")
	f.Add(`1 2 3 4 \09`, `\`)
	f.Fuzz(func(t *testing.T, info, dir string) {
		kind, err := mountedOn(strings.NewReader(info), dir)
		if err == nil && kind != "" && !strings.Contains(info, kind) {
			t.Errorf("on %q is %q", dir, kind)
		}
	})
}

// TestRefused: what cannot be mounted is said before anything is.
func TestRefused(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{full: "not empty", full + "/a": "not a directory", full + "/no": "no such file",
		"/proc": "umount"} {
		if _, err := New(dir, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a mount on %s says %v, want %q", dir, err, want)
		}
	}
	for _, files := range [][]File{{{Name: ""}}, {{Name: "a/b"}}, {{Name: "a\x00"}}, {{Name: strings.Repeat("a", 252)}},
		{{Name: "a", Size: -1}}, {{Name: "a"}, {Name: "a"}}} {
		if _, err := New(t.TempDir(), files, nil); err == nil {
			t.Errorf("%v are mounted", files)
		}
	}
}

// TestNames: what stands on a disk cannot make a name that does harm, or that
// another file has.
func TestNames(t *testing.T) {
	s := shower{taken: map[string]bool{"sda": true, "sda-part1": true}} // there is a disk of that name
	for _, c := range []struct{ from, want string }{
		{"sda-part1", "sda-part1~2"},
		{"sda-" + harmless("vg") + "-" + harmless("root"), "sda-vg-root"},
		{"sda-" + harmless("vg-root") + "-" + harmless("x"), "sda-vg-root-x"},
		{"sda-" + harmless("vg") + "-" + harmless("root-x"), "sda-vg-root-x~2"},
		{"sda-" + harmless("../../etc") + "-" + harmless("a/b\x00\n\x1b[2J;$(x) *"), "sda-.._.._etc-a_b____2J___x___"},
		{strings.Repeat("a", 300), strings.Repeat("a", maxName)},
		{strings.Repeat("a", 301), strings.Repeat("a", maxName) + "~2"},
	} {
		got := s.name(c.from)
		if got != c.want {
			t.Errorf("%q becomes %q, want %q", c.from, got, c.want)
		}
		if err := new(root).add(File{Name: got}); err != nil {
			t.Error(err)
		}
	}
}
