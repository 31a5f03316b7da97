package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
)

var (
	ctx  = context.Background()
	noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
)

// boxAddr is the address of the n-th box.
func boxAddr(n int) box.Addr {
	a, err := box.ParseAddr(fmt.Sprintf("10.%d.%d.%d", 1+n>>16, n>>8&0xff, n&0xff))
	if err != nil {
		panic(err)
	}
	return a
}

func jobID(n int) string { return fmt.Sprintf("job-%08d", n) }

// addNumber makes the n-th of a row of changes. Each has several parts, of which
// checkNumbers misses none.
func addNumber(l *ledger.Ledger, n int) error {
	return l.Update(ctx, func(tx *ledger.Tx) error {
		id := jobID(n)
		b := ledger.Box{Address: boxAddr(1), Health: ledger.Good, Labels: []string{"of " + id},
			MACs: []string{fmt.Sprintf("52:54:00:%02x:%02x:%02x", n>>16, n>>8&0xff, n&0xff)}}
		j := ledger.Job{ID: id, Box: b.Address, State: "queued", Created: noon.Add(time.Duration(n)),
			Doc: fmt.Appendf(nil, `{"n":%d,"x":%q}`, n, strings.Repeat("x", n%3000))}
		return errors.Join(tx.AddJob(j), tx.PutBox(b), tx.AddAudit(ledger.Entry{Time: noon, What: "arm", On: id}),
			tx.PutSchedule(ledger.Schedule{Name: "n", Spec: "x", Target: id}))
	})
}

// checkNumbers counts the changes of addNumber. It fails unless they are those
// from 1 on, each of them whole.
func checkNumbers(l *ledger.Ledger) (count int, err error) {
	err = l.View(ctx, func(tx *ledger.Tx) error {
		listed := 0
		for p := (ledger.Page{}); ; {
			jobs, next, err := tx.Jobs(ledger.JobFilter{}, p)
			if err != nil {
				return err
			}
			if count == 0 && len(jobs) > 0 {
				fmt.Sscanf(jobs[0].ID, "job-%d", &count)
			}
			for _, j := range jobs {
				if want := jobID(count - listed); j.ID != want {
					return fmt.Errorf("there is %s where %s belongs", j.ID, want)
				}
				listed++
			}
			if p.After = next; next == "" {
				break
			}
		}
		all := 0
		for p := (ledger.Page{}); ; {
			entries, next, err := tx.Audit(ledger.AuditFilter{}, p)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.On != jobID(count-all) || e.Number != int64(count-all) {
					return fmt.Errorf("the entry %d is of %s, where %d belongs", e.Number, e.On, count-all)
				}
				all++
			}
			if p.After = next; next == "" {
				break
			}
		}
		if all != count || listed != count {
			return fmt.Errorf("of %d changes there are %d jobs and %d entries", count, listed, all)
		}
		if count == 0 {
			return nil
		}
		b, err := tx.Box(boxAddr(1))
		last, err2 := tx.Schedules()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if len(b.Labels) != 1 || b.Labels[0] != "of "+jobID(count) || len(b.MACs) != 1 || len(last) != 1 || last[0].Target != jobID(count) {
			return fmt.Errorf("after %d jobs the box is %+v, and the schedules are %+v", count, b, last)
		}
		return nil
	})
	return count, err
}

const childPath = "TESTBOX_LEDGER_CHILD"

// TestMain is a child of a test, if the environment says so. The child makes one
// change after the other and says the number of each that was acknowledged.
func TestMain(m *testing.M) {
	path := os.Getenv(childPath)
	if path == "" {
		os.Exit(m.Run())
	}
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	n, err := checkNumbers(l)
	for fmt.Println(n); err == nil; fmt.Println(n) {
		n++
		err = addNumber(l, n)
	}
	fmt.Println(err)
	os.Exit(1)
}

// child is a process that changes a ledger.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startChild(t *testing.T, path string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childPath+"="+path)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	c.lines = bufio.NewScanner(out)
	return c
}

// next is the next number that the child acknowledged, or -1 at its end.
func (c *child) next(t *testing.T) int {
	t.Helper()
	if !c.lines.Scan() {
		return -1
	}
	n, err := strconv.Atoi(c.lines.Text())
	if err != nil {
		t.Fatalf("the child says %q", c.lines.Text())
	}
	return n
}

