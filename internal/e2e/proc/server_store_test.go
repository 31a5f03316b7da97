package proc

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// lockedText is what a command has printed until now.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begun is a command of an admin that has not ended.
type begun struct {
	cmd   *exec.Cmd
	out   *lockedText
	ended chan struct{}
}

// begin begins a command of an admin on the server.
func (s *serverSite) begin(args ...string) *begun {
	s.t.Helper()
	b := &begun{cmd: exec.Command(s.prog.testbox, args...), out: &lockedText{}, ended: make(chan struct{})}
	b.cmd.Env = s.env()
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, b.cmd.Start())
	go func() {
		b.cmd.Wait()
		close(b.ended)
	}()
	s.t.Cleanup(func() {
		b.cmd.Process.Kill()
		<-b.ended
	})
	return b
}

// ends waits for the end of a command, which must have the code, and have printed each
// of says.
func (s *serverSite) ends(b *begun, code int, says ...string) {
	s.t.Helper()
	select {
	case <-b.ended:
	case <-time.After(runLimit):
		s.t.Fatalf("%v does not end:\n%s\nthe server says\n%s", b.cmd.Args, b.out, s.said())
	}
	if is := b.cmd.ProcessState.ExitCode(); is != code {
		s.t.Fatalf("%v ended with %d instead of %d:\n%s\nthe server says\n%s", b.cmd.Args, is, code, b.out, s.said())
	}
	for _, want := range says {
		if !strings.Contains(b.out.String(), want) {
			s.t.Errorf("%v does not say %q:\n%s", b.cmd.Args, want, b.out)
		}
	}
}

// spoil changes a byte in the middle of the largest pack of the server's store.
func (s *serverSite) spoil() {
	s.t.Helper()
	largest, size := "", int64(0)
	must(s.t, filepath.WalkDir(filepath.Join(s.state, "store", "packs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Size() > size {
			largest, size = path, st.Size()
		}
		return err
	}))
	f, err := os.OpenFile(largest, os.O_RDWR, 0)
	must(s.t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, size/2)
	must(s.t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, size/2)
	must(s.t, err)
}

// TestServedUpkeep looks after the store of a running server, also beside a restore.
func TestServedUpkeep(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	first, _ := b.act(done, "backup")
	s.does(done, []string{"image", "date", b.addr + "@" + first.Backup, "2026-02-03T04:05"}, "is 20260203-040500 now")
	b.act(done, "backup-again")
	s.does(done, []string{"image", "delete", b.addr + "@20260203-040500", "--yes"}, "1 backup is deleted")
	s.does(done, []string{"store", "gc"}, "nothing was done")
	s.does(done, []string{"store", "gc", "--server", s.socket()}, "nothing was done")
	s.does(done, []string{"store", "gc", "--yes"}, "removed", "freed")
	s.does(done, []string{"store", "scrub"}, "read ", "whole")
	s.does(done, []string{"store", "stats"}, "The server of this machine says of this store: When it will be full is not known")
	s.does(refused, []string{"store", "rebuild-index"}, "end the server, run this again, and start the server")
	s.does(wrongUse, []string{"store", "gc", "--server", s.socket(), "--store", s.state}, "give one of them")

	sda.wreck(t)
	id := b.ask("restore")
	b.boot()
	sda.server.set(faultSet{HoldAt: 4})
	a := b.start()
	s.until("the disk is being written", serverLimit, func() bool { return sda.server.state().Held != "" })
	const waits = "The server waits until no box restores."
	waiting := func(c *begun) {
		t.Helper()
		s.until("it waits for the restore", serverLimit, func() bool { return strings.Contains(c.out.String(), waits) })
	}
	scrub := s.begin("store", "scrub")
	waiting(scrub)
	s.does(refused, []string{"store", "gc", "--yes"}, "looking after its store already (scrub")
	must(t, scrub.cmd.Process.Signal(os.Interrupt))
	s.ends(scrub, failed, "interrupted", "it was cancelled")
	gc := s.begin("store", "gc", "--yes")
	waiting(gc)
	s.end()
	s.ends(gc, failed, "the server was ended in the middle of it")
	s.start()
	gc = s.begin("store", "gc", "--yes")
	waiting(gc)
	sda.server.release()
	a.ends(failed) // what was held fails; the job has another attempt
	s.ends(gc, done, "removed")
	sda.server.set(faultSet{})
	b.boot()
	b.start().ends(done)
	if j := b.job(id); j.Outcome != "done" || sda.hash(t) != want {
		t.Errorf("the restore: %+v", j)
	}

	// A scrub that finds damage says the same through the server and without it.
	s.spoil()
	through := s.does(failed, []string{"store", "scrub"}, "costs "+b.addr, "testbox: the store has 1 fault")
	s.does(done, []string{"image", "list"}, b.addr)
	s.end()
	if alone := s.does(failed, []string{"store", "scrub"}); alone != through {
		t.Errorf("through the server a scrub says\n%s\nand without it\n%s", through, alone)
	}
	s.start()

	// So does the deletion of a backup whose record cannot be read.
	records, err := filepath.Glob(filepath.Join(s.state, "store", "records", b.addr, "*"))
	must(t, err)
	if len(records) != 1 {
		t.Fatalf("the records are %v", records)
	}
	must(t, os.WriteFile(records[0], []byte("spoilt"), 0o600))
	s.does(done, []string{"image", "delete", b.addr + "@" + filepath.Base(records[0]), "--yes"}, "1 backup is deleted")
	s.does(done, []string{"audit"}, "begin gc", "begin scrub", "cancel scrub", "set time of backup")
}

