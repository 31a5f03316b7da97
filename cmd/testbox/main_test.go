package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/testenv"
)

// TestMain makes this test program the command testbox of the scripts: all of
// the real one but for the world around it, which the script's environment
// describes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"testbox": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, newRootCmd(scriptWorld()), os.Args[1:], os.Stdout, os.Stderr))
		},
		"fakeserver": runFakeServer,
	})
}

// scriptWorld takes the time from $NOW, names from the file $HOSTS (address,
// then names, as in hosts(5)), the neighbours from $NEIGHBOURS, and Debian's
// loader files from $LOADERS.
func scriptWorld() world {
	w := realWorld()
	w.now = func() time.Time {
		t, err := time.Parse(time.RFC3339, os.Getenv("NOW"))
		if err != nil {
			return time.Now()
		}
		return t
	}
	w.names.Addrs = func(_ context.Context, host string) (found []netip.Addr, _ error) {
		for i, line := range readHosts() {
			if !slices.Contains(line[1:], host) {
				continue
			}
			addr := netip.MustParseAddr(line[0])
			if i%2 == 0 {
				addr = netip.AddrFrom16(addr.As16()) // as a resolver may give it
			}
			found = append(found, addr)
		}
		if found == nil {
			return nil, errors.New("no such host")
		}
		return found, nil
	}
	w.names.Names = func(_ context.Context, addr string) ([]string, error) {
		for _, line := range readHosts() {
			if line[0] == addr {
				return []string{line[1] + "."}, nil
			}
		}
		return nil, errors.New("no such address")
	}
	w.poll = 10 * time.Millisecond
	w.configDirs = strings.Fields(os.Getenv("CONFIG_DIRS"))
	w.neighbours = os.Getenv("NEIGHBOURS")
	w.loaders = os.Getenv("LOADERS")
	w.away = 2 * time.Second
	w.socket = filepath.Join(os.Getenv("WORK"), "no-socket")
	w.userDir = func() (string, error) { return filepath.Join(os.Getenv("WORK"), "config"), nil }
	return w
}

// readHosts gives each line's address and names.
func readHosts() (lines [][]string) {
	data, err := os.ReadFile(os.Getenv("HOSTS"))
	if err != nil {
		return nil
	}
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Fields(line); len(f) > 1 {
			lines = append(lines, f)
		}
	}
	return lines
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setupScript,
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "whole": // not only what a plain `go test` has time for
				return testenv.All(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"disk":        cmdDisk,
			"exits":       cmdExits,
			"flip":        cmdFlip,
			"folder":      cmdFolder,
			"maintenance": cmdMaintenance,
			"remember":    cmdRemember,
			"unchanged":   cmdUnchanged,
			"mode":        cmdMode,
			"await":       cmdAwait,
			"load":        cmdLoad,
		},
	})
}

// setupScript makes Debian's loader files and says whom boxes are taken for:
// the usual nobody if the test is root, else the test's own user, so that no
// test needs root.
func setupScript(env *testscript.Env) error {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65534
	}
	env.Setenv("ANONUID", fmt.Sprint(uid))
	env.Setenv("ANON", fmt.Sprintf("--anon-uid=%d", uid))
	env.Setenv("ANONGROUP", fmt.Sprintf("--anon-gid=%d", gid))
	env.Setenv("CFG", filepath.Join(env.WorkDir, "export", "testbox-tftp", bootcfg.ConfigDir))
	env.Setenv("LOADERS", filepath.Join(env.WorkDir, "loaders"))
	env.Setenv("HOSTS", filepath.Join(env.WorkDir, "hosts"))
	env.Setenv("NEIGHBOURS", filepath.Join(env.WorkDir, "neighbours"))
	env.Setenv("TESTBOX_STORE", filepath.Join(env.WorkDir, "store"))
	for _, name := range []string{
		"PXELINUX/pxelinux.0", "PXELINUX/lpxelinux.0", "syslinux/modules/bios/ldlinux.c32", "syslinux/modules/bios/chain.c32",
		"syslinux/modules/efi32/ldlinux.e32", "syslinux/modules/efi64/ldlinux.e64",
	} {
		if err := writeFile(filepath.Join(env.WorkDir, "loaders", name), "content of "+name); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// cmdExits: `exits N testbox ...` wants the exit code N.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code is %d, want %s", code, args[0])
	}
}