// A process that is killed at any moment leaves all that it acknowledged, and
// nothing half. The next one opens the ledger by itself.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	acked := 0
	for range 15 {
		c := startChild(t, path)
		for range 1 + rand.IntN(20) {
			acked = max(acked, c.next(t))
		}
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		c.cmd.Process.Kill()
		for n := c.next(t); n >= 0; n = c.next(t) { // what it said before it died
			acked = max(acked, n)
		}
		c.cmd.Wait()
		l, err := ledger.Open(ctx, path, ledger.Options{MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		n, err := checkNumbers(l)
		if err != nil || n < acked || n > acked+1 {
			t.Fatalf("%d changes are there, %d were acknowledged: %v", n, acked, err)
		}
		acked = n
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked < 15 {
		t.Errorf("only %d changes were made", acked)
	}
}

// The files of a ledger at any moment, without its process, are a ledger.
func TestCopiedAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, filepath.Join(dir, "ledger.db"))
	for i := range 10 {
		acked := 0
		for range 1 + rand.IntN(15) {
			acked = c.next(t)
		}
		c.cmd.Process.Signal(syscall.SIGSTOP)
		stopped(t, c.cmd.Process.Pid)
		moment := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.CopyFS(moment, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		c.cmd.Process.Signal(syscall.SIGCONT)
		n, err := checkNumbers(open(t, filepath.Join(moment, "ledger.db")))
		if err != nil || n < acked {
			t.Fatalf("%d changes are there, %d were acknowledged: %v", n, acked, err)
		}
	}
}

func stopped(t *testing.T, pid int) {
	t.Helper()
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest, "T") {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the child does not stop")
}

// A power cut can leave any part of what was written to the journal since the
// last commit. So a ledger whose journal ends anywhere, or has other bytes from
// there on, has all changes up to one of them.
func TestTornJournal(t *testing.T) {
	dir, moment := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	l := open(t, path)
	sizes := []int64{0} // of the journal, after each change
	for n := 1; n <= 12; n++ {
		if err := addNumber(l, n); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.Size())
	}
	base, journal := readFile(t, path), readFile(t, path+"-wal")
	if int64(len(journal)) != sizes[len(sizes)-1] || len(journal) < 10000 {
		t.Fatalf("the journal has %d bytes; the test must not meet a checkpoint", len(journal))
	}
	for range 60 {
		cut := rand.IntN(len(journal) + 1)
		torn := bytes.Clone(journal[:cut])
		switch rand.IntN(3) {
		case 0:
			torn = append(torn, make([]byte, len(journal)-cut)...)
		case 1: // one bit that turned, as by a worn disk
			if torn = bytes.Clone(journal); cut < len(torn) {
				torn[cut] ^= 1 << rand.IntN(8)
			}
		}
		want := 0
		for n, size := range sizes {
			if size <= int64(cut) {
				want = n
			}
		}
		writeFile(t, filepath.Join(moment, "ledger.db"), base)
		writeFile(t, filepath.Join(moment, "ledger.db-wal"), torn)
		l, err := ledger.Open(ctx, filepath.Join(moment, "ledger.db"), ledger.Options{})
		if err != nil {
			t.Fatalf("the journal ends at %d of %d: %v", cut, len(journal), err)
		}
		// What is missing may have been zeros, and so one more may be there.
		if n, err := checkNumbers(l); err != nil || n < want || n > want+1 {
			t.Fatalf("the journal ends at %d of %d: %d changes, not %d: %v", cut, len(journal), n, want, err)
		}
		l.Close()
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Nobody else opens a ledger that is open, neither another process nor this one.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	c := startChild(t, path)
	c.next(t)
	_, err := ledger.Open(ctx, path, ledger.Options{})
	p := (*problem.Error)(nil)
	if !errors.Is(err, ledger.ErrInUse) || !errors.As(err, &p) || p.Kind != problem.Refused ||
		!strings.Contains(err.Error(), fmt.Sprint("process ", c.cmd.Process.Pid)) {
		t.Errorf("the error is %v", err)
	}
	if c.next(t) < 1 {
		t.Error("the first one cannot go on")
	}
	c.cmd.Process.Kill()
	c.cmd.Wait()
	open(t, path)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, link} {
		if _, err := ledger.Open(ctx, path, ledger.Options{}); !errors.Is(err, ledger.ErrInUse) {
			t.Errorf("the error is %v", err)
		}
	}
}