// TestServedOneStore has two servers with two state folders and one store. The second
// refuses, and the first goes on.
func TestServedOneStore(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	second := initServer(t, tempDir(t), fmt.Sprintf("store = %q\n", filepath.Join(s.state, "store")))
	second.mustNotStart("the store is in use by another process", "server --config "+s.config())
	if _, err := os.Stat(filepath.Join(second.state, "ledger.db")); !os.IsNotExist(err) {
		t.Errorf("a server without a store has made a ledger: %v", err)
	}
	b.act(done, "backup")
	sda.wreck(t)
	b.act(done, "restore")
	if sda.hash(t) != want {
		t.Error("the disk is not what it was")
	}
	s.end()
	second.start()
	second.does(done, []string{"image", "list", "--store", filepath.Join(s.state, "store")}, b.addr)
}

// TestServedOneBucket has two servers, of which each has a folder for one bucket.
func TestServedOneBucket(t *testing.T) {
	bucket := testenv.StartS3(t)
	prog, err := built()
	must(t, err)
	var sites []*serverSite
	for range 2 {
		state := tempDir(t)
		run(t, "", prog.testbox, "store", "init", "--s3", bucket.URL(bucket.Addr, "lab"), filepath.Join(state, "store"))
		sites = append(sites, initServer(t, state, fmt.Sprintf("agents = %q\n", freePort(t))))
	}
	first, second := sites[0], sites[1]
	first.start()
	refuses := func(s, owner *serverSite) {
		t.Helper()
		s.mustNotStart("another folder writes to this store", filepath.Join(owner.state, "store")+" on ", "testbox store take-over")
	}
	refuses(second, first)
	img := filepath.Join(first.state, "box1.img")
	must(t, os.WriteFile(img, noise(1, 4*mib), 0o600))
	first.does(done, []string{"image", "create", "box1", img})
	first.does(done, []string{"store", "scrub"}, "whole")
	first.end()
	refuses(second, first)
	second.does(done, []string{"store", "take-over", "--yes"})
	second.start()
	second.does(done, []string{"image", "list"}, "box1")
	refuses(first, second)
}

// mustNotStart starts a server, which must refuse and print each of says.
func (s *serverSite) mustNotStart(says ...string) {
	s.t.Helper()
	b := s.begin("server", "--config", s.config())
	s.until("the server has refused", serverLimit, func() bool {
		if strings.Contains(b.out.String(), "The server is ready.") {
			s.t.Fatalf("the server did not refuse:\n%s", b.out)
		}
		select {
		case <-b.ended:
			return true
		default:
			return false
		}
	})
	s.ends(b, refused, says...)
}

// freePort is an address at which nothing listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
