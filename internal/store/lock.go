package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
)

// Remote has the packs and records of a store whose folder has only its index
// and locks.
type Remote struct {
	Blobs      blob.Store
	OnlyWriter bool // see Owner
	TakeOver   bool // see Owner
}

// OpenDir opens the store of a folder, and holds its locks until Close. One
// process can write. Others can read at the same time, and then only the
// removal of packs is refused. remote is nil if all of the store is in the
// folder.
func OpenDir(ctx context.Context, path string, remote *Remote, readOnly bool, log func(string, ...any)) (*Locked, error) {
	must := path
	if remote == nil {
		must = filepath.Join(path, storeName)
	}
	if _, err := os.Stat(must); errors.Is(err, os.ErrNotExist) { // before a lock file is made in a folder without a store
		err = ErrNoStore
		if folder, dirErr := dir.Open(durable.OS{}, path); dirErr == nil && remote == nil {
			err = nameLost(ctx, folder, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !readOnly {
		if err := sharedLocks(path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	l := &Locked{path: path, remote: remote != nil}
	if err := l.lock(readOnly); err != nil {
		return nil, err
	}
	cfg := Config{Dir: path, ReadOnly: readOnly, Log: log, Exclusive: l.exclusive, Notes: l.notes}
	if remote != nil {
		cfg.Blobs, cfg.Owner = remote.Blobs, remote.owner(path)
	} else {
		d, err := dir.Open(durable.Owned{}, path)
		if err == nil && !readOnly { // nobody else writes
			err = d.Clean(ctx)
		}
		if err != nil {
			l.unlock()
			return nil, err
		}
		cfg.Blobs = d
	}
	if readOnly {
		cfg.Beside = l.beside
	}
	s, err := Open(ctx, cfg)
	if err != nil {
		l.unlock()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.Store = s
	if err := l.recordsGone(); err != nil {
		l.unlock()
		return nil, err
	}
	if !readOnly {
		l.sayFirst(max(s.objects.nextPack(), 1)) // an empty store knows of no number yet, and 0 is not known
	}
	return l, nil
}

func (r *Remote) owner(path string) *Owner {
	host, _ := os.Hostname()
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return &Owner{Host: host, Path: path, OnlyWriter: r.OnlyWriter, TakeOver: r.TakeOver}
}

// Locked is a store with the locks of its folder.
type Locked struct {
	*Store
	path   string
	remote bool // packs and records are not in path
	files  []*os.File
}

// InitDir makes a store in a folder, and makes the folder if it does not exist.
// The folder of records is made at once, so that recordsGone can tell if it is
// missing later.
func InitDir(ctx context.Context, path string) error {
	blobs, err := dir.New(durable.OS{}, path)
	if err == nil {
		err = Init(ctx, blobs)
	}
	if err != nil {
		return err
	}
	return durable.OS{}.MkdirAll(recordsFolder(path), 0o700)
}

func recordsFolder(path string) string {
	return filepath.Join(path, strings.TrimSuffix(recordPrefix, "/"))
}

// ErrRecordsGone is matched by the error for a store whose folder of records is
// missing.
var ErrRecordsGone = errors.New("but the folder with the records of backups is not there")

// recordsGone returns an error if there are packs and no folder of records. The
// folder may have been moved, not mounted or not restored. Without it there
// seem to be no backups, and a collection would remove all their objects.
func (l *Locked) recordsGone() error {
	has := l.objects.contents
	has.mu.Lock()
	packs := len(has.packs)
	has.mu.Unlock()
	folder := recordsFolder(l.path)
	if st, err := os.Stat(folder); l.remote || packs == 0 || err == nil && st.IsDir() || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("there are packs, %w (%s); bring it back, or, if no backup is wanted or `testbox store copy` is to bring them back, "+
		"make an empty folder of that name", ErrRecordsGone, folder)
}

// Close closes the store and releases the locks.
func (l *Locked) Close() error {
	defer l.unlock()
	return l.Store.Close()
}

func (l *Locked) unlock() {
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
}

// The files that are locked. lockName is locked by the process that writes,
// readersName by all that read.
const (
	lockName    = "lock"
	readersName = "readers"
	notesName   = "notes" // locked while the list of damaged images is rewritten
)

// ErrLocked is matched by errors that say that another process uses the store.
var ErrLocked = errors.New("in use by another process")

func (l *Locked) lock(readOnly bool) error {
	name, how := lockName, unix.LOCK_EX
	if readOnly {
		name, how = readersName, unix.LOCK_SH
	}
	f, err := flock(filepath.Join(l.path, name), how, readOnly)
	if err != nil || f == nil {
		return err
	}
	if l.files = append(l.files, f); !readOnly {
		host, _ := os.Hostname()
		f.Truncate(0)
		fmt.Fprintf(f, "process %d on %s: %s\n", os.Getpid(), host, strings.Join(strings.Fields(strings.Join(os.Args, " ")), " "))
	}
	return nil
}

// firstWord is the text before the number that sayFirst writes into the file
// lockName.
const firstWord = "first pack "

// sayFirst writes the number of the first pack that this process can write into
// the locked file. Other processes read it in beside. If it cannot be written,
// they do without it.
func (l *Locked) sayFirst(n uint32) { fmt.Fprintf(l.files[0], firstWord+"%d\n", n) }

// beside implements Config.Beside. It reports whether another process has the
// lock for writing, which one, and the number that it left with sayFirst.
func (l *Locked) beside() (who string, first uint32, writes bool) {
	f, err := os.Open(filepath.Join(l.path, lockName))
	if err != nil {
		return "", 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return "", 0, false
	}
	who, rest, _ := strings.Cut(lockText(f), "\n")
	if _, err := fmt.Sscanf(rest, firstWord+"%d", &first); err != nil {
		first = 0
	}
	return who, first, true
}

// lockText returns what the writing process has left in the file lockName.
func lockText(f *os.File) string {
	text := make([]byte, 4096)
	n, _ := f.ReadAt(text, 0)
	return strings.TrimSpace(string(text[:n]))
}

// exclusive does not wait. It fails while there are readers.
func (l *Locked) exclusive() (func(), error) {
	f, err := flock(filepath.Join(l.path, readersName), unix.LOCK_EX, false)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// notes waits until no other process rewrites the list of damaged images. That
// takes a moment.
func (l *Locked) notes() (func(), error) {
	for end := time.Now().Add(notesWait); ; time.Sleep(20 * time.Millisecond) {
		f, err := flock(filepath.Join(l.path, notesName), unix.LOCK_EX, false)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, ErrLocked) || time.Now().After(end) {
			return nil, err
		}
	}
}

// notesWait is how long notes waits at most. It allows for a slow disk.
const notesWait = 20 * time.Second

// flock locks a file. A reader gets nil if the folder is read-only and has no
// such file, since then nobody can write.
func flock(path string, how int, readOnly bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		durable.GiveToFolder(path) // or the server of the store could not open it
	}
	if readOnly && err != nil {
		if f, err = os.Open(path); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if err := flockSoon(f, how); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("the store is %w; wait for it to end: %s", ErrLocked, holders(f))
	}
	return f, nil
}

// flockSoon locks a file. It tries a few times, since a process that only
// checks whether the file is locked has a lock itself for a moment.
func flockSoon(f *os.File, how int) (err error) {
	for range 5 {
		if err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// holders says who has a lock on a file. It prefers what the writing process
// has left in the file, and otherwise uses the kernel's list (proc(5),
// /proc/locks).
func holders(f *os.File) string {
	if who, _, _ := strings.Cut(lockText(f), "\n"); who != "" {
		return who
	}
	var out []string
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err == nil && unix.Fstat(int(f.Fd()), &st) == nil {
		for line := range strings.Lines(string(locks)) {
			w := strings.Fields(line)
			if len(w) > 5 && w[1] == "FLOCK" && strings.HasSuffix(w[5], fmt.Sprintf(":%d", st.Ino)) {
				args, _ := os.ReadFile("/proc/" + w[4] + "/cmdline")
				out = append(out, fmt.Sprintf("process %s: %s", w[4], strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))))
			}
		}
	}
	if len(out) == 0 {
		return "another process"
	}
	return strings.Join(out, "; ")
}