// sample makes a ledger with entries of all kinds, which is closed.
func sample(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(ctx, func(tx *ledger.Tx) error {
		errs := []error{tx.PutGroup(ledger.Group{Name: "rack"})}
		for i := range 40 {
			h := ledger.Hash{byte(i), 1}
			b := ledger.Box{Address: boxAddr(i + 1), Name: fmt.Sprint("box-", i), Health: ledger.Good, Labels: []string{"a", fmt.Sprint("l", i)},
				Groups: []string{"rack"}, MACs: []string{fmt.Sprintf("52:54:00:00:00:%02x", i)}, FirstSeen: noon, LastSeen: noon}
			j := ledger.Job{ID: jobID(i), Box: b.Address, State: "ended", Created: noon, Changed: noon, Ended: noon,
				Doc: fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("some text ", i*20))}
			errs = append(errs, tx.PutBox(b), tx.AddJob(j),
				tx.PutUser(ledger.User{Name: fmt.Sprint("user", i), Role: ledger.Viewer, Password: "hash"}),
				tx.PutSession(ledger.Session{Hash: h, Job: j.ID, Address: b.Address, Created: noon, Used: noon}),
				tx.PutToken(ledger.Token{Hash: h, Name: "token", User: fmt.Sprint("user", i), Role: ledger.Admin, Expires: noon}),
				tx.AddLogin(ledger.Login{Hash: ledger.Hash{9, byte(i)}, Token: h, Begun: noon, Expires: noon.Add(time.Hour)}),
				tx.PutSchedule(ledger.Schedule{Name: fmt.Sprint("s", i), Spec: "x", Target: "rack", LastRun: noon}),
				tx.AddAudit(ledger.Entry{Time: noon, Who: "eva", From: "socket", What: "arm", On: b.Address.String()}))
		}
		return errors.Join(errs...)
	})
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// everything reads all that is in a ledger, each entry as a line.
func everything(l *ledger.Ledger) (lines []string, err error) {
	add := func(v any) { lines = append(lines, fmt.Sprintf("%T %+v", v, v)) }
	err = l.View(ctx, func(tx *ledger.Tx) error {
		boxes, _, e1 := tx.Boxes(ledger.BoxFilter{}, ledger.Page{})
		jobs, _, e2 := tx.Jobs(ledger.JobFilter{}, ledger.Page{})
		entries, _, e3 := tx.Audit(ledger.AuditFilter{}, ledger.Page{})
		users, e4 := tx.Users()
		tokens, e5 := tx.Tokens("")
		schedules, e6 := tx.Schedules()
		groups, e7 := tx.Groups()
		errs := []error{e1, e2, e3, e4, e5, e6, e7}
		for i := range 40 {
			if login, err := tx.Login(ledger.Hash{9, byte(i)}); err == nil {
				add(login)
			} else if !errors.Is(err, ledger.ErrNotFound) {
				errs = append(errs, err)
			}
		}
		for i := range 40 {
			sessions, err := tx.Sessions(jobID(i))
			errs = append(errs, err)
			for _, v := range sessions {
				add(v)
			}
		}
		for _, list := range []any{boxes, jobs, entries, users, tokens, schedules, groups} {
			for v := reflect.ValueOf(list); v.Len() > 0; v = v.Slice(1, v.Len()) {
				add(v.Index(0).Interface())
			}
		}
		return errors.Join(errs...)
	})
	return lines, err
}

