package sharesetup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/problem"
)

// options are of a share in a new folder, for boxes that come as nobody, or
// without root as the user who runs the test.
func options(t *testing.T) Options {
	t.Helper()
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65534
	}
	dir := t.TempDir()
	loaders := filepath.Join(dir, "loaders")
	for _, l := range loaderNeeded {
		write(t, filepath.Join(loaders, l.from), "content of "+l.from)
	}
	program := filepath.Join(dir, "program")
	write(t, program, "the program")
	return Options{
		Dir: filepath.Join(dir, "export"), Server: "10.42.1.1", Clients: "*", UID: uid, GID: gid, Loaders: loaders, Program: program,
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// state is the modes, owners and contents of all that is below a folder.
func state(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b.WriteString(path + " " + st.Mode().String() + " ")
		if st.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b.Write(text)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestDryRun: what a plan says that it would change is what it changes then, and
// saying it changes nothing.
func TestDryRun(t *testing.T) {
	o := options(t)
	for _, c := range []struct {
		what   string
		damage func(p *Plan)
		some   string // is among the changes
	}{
		{"nothing is there", func(*Plan) {}, "export/testbox-tftp: made"},
		{"all is there", func(*Plan) {}, ""},
		{"files are missing, others or closed", func(p *Plan) {
			write(t, p.Boot.Path("testbox"), "another program")
			write(t, filepath.Join(p.TFTP, "pxelinux.0"), "another loader")
			box := filepath.Join(p.Backup, "10.40.41.42")
			write(t, filepath.Join(box, "sda.raw.gz"), "an image")
			err := errors.Join(
				os.Chmod(box, 0o700), os.Chmod(p.Boot.Dir(), 0o1700), os.Remove(p.ExportsFile()), os.Remove(filepath.Join(p.TFTP, "ldlinux.c32")),
				os.RemoveAll(filepath.Join(p.TFTP, "efi64")), os.Chmod(p.Boot.Path(bootcfg.DefaultName), 0o600))
			if err != nil {
				t.Fatal(err)
			}
		}, "pxelinux.cfg/testbox: written anew, it was another"},
	} {
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		c.damage(p)
		before := state(t, o.Dir)
		dry, err := p.Changes()
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if after := state(t, o.Dir); after != before {
			t.Errorf("%s: a dry run changed it from\n%sto\n%s", c.what, before, after)
		}
		var done []Change
		result, err := p.Make(func(c Change) { done = append(done, c) })
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if a, b := lines(dry), lines(done); a != b {
			t.Errorf("%s: the dry run says\n%sand done is\n%s", c.what, a, b)
		}
		if n := result.Made + result.Repaired; n != len(done) || (n == 0) != (c.some == "") || !strings.Contains(lines(done), c.some) {
			t.Errorf("%s: %+v of\n%s", c.what, result, lines(done))
		}
	}
}

func lines(changes []Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, c.String()+"\n")
	}
	slices.Sort(all) // the loader's files are made at the same time
	return strings.Join(all, "")
}

// TestGRUBConfig: what another version wrote, or what was cut off, is repaired, and what
// somebody else wrote stays.
func TestGRUBConfig(t *testing.T) {
	ours := string(bootcfg.GRUBConfig())
	for what, c := range map[string]struct{ there, want string }{
		"none": {"", ours}, "ours": {ours, ours}, "cut off": {ours[:500], ours}, "empty": {"\x00", ours}, "edited": {ours + "reboot\n", ours},
		"another's": {"configfile other\n", "configfile other\n"},
	} {
		p, err := New(options(t))
		if err != nil {
			t.Fatal(err)
		}
		if c.there != "" {
			write(t, p.Boot.GRUBConfig(), strings.TrimPrefix(c.there, "\x00"))
		}
		if _, err := p.Make(func(Change) {}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(p.Boot.GRUBConfig()); err != nil || string(got) != c.want {
			t.Errorf("%s: it is\n%s%v", what, got, err)
		}
		st, err := os.Stat(filepath.Join(p.TFTP, bootcfg.LoadersDir))
		if err != nil || int(st.Sys().(*syscall.Stat_t).Uid) != p.UID {
			t.Errorf("%s: boxes cannot record their loaders: %v", what, err)
		}
	}
}

// TestWrongLoaders: shim would wait for a key, so who sets a share up is told.
func TestWrongLoaders(t *testing.T) {
	p, err := New(options(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Make(func(Change) {}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.TFTP, "shimx64.efi"), "MZ")
	write(t, filepath.Join(p.TFTP, "grubx64.efi"), "MZ")
	warnings, err := p.LookOver()
	if err != nil || len(warnings) == 0 || !strings.Contains(warnings[len(warnings)-1], "shimx64.efi: it is no PE file") {
		t.Errorf("%q, %v", warnings, err)
	}
}

// TestNew: what would end badly is wrong input or is refused, and nothing is
// changed. The scripts of package main have the messages.
func TestNew(t *testing.T) {
	for what, c := range map[string]struct {
		change func(o *Options)
		kind   problem.Kind
	}{
		"no server":        {func(o *Options) { o.Server = "" }, problem.Wrong},
		"root as nobody":   {func(o *Options) { o.UID = 0 }, problem.Wrong},
		"clients":          {func(o *Options) { o.Clients = "a b(rw)" }, problem.Wrong},
		"no loader":        {func(o *Options) { o.Loaders += "/none" }, problem.Wrong},
		"another default":  {func(o *Options) { write(t, o.Dir+"/testbox-tftp/pxelinux.cfg/default", "UI menu.c32\n") }, problem.Refused},
		"a default astray": {func(o *Options) { link(t, "/none", o.Dir+"/testbox-tftp/pxelinux.cfg/default") }, problem.Refused},
	} {
		o := options(t)
		c.change(&o)
		before := state(t, o.Dir)
		_, err := New(o)
		var p *problem.Error
		if !errors.As(err, &p) || p.Kind != c.kind {
			t.Errorf("%s: %v", what, err)
		}
		if after := state(t, o.Dir); after != before {
			t.Errorf("%s: it changed something:\n%s", what, after)
		}
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
		t.Fatal(err)
	}
}

// TestRightsNotGiven: what could not be changed is an error, and is not said to be
// changed. Nobody can change the mode of a process's file.
func TestRightsNotGiven(t *testing.T) {
	open := func(string) (*os.File, error) { return os.Open("/proc/self/status") }
	for _, dry := range []bool{false, true} {
		did, err := (&maker{dry: dry}).rights(open, "", -1, -1, 0o777)
		if (err == nil) != dry || (did == "") == dry {
			t.Errorf("a dry run %v says %q, %v", dry, did, err)
		}
	}
}

// TestServed: a server exports nothing, so that no box can write boot files or another
// box's logs. Other names of the address are said in errors.
func TestServed(t *testing.T) {
	o := options(t)
	o.Served, o.Flag = true, "--address"
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Make(func(Change) {}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{p.NFSRoot, p.ExportsFile()} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made: %v", path, err)
		}
	}
	o = options(t)
	o.Server, o.Flag = "10.42.1", "--address"
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Error(err)
	}
}
