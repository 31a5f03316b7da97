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

// Remote is where the packs and records of a store are that are not in its
// folder.
type Remote struct {
	Blobs      blob.Store
	OnlyWriter bool // see Owner
	TakeOver   bool // see Owner
}

// OpenDir opens the store of a folder, and holds its locks until Close: one
// process writes; others read beside it, and hold up the removal of packs
// only. Remote is nil if all of the store is in the folder.
func OpenDir(ctx context.Context, path string, remote *Remote, readOnly bool, log func(string, ...any)) (*Locked, error) {
	must := path
	if remote == nil {
		must = filepath.Join(path, storeName)
	}
	if _, err := os.Stat(must); errors.Is(err, os.ErrNotExist) { // before a lock is left in a folder that is none
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
		d, err := dir.Open(durable.OS{}, path)
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
		l.sayFirst(s.objects.next)
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

// InitDir makes a store in a folder, which is made if it is not there. The
// folder of records is made at once, so that it is known to be away when it is.
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

// ErrRecordsGone is matched by the error of a store whose records are away.
var ErrRecordsGone = errors.New("but the folder with the records of backups is not there")

// recordsGone is an error if there are packs, and the folder with the records of
// backups is away: moved, not mounted, not restored. Without it there seem to
// be no backups, and a collection would remove what they need.
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

// Close closes the store and gives the locks back.
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

// The files that are locked: by the one that writes, and by all that read.
const (
	lockName    = "lock"
	readersName = "readers"
	notesName   = "notes" // by who rewrites the list of damaged images, for that moment
)

// ErrLocked is matched by errors that say that another process has the store.
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

// firstWord stands in the file that is locked for writing before the number of
// the first pack that its holder can write.
const firstWord = "first pack "

// sayFirst writes into the locked file that this process can have written the
// packs from number n on. Other processes read it in beside. They do without it
// if it cannot be written.
func (l *Locked) sayFirst(n uint32) { fmt.Fprintf(l.files[0], firstWord+"%d\n", n) }

// beside implements Config.Beside: whether another process has the lock for
// writing, which one, and the number that it left with sayFirst.
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

// lockText is what the process that writes left in the file that it has locked.
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

// notes waits for whoever rewrites the list of damaged images, which takes a
// moment.
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

// notesWait is how long notes waits: for a disk that answers late.
const notesWait = 20 * time.Second

// flock locks a file. Where the folder cannot be written to and has no such
// file, nobody writes, and a reader goes without: it gets nil.
func flock(path string, how int, readOnly bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
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

// flockSoon locks a file. Whoever only looks whether it is locked has a lock
// itself for a moment, which is waited for.
func flockSoon(f *os.File, how int) (err error) {
	for range 5 {
		if err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// holders says who has a lock on a file: what the one that writes left in it,
// else what the kernel knows (proc(5), /proc/locks).
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