// A damaged ledger is an error, or has all entries that it had. What SQLite
// cannot find is that a text or number became another one, which can only be in
// a single entry. Nothing panics.
func TestDamaged(t *testing.T) {
	path := sample(t)
	good := readFile(t, path)
	l := open(t, path)
	want, err := everything(l)
	if err != nil || len(want) < 7*40 {
		t.Fatal(len(want), err)
	}
	broken := filepath.Join(t.TempDir(), "ledger.db")
	found, same, other := 0, 0, 0
	for i := range 250 {
		b := bytes.Clone(good)
		at := rand.IntN(len(b))
		if i < 100 { // where the structure is
			at = i
		}
		what := fmt.Sprintf("bit of byte %d", at)
		switch {
		case i%10 == 9:
			what = fmt.Sprintf("512 bytes from %d", at)
			for k := at; k < min(len(b), at+512); k++ {
				b[k] = byte(rand.IntN(256))
			}
		default:
			b[at] ^= 1 << rand.IntN(8)
		}
		writeFile(t, broken, b)
		got, err := openAndRead(broken)
		if err != nil {
			found++
			if len(err.Error()) < 20 || strings.Contains(err.Error(), "%!") {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		lost, new := without(want, got), without(got, want)
		switch {
		case i%10 != 9 && (lost > 1 || new > 1):
			t.Errorf("%s: %d entries are lost and %d are new, without an error", what, lost, new)
		case lost+new == 0:
			same++
		default:
			other++
		}
	}
	t.Logf("%d were errors, %d did no harm, %d changed an entry", found, same, other)
	if found < 50 {
		t.Errorf("only %d of 250 were found", found)
	}
}

// TestDamagedIndex changes the last byte of each page of an index, so that an entry
// belongs to another row than before. Each page is sound by itself, so only a look
// at all of the ledger finds that. Tables without row ids have such pages too.
func TestDamagedIndex(t *testing.T) {
	path := sample(t)
	good := readFile(t, path)
	broken := filepath.Join(t.TempDir(), "ledger.db")
	size := int(binary.BigEndian.Uint16(good[16:]))
	const leafOfIndex = 0x0a // docs: https://www.sqlite.org/fileformat2.html, section 1.6
	found := 0
	for at := size; at+size <= len(good); at += size {
		if good[at] != leafOfIndex || binary.BigEndian.Uint16(good[at+3:]) == 0 {
			continue
		}
		b := bytes.Clone(good)
		b[at+size-1] ^= 1
		writeFile(t, broken, b)
		switch l, err := ledger.Open(ctx, broken, ledger.Options{}); {
		case errors.Is(err, ledger.ErrDamaged) && !strings.Contains(err.Error(), "refers to one that is gone"):
			found++
		case errors.Is(err, ledger.ErrDamaged): // that is another check
		case err != nil:
			t.Error(err)
		default: // a table without row ids, of which only an entry has changed
			l.Close()
		}
	}
	if found < 3 {
		t.Errorf("only %d changed entries of indexes were found", found)
	}
}

// without counts the lines of a that are not in b.
func without(a, b []string) (n int) {
	for _, line := range a {
		if !slices.Contains(b, line) {
			n++
		}
	}
	return n
}

func openAndRead(path string) ([]string, error) {
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return everything(l)
}

// A ledger that was cut is never taken for a new one, or for a whole one.
func TestCut(t *testing.T) {
	good := readFile(t, sample(t))
	path := filepath.Join(t.TempDir(), "ledger.db")
	all := len(good)
	for _, n := range []int{0, 1, 15, 16, 99, 100, 512, 4095, 4096, 8192, all / 2, all/2&^4095 + 1, all - 4096, all - 1} {
		writeFile(t, path, good[:n])
		_, err := openAndRead(path)
		if !errors.Is(err, ledger.ErrDamaged) || !strings.Contains(err.Error(), "newest copy") {
			t.Errorf("%d bytes of %d: %v", n, len(good), err)
		}
	}
}

// What is no ledger is left as it is.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("CREATE TABLE boxes (x)")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text.db")
	writeFile(t, text, bytes.Repeat([]byte("no database "), 1000))
	for _, path := range []string{path, text} {
		before := readFile(t, path)
		_, err := ledger.Open(ctx, path, ledger.Options{})
		if !errors.Is(err, ledger.ErrForeign) {
			t.Errorf("the error is %v", err)
		}
		if !bytes.Equal(before, readFile(t, path)) {
			t.Errorf("%s was changed", path)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{dir, filepath.Join(dir, "none", "ledger.db"), pipe} {
		if _, err := ledger.Open(ctx, what, ledger.Options{}); err == nil {
			t.Errorf("%s was opened", what)
		}
	}
}

// A ledger that a newer version of this program made is refused, and left as it
// is.
func TestNewer(t *testing.T) {
	path := sample(t)
	change(t, path, "PRAGMA user_version = 1000")
	before := readFile(t, path)
	_, err := ledger.Open(ctx, path, ledger.Options{})
	if !errors.Is(err, ledger.ErrNewer) || !strings.Contains(err.Error(), "version 1000") {
		t.Errorf("the error is %v", err)
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Error("the ledger was changed")
	}
}

// change changes a ledger behind its back.
func change(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec(query)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// What an entry refers to is looked at when a ledger is opened.
func TestDangling(t *testing.T) {
	path := sample(t)
	change(t, path, "PRAGMA foreign_keys = 0; DELETE FROM users WHERE name = 'user3'")
	if _, err := ledger.Open(ctx, path, ledger.Options{}); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("the error is %v", err)
	}
}

func TestMustExist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, err := ledger.Open(ctx, path, ledger.Options{MustExist: true})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "newest copy") {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was made")
	}
}

// The journal of a ledger is not put over another one, neither over a copy that
// was put in its place nor over a new one. SQLite would do so.
func TestLeftJournal(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "copy.db")
	l := open(t, path)
	if err := errors.Join(addNumber(l, 1), l.CopyTo(ctx, copied), addNumber(l, 2)); err != nil {
		t.Fatal(err)
	}
	journal := readFile(t, path+"-wal") // as after a kill
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, there := range []bool{true, false} {
		os.Remove(path)
		if there {
			writeFile(t, path, readFile(t, copied))
		}
		writeFile(t, path+"-wal", journal)
		if _, err := ledger.Open(ctx, path, ledger.Options{}); !errors.Is(err, ledger.ErrDamaged) || !strings.Contains(err.Error(), path+"-wal") {
			t.Errorf("the copy is there: %v; the error is %v", there, err)
		}
		if !bytes.Equal(readFile(t, path+"-wal"), journal) {
			t.Error("the journal was changed")
		}
	}
	os.Remove(path + "-wal")
	writeFile(t, path, readFile(t, copied))
	if n, err := checkNumbers(open(t, path)); err != nil || n != 1 {
		t.Errorf("the copy has %d changes, %v", n, err)
	}
}

