package proc

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// diskFile makes a file with the bytes of a disk.
func diskFile(t testing.TB, name string, size int64, fill content) string {
	t.Helper()
	path := filepath.Join(tempDir(t), name)
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, os.Truncate(path, size))
	fill(t, path)
	return path
}

// exported is the content of a disk of the server's latest backup of a box.
func (s *serverSite) exported(of string) string {
	s.t.Helper()
	path := filepath.Join(tempDir(s.t), "exported.img")
	s.does(done, []string{"image", "export", of, path})
	b, err := os.ReadFile(path)
	must(s.t, err)
	return string(b)
}

func mustRead(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// TestServedCreate adds backups to the store of a running server, beside the backup of
// a box and while an area of share mode is imported.
func TestServedCreate(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	b := s.box(11, disk("sda", scattered(1)).ofSize(64*mib))
	one, two := diskFile(t, "one.img", 16*mib, gptExt4(7)), diskFile(t, "two.img", 16*mib, gptExt4(8))

	id := b.ask("backup")
	b.boot()
	a := b.start()
	a.waitLine("seen: disk")
	out := s.does(done, []string{"image", "create", "--note", "by hand", "--pin", "web-1", one, two}, "of web-1 is in the store")
	a.ends(done)
	if j := b.job(id); j.Outcome != "done" {
		t.Errorf("the backup of the box: %+v", j)
	}
	if s.exported("web-1:sda") != mustRead(t, one) || s.exported("web-1:sdb") != mustRead(t, two) {
		t.Errorf("the backup has other bytes than the files; the command said\n%s", out)
	}
	s.does(done, []string{"image", "show", "web-1"}, "by hand", "pinned")

	// The files are known again by what is in them, and nothing is sent twice.
	first, second := filepath.Join(filepath.Dir(one), "a.img"), filepath.Join(filepath.Dir(two), "b.img")
	must(t, os.Rename(one, second+"1"))
	must(t, os.Rename(two, first))
	s.does(done, []string{"image", "create", "web-1", first, second + "1"}, "a.img is sdb of earlier backups: the same partition table",
		"sda: ", " 0 B are new")
	s.does(wrongUse, []string{"image", "create", "web=1", first})
	s.does(done, []string{"image", "create", "--server", s.socket(), "web-2", first}, "of web-2 is in the store")
	s.does(done, []string{"audit"}, "begin upload", "add backup", "web-1@")
	s.does(done, []string{"store", "scrub"}, "whole")
}

// TestServedImport imports an area of share mode through a server, twice.
func TestServedImport(t *testing.T) {
	t.Parallel()
	share := newBox(t, disk("sda", scattered(1)), disk("sdb", scattered(2)))
	want := share.disks[0].hash(t)
	share.arm("backup")
	share.runs(done)
	share.arm("backup-again")
	share.runs(done)
	s := newServerSite(t, "")
	area := filepath.Join(share.root, "testbox-backup")
	s.does(done, []string{"image", "import", area}, "2 backups imported, 0 were there already, 0 failed")
	s.does(done, []string{"image", "import", area}, "0 backups imported, 2 were there already, 0 failed")
	facts := share.facts("sda.json")
	s.does(done, []string{"image", "show", share.addr}, string(facts.Arming), facts.Host)
	if list := s.does(done, []string{"image", "list"}); !strings.Contains(list, facts.Time.UTC().Format("20060102-150405")) {
		t.Errorf("the backup has not the time of the image:\n%s", list)
	}
	restored := disk("sda", scattered(3))
	restored.attach(t)
	s.does(done, []string{"image", "restore", "--yes", share.addr + ":sda", restored.dev})
	if restored.hash(t) != want {
		t.Error("what was imported restores to another disk")
	}
}

// TestServedCreateKilled kills the server, and the command, in the middle of a backup.
// There is no backup then, and the same command makes it.
func TestServedCreateKilled(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	big := diskFile(t, "big.img", 192*mib, func(t testing.TB, path string) { must(t, os.WriteFile(path, noise(5, 192*mib), 0o644)) })
	create := func() *begun {
		before := folderSize(t, filepath.Join(s.state, "store"))
		c := s.begin("image", "create", "web-1", big)
		s.until("objects come", serverLimit, func() bool {
			select {
			case <-c.ended:
				t.Fatalf("it ended:\n%s", c.out)
			default:
			}
			return folderSize(t, filepath.Join(s.state, "store")) > before+8*mib
		})
		return c
	}
	none := func() {
		t.Helper()
		if list := s.does(done, []string{"image", "list"}); strings.Contains(list, "web-1") {
			t.Fatalf("there is a backup:\n%s", list)
		}
		s.does(done, []string{"store", "gc", "--yes"}) // what was sent goes
	}
	c := create()
	s.kill()
	s.start()
	s.ends(c, failed, "no backup was made", "run this again")
	none()
	c = create()
	s.end()
	s.start()
	s.ends(c, failed, "no backup was made")
	none()
	c = create()
	must(t, c.cmd.Process.Signal(os.Interrupt))
	s.ends(c, failed, "interrupted")
	none()
	c = create()
	must(t, c.cmd.Process.Kill())
	<-c.ended
	if list := s.does(done, []string{"image", "list"}); strings.Contains(list, "web-1") {
		t.Fatalf("there is a backup:\n%s", list)
	}
	s.does(done, []string{"store", "gc", "--yes"})

	// A collection beside an upload leaves what that has sent.
	c = create()
	s.does(done, []string{"store", "gc", "--yes"})
	s.ends(c, done, "of web-1 is in the store")
	s.does(done, []string{"store", "scrub"}, "whole")
	if s.exported("web-1") != mustRead(t, big) {
		t.Error("the backup has other bytes than the file")
	}
}

func folderSize(t testing.TB, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if st, err := d.Info(); err == nil {
				n += st.Size()
			}
		}
		return nil
	})
	return n
}