// cmdDisk: `disk FILE MIB SEED` makes a disk of noise, zeros and text without a
// partition table; `disk FILE change OFFSET` writes some bytes into it.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: disk FILE MIB SEED | disk FILE change OFFSET")
	}
	path := ts.MkAbs(args[0])
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	if args[1] == "change" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		ts.Check(err)
		_, err = f.WriteAt([]byte("changed"), int64(n))
		ts.Check(errors.Join(err, f.Close()))
		return
	}
	mib, err := strconv.Atoi(args[1])
	ts.Check(err)
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, mib<<20)
	for i := range mib {
		switch piece := b[i<<20:][:1<<20]; i % 3 {
		case 0:
			r.Read(piece)
		case 1:
			copy(piece, bytes.Repeat([]byte(fmt.Sprintf("text %d of disk %d\n", i, n)), 100000))
		}
	}
	ts.Check(os.WriteFile(path, b, 0o644))
}

// cmdFlip: `flip GLOB OFFSET` flips a bit in the last file that matches; a
// negative offset counts from its end.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip GLOB OFFSET")
	}
	paths, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(paths) == 0 {
		ts.Fatalf("no file is %s", args[0])
	}
	b, err := os.ReadFile(paths[len(paths)-1])
	ts.Check(err)
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	b[(off+len(b))%len(b)] ^= 4
	ts.Check(os.WriteFile(paths[len(paths)-1], b, 0o600))
}

// cmdFolder: `folder` makes a folder of boot files, $CFG, with a site file.
func cmdFolder(ts *testscript.TestScript, neg bool, args []string) {
	s := site.Defaults()
	s.Server = netip.MustParseAddr("10.42.1.1")
	cfg := ts.Getenv("CFG")
	ts.Check(writeFile(filepath.Join(cfg, bootcfg.DefaultName), string(bootcfg.DefaultConfig())))
	ts.Check(writeFile(filepath.Join(cfg, site.FileName), string(s.Template())))
	for _, name := range []string{"pxelinux.0", "ldlinux.c32"} {
		ts.Check(writeFile(filepath.Join(cfg, "..", name), "loader"))
	}
	uid, err := strconv.Atoi(ts.Getenv("ANONUID"))
	ts.Check(err)
	ts.Check(os.Chown(cfg, uid, -1)) // boxes can disarm themselves
}

// cmdMaintenance: `maintenance VERSION FORM BUILT` makes the boot files of a
// maintenance system.
func cmdMaintenance(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: maintenance VERSION FORM BUILT")
	}
	built, err := time.Parse(time.RFC3339, args[2])
	ts.Check(err)
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: args[0], Form: bootcfg.Form(args[1]), Kernel: "6.1.0-37-amd64", Built: built}
	text, err := v.Marshal()
	ts.Check(err)
	dir := filepath.Join(ts.Getenv("CFG"), "..", bootcfg.MaintDir, v.Version)
	ts.Check(writeFile(filepath.Join(dir, bootcfg.KernelFile), "kernel"))
	ts.Check(writeFile(filepath.Join(dir, bootcfg.InitrdFile), "initrd"))
	ts.Check(writeFile(filepath.Join(dir, bootcfg.VersionFile), string(text)))
}

// tree is everything about a folder that a refusal must leave as it is.
func tree(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s", path, st.Mode())
		if st.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s %x", st.ModTime(), sha256.Sum256(data))
		}
		b.WriteString("\n")
		return nil
	})
	return b.String(), err
}

// cmdRemember: `remember DIR` keeps what DIR is for a later `unchanged DIR`.
func cmdRemember(ts *testscript.TestScript, neg bool, args []string) {
	text, err := tree(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("TREE_"+args[0], text)
}

// cmdUnchanged: `unchanged DIR` fails if anything below DIR is other than it
// was at `remember DIR`.
func cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	now, err := tree(ts.MkAbs(args[0]))
	ts.Check(err)
	before := ts.Getenv("TREE_" + args[0])
	if before == "" {
		ts.Fatalf("%s was not remembered", args[0])
	}
	if (now == before) == neg {
		ts.Fatalf("%s: before\n%s\nnow\n%s", args[0], before, now)
	}
}

// cmdMode: `mode 0644 FILE` wants these permissions, and none of the special bits.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := st.Mode() &^ fs.ModeDir; got != fs.FileMode(want) {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, fs.FileMode(want))
	}
}

// cmdAwait: `await FILE` waits until a file is there.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s is not there", args[0])
}

// cmdLoad: `load NAME FILE` sets a variable to what is in a file.
func cmdLoad(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: load NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}