// A copy is one state, whole, and only its owner may read it. Writers go on
// beside it.
func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	l := open(t, filepath.Join(dir, "a name?with%41 #signs.db"))
	done := make(chan struct{})
	var writing sync.WaitGroup
	n := 0
	made := make(chan struct{}, 1000)
	writing.Go(func() {
		defer close(made)
		for {
			select {
			case <-done:
				return
			default:
			}
			n++
			if err := addNumber(l, n); err != nil {
				t.Error(err)
				return
			}
			select {
			case made <- struct{}{}:
			default:
			}
		}
	})
	next := func() { // waits for a change
		for more := true; more && len(made) > 0; {
			_, more = <-made
		}
		<-made
	}
	next()
	copied := filepath.Join(dir, "copy?%41.db")
	writeFile(t, copied+".tmp", []byte("left by a copy that was killed"))
	last := 0
	for range 5 {
		if err := l.CopyTo(ctx, copied); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(copied); err != nil || st.Mode() != 0o600 {
			t.Errorf("the mode is %v, %v", st.Mode(), err)
		}
		c := filepath.Join(t.TempDir(), "ledger.db")
		writeFile(t, c, readFile(t, copied))
		got, err := checkNumbers(open(t, c))
		if err != nil || got <= last {
			t.Errorf("the copy has %d changes, after one with %d: %v", got, last, err)
		}
		last = got
		next()
	}
	close(done)
	writing.Wait()
	if got, err := checkNumbers(l); err != nil || got != n {
		t.Errorf("the ledger has %d changes, not %d: %v", got, n, err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 5 { // ledger, -wal, -shm, .lock and the copy
		t.Errorf("there are %v, %v", names, err)
	}
	for _, s := range names {
		if info, _ := s.Info(); info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v", s.Name(), info.Mode())
		}
	}
}

// A copy that fails leaves the one of before.
func TestCopyFails(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "copy.db")
	l := open(t, path)
	if err := errors.Join(addNumber(l, 1), l.CopyTo(ctx, copied)); err != nil {
		t.Fatal(err)
	}
	before := readFile(t, copied)
	ending, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.CopyTo(ending, copied); err == nil {
		t.Error("the context had ended")
	}
	for _, to := range []string{path, path + "-wal", filepath.Join(dir, "none", "copy.db"), dir} {
		if err := l.CopyTo(ctx, to); err == nil {
			t.Errorf("a copy to %s was made", to)
		}
	}
	if !bytes.Equal(before, readFile(t, copied)) {
		t.Error("the copy was changed")
	}
	if n, err := checkNumbers(l); err != nil || n != 1 {
		t.Errorf("%d changes, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.CopyTo(ctx, copied); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("the error is %v", err)
	}
}