// TestServedFromAfar works with a store over HTTPS, by tokens.
func TestServedFromAfar(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "api = \""+serverIP+":8443\"\n")
	laptop := newHost(t)
	s.join(laptop, "10.88.0.90")
	m := regexp.MustCompile(`admins' key"?=([0-9a-f]{64})`).FindStringSubmatch(s.said())
	if m == nil {
		t.Fatalf("the server does not say its key:\n%s", s.said())
	}
	const url = "https://" + serverIP + ":8443"
	as := func(role string) func(code int, args []string, says ...string) {
		home := tempDir(t)
		run := func(stdin string, args ...string) (int, string) {
			argv := laptop.in(append([]string{s.prog.testbox}, args...)...)
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home, "TESTBOX_SERVER=", "TESTBOX_STORE=")
			cmd.Stdin = strings.NewReader(stdin)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			return cmd.ProcessState.ExitCode(), string(out)
		}
		out := s.does(done, []string{"token", "add", "a-" + role, "--role", role})
		secret := regexp.MustCompile(`testbox-[A-Z0-9]{20,}`).FindString(out)
		if code, out := run(secret+"\n", "login", url, "--key", m[1]); code != done {
			t.Fatalf("login as %s: %d\n%s", role, code, out)
		}
		return func(code int, args []string, says ...string) {
			t.Helper()
			is, out := run("", append(args, "--server", url)...)
			if is != code {
				t.Fatalf("%v as %s ended with %d instead of %d:\n%s\nthe server says\n%s", args, role, is, code, out, s.said())
			}
			for _, want := range says {
				if !strings.Contains(out, want) {
					t.Errorf("%v as %s does not say %q:\n%s", args, role, want, out)
				}
			}
		}
	}
	viewer, operator, admin := as("viewer"), as("operator"), as("admin")
	file := diskFile(t, "disk.img", 8*mib, scattered(4))
	viewer(refused, []string{"image", "create", "web-1", file}, "this needs the role operator")
	operator(done, []string{"image", "create", "web-1", file}, "of web-1 is in the store")
	operator(done, []string{"image", "import", "web-1", "sda=" + file}, "of web-1 is in the store", " 0 B are new")
	operator(refused, []string{"store", "gc", "--yes"}, "this needs the role admin")
	operator(refused, []string{"store", "scrub"}, "this needs the role admin")
	admin(done, []string{"store", "gc", "--yes"}, "removed")
	admin(done, []string{"store", "scrub"}, "whole")
	if s.exported("web-1") != mustRead(t, file) {
		t.Error("the backup has other bytes than the file")
	}
	s.does(done, []string{"audit"}, "a-operator", "a-admin")
}