// small mounts a file system of a few MiB.
func small(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A full disk is told as one. Nothing that was acknowledged is lost, and the
// ledger goes on when there is room again.
func TestFull(t *testing.T) {
	dir := small(t)
	l := open(t, filepath.Join(dir, "ledger.db"))
	filler := filepath.Join(dir, "filler")
	n := 0
	var err error
	for err == nil {
		if n == 20 {
			fill(t, filler)
		}
		n++
		err = addNumber(l, n)
	}
	if !errors.Is(err, ledger.ErrFull) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the error is %v", err)
	}
	if got, err := checkNumbers(l); err != nil || got != n-1 {
		t.Errorf("%d changes, not %d: %v", got, n-1, err)
	}
	if err := l.CopyTo(ctx, filepath.Join(dir, "copy.db")); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("the error of a copy is %v", err)
	}
	if _, err := ledger.Open(ctx, filepath.Join(dir, "new.db"), ledger.Options{}); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("the error of a new ledger is %v", err)
	}
	os.Remove(filler)
	if err := addNumber(l, n); err != nil {
		t.Error(err)
	}
	if got, err := checkNumbers(l); err != nil || got != n {
		t.Errorf("%d changes, not %d: %v", got, n, err)
	}
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
}

// A folder that cannot be written to is told as one.
func TestReadOnly(t *testing.T) {
	dir := small(t)
	path := filepath.Join(dir, "ledger.db")
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err := errors.Join(err, addNumber(l, 1), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(dir, "new.db")} {
		_, err := ledger.Open(ctx, path, ledger.Options{})
		if !errors.Is(err, ledger.ErrReadOnly) || !strings.Contains(err.Error(), "can write to") {
			t.Errorf("the error is %v", err)
		}
	}
}

// Each Update is flushed before it returns. One that could not be flushed is told
// apart, is not seen, and is gone when the next one succeeded.
func TestFlushed(t *testing.T) {
	testenv.Root(t)
	s := testenv.SyncFolder(t)
	path := filepath.Join(s.Dir, "ledger.db")
	l := open(t, path)
	for n := 1; n <= 20; n++ {
		s.Counts()
		if err := addNumber(l, n); err != nil {
			t.Fatal(err)
		}
		if files, _ := s.Counts(); files == 0 {
			t.Errorf("the change %d was not flushed", n)
		}
	}
	s.Fail(syscall.EIO, 0)
	if err := addNumber(l, 21); !errors.Is(err, ledger.ErrUnsure) {
		t.Errorf("the error is %v", err)
	}
	if err := l.CopyTo(ctx, filepath.Join(s.Dir, "copy.db")); err == nil {
		t.Error("a copy that was not flushed is there")
	}
	s.Fail(0, 0)
	if n, err := checkNumbers(l); err != nil || n != 20 {
		t.Errorf("%d changes are seen: %v", n, err)
	}
	if err := l.Update(ctx, func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "g"}) }); err != nil {
		t.Fatal(err)
	}
	moment := filepath.Join(t.TempDir(), "ledger.db")
	writeFile(t, moment, readFile(t, path))
	writeFile(t, moment+"-wal", readFile(t, path+"-wal"))
	if n, err := checkNumbers(open(t, moment)); err != nil || n != 20 {
		t.Errorf("%d changes come back: %v", n, err)
	}
}

// The journal does not grow without end while there is always somebody who reads.
func TestJournalStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	done := make(chan struct{})
	var reading sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := l.View(ctx, func(tx *ledger.Tx) error {
					_, err := tx.Groups()
					time.Sleep(3 * time.Millisecond)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	doc := `"` + strings.Repeat("x", 100000) + `"`
	largest := int64(0)
	for i := range 600 { // 60 MB
		if err := l.Update(ctx, func(tx *ledger.Tx) error {
			return tx.AddJob(ledger.Job{ID: fmt.Sprint(i), Box: boxAddr(1), State: "x", Created: noon, Doc: []byte(doc)})
		}); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path + "-wal"); err == nil {
			largest = max(largest, st.Size())
		}
	}
	close(done)
	reading.Wait()
	t.Logf("the journal had up to %d bytes", largest)
	if largest > 32<<20 {
		t.Errorf("the journal had %d bytes", largest)
	}
}

// The version of libc must be the one that the SQLite library names, since it
// was made for that one.
func TestLibraries(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.GoMod}}", "modernc.org/sqlite").Output()
	if err != nil {
		t.Fatal(err)
	}
	libc := regexp.MustCompile(`modernc\.org/libc (\S+)`)
	theirs := libc.FindStringSubmatch(string(readFile(t, strings.TrimSpace(string(out)))))
	ours := libc.FindStringSubmatch(string(readFile(t, filepath.Join(testenv.Top(), "go.mod"))))
	if theirs == nil || ours == nil || theirs[1] != ours[1] {
		t.Errorf("go.mod has libc %v, and SQLite names %v", ours, theirs)
	}
}
