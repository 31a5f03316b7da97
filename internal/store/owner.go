package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// In object storage, no lock keeps other machines out. So a blob names the
// folder that may write, the owner. Only the owner may create a record or
// remove a blob. It first announces this in that blob, which it writes over the
// version that it knows. A process that takes the store over also writes over a
// version. It then finishes or bars what the former owner had announced. The
// former owner may not know yet that it was overtaken, but its requests cannot
// do harm any more, however late they arrive. No clock is involved.

// ownerName is that blob. In the owner's folder, a file of this name has what
// the folder remembers (ownFile).
const ownerName = "owner"

const (
	ownerFormat = 1
	maxOwner    = 4 << 20 // bytes
)

// Owner has what a Config needs to become the owner.
type Owner struct {
	Host, Path string // shown to users of other folders
	TakeOver   bool   // become the owner even if another folder is
	OnlyWriter bool   // the admin says that nobody else writes, so the server need not support conditional writes
}

// ownerFile is the content of the owner's blob.
type ownerFile struct {
	Format  int       `json:"format"`  // ownerFormat
	Folder  string    `json:"folder"`  // random, identifies the owner's folder
	Session string    `json:"session"` // random, identifies the owner's last opening for writing
	Host    string    `json:"host"`
	Path    string    `json:"path"`
	Since   time.Time `json:"since"` // start of the session
	Step    int       `json:"step"`  // counts changes, so that no two texts are equal
	// NextPack is above the numbers of all packs that were removed, so that no
	// number is used twice.
	NextPack uint32   `json:"next_pack"`
	Creating []string `json:"creating,omitempty"` // records that are announced
	Removing []string `json:"removing,omitempty"` // records and packs that are announced
}

// ownFile is what the owner's folder remembers.
type ownFile struct {
	Folder  string   `json:"folder"`
	Session string   `json:"session"`         // the last session
	Tried   []string `json:"tried,omitempty"` // later sessions that may or may not have become the owner
}

// ErrNotOwner is matched by errors that say that another folder writes to the
// store.
var ErrNotOwner = errors.New("another folder writes to this store")

// OwnerError describes that folder.
type OwnerError struct {
	Host, Path string
	Since      time.Time // when it last opened the store for writing, by its clock
	Copied     bool      // one of the two folders is a copy of the other, or was set back to an earlier state
	Overtaken  bool      // it took the store over while this process had it open
}

func (e *OwnerError) Error() string {
	owner := fmt.Sprintf("%s on %s, which opened it for writing at %s", e.Path, e.Host, e.Since.UTC().Format(time.RFC3339))
	switch {
	case e.Overtaken:
		return fmt.Sprintf("the store was taken over by the folder %s; nothing more is written from here", owner)
	case e.Copied:
		return fmt.Sprintf("%v: the folder %s; this folder is a copy of that one, or was set back to an earlier state; use that folder, or %s",
			ErrNotOwner, owner, takeOverHelp)
	}
	return fmt.Sprintf("%v: the folder %s; use that folder, or, %s", ErrNotOwner, owner, takeOverHelp)
}

const takeOverHelp = "once nothing there writes any more, make this folder the owner with `testbox store take-over`"

// Is implements the protocol of errors.Is.
func (e *OwnerError) Is(target error) bool { return target == ErrNotOwner }

// ErrNoOwner says that nobody has opened the store for writing yet.
var ErrNoOwner = errors.New("the store has no owner yet")

// ReadOwner returns the owner of a store.
func ReadOwner(ctx context.Context, blobs blob.Store) (*OwnerError, error) {
	f, err := readOwner(ctx, blobs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoOwner
	} else if err != nil {
		return nil, err
	}
	return f.asError(), nil
}

func readOwner(ctx context.Context, blobs blob.Store) (f ownerFile, err error) {
	body, err := readEnvelope(ctx, blobs, ownerName, "owner", maxOwner)
	if err != nil {
		return f, err
	}
	if err := image.DecodeStrict("it", body, &f); err != nil {
		return f, fmt.Errorf("%s: %w", ownerName, err)
	}
	if f.Format != ownerFormat || f.Folder == "" || f.Session == "" {
		return f, fmt.Errorf("%s has format %d, this program reads format %d", ownerName, f.Format, ownerFormat)
	}
	return f, nil
}

func (f *ownerFile) asError() *OwnerError {
	return &OwnerError{Host: f.Host, Path: f.Path, Since: f.Since}
}

// lease is the ownership of a store. It is nil for a store that a lock guards.
type lease struct {
	site *site
	has  *contents  // knows the packs
	mu   sync.Mutex // held while the owner's blob is changed; guards the fields below
	now  ownerFile
	busy map[string]bool // announced names that are being worked on; the others were left behind
	lost error           // set when another folder owns the store
	// unsure says that the last change failed, so the blob may differ from now.
	unsure bool
}

// claim makes this folder the owner. If another folder has been the owner since
// this one had the store open, this folder's index is removed.
func (s *loader) claim(ctx context.Context) error {
	own, err := s.readOwn()
	if err != nil {
		return err
	}
	over, before, err := s.ownerNow(ctx)
	if err != nil {
		return err
	}
	mine := own.had(before)
	if over != blob.None && !mine && !s.cfg.Owner.TakeOver {
		e := before.asError()
		e.Copied = before.Folder == own.Folder
		return e
	}
	if !s.cfg.Owner.OnlyWriter {
		if err := blob.Probe(ctx, s.cfg.Blobs); err != nil {
			return err
		}
	}
	if !mine {
		if err := s.dropIndex(); err != nil {
			return err
		}
	}
	next := ownerFile{Format: ownerFormat, Folder: own.Folder, Session: rand.Text(), Host: s.cfg.Owner.Host, Path: s.cfg.Owner.Path,
		Since: time.Now().UTC().Truncate(time.Second), NextPack: before.NextPack, Creating: before.Creating, Removing: before.Removing}
	own.Tried = append(own.Tried, next.Session)
	if err := s.writeOwn(own); err != nil {
		return err
	}
	err = writeOver(ctx, s.cfg.Blobs, ownerName, over, "owner", next, maxOwner)
	switch {
	case errors.Is(err, fs.ErrExist) || errors.Is(err, blob.ErrChanged):
		return fmt.Errorf("another process became the store's owner just now: %w; look who it is, and try again", ErrNotOwner)
	case err != nil:
		return err
	}
	own = ownFile{Folder: own.Folder, Session: next.Session}
	if err := s.writeOwn(own); err != nil {
		return err
	}
	s.lease = &lease{site: s.site, has: s.contents, now: next, busy: map[string]bool{}}
	s.next = max(s.next, next.NextPack)
	return s.lease.settle(ctx)
}

// isLastOwner reports whether no other folder has written to the store since
// this one had it open for writing.
func (s *site) isLastOwner(ctx context.Context) bool {
	now, err := readOwner(ctx, s.cfg.Blobs) // first, since the folder's file is written before the blob
	if err != nil {
		return false
	}
	own, err := s.readOwn()
	return err == nil && own.had(now)
}

// had reports whether f is a session of the folder that own belongs to.
func (own *ownFile) had(f ownerFile) bool {
	return f.Folder == own.Folder && (f.Session == own.Session || slices.Contains(own.Tried, f.Session))
}

// ownerNow returns the owner's blob and its version. For a take-over, a damaged
// blob counts as an empty one.
func (s *site) ownerNow(ctx context.Context) (blob.Version, ownerFile, error) {
	// The version is read first. If the blob changes after that, a write over this
	// version fails.
	v, err := s.cfg.Blobs.Version(ctx, ownerName)
	if errors.Is(err, fs.ErrNotExist) {
		return blob.None, ownerFile{}, nil
	} else if err != nil {
		return v, ownerFile{}, err
	}
	f, err := readOwner(ctx, s.cfg.Blobs)
	if isSpoilt(err) && s.cfg.Owner.TakeOver {
		return v, ownerFile{}, nil
	} else if isSpoilt(err) {
		err = fmt.Errorf("%w; %s", err, takeOverHelp)
	}
	return v, f, err
}

// readOwn returns what the folder remembers. A folder that never wrote gets a
// random name.
func (s *site) readOwn() (own ownFile, err error) {
	text, err := durable.ReadFile(s.cfg.State, filepath.Join(s.cfg.Dir, ownerName), maxOwner)
	if errors.Is(err, fs.ErrNotExist) {
		return ownFile{Folder: rand.Text()}, nil
	} else if err != nil {
		return own, err
	}
	body, err := unseal("folder", text)
	if err == nil {
		err = image.DecodeStrict("it", body, &own)
	}
	if err != nil {
		s.cfg.Log("%s: %v; the folder counts as a new one", filepath.Join(s.cfg.Dir, ownerName), err)
		return ownFile{Folder: rand.Text()}, nil
	}
	return own, nil
}

func (s *site) writeOwn(own ownFile) error {
	own.Tried = own.Tried[max(0, len(own.Tried)-maxTried):]
	text, err := envelope("folder", own)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.cfg.State, filepath.Join(s.cfg.Dir, ownerName), text, 0o600)
}

// maxTried limits how many sessions ownFile.Tried has.
const maxTried = 100

// changeTries is how often a change of the owner's blob is tried. An earlier
// change of this process may arrive late and change the version.
const changeTries = 5

// change edits and writes the owner's blob, if this process still is the owner.
// mu is held.
func (l *lease) change(ctx context.Context, edit func(*ownerFile)) error {
	for range changeTries {
		if l.lost != nil {
			return l.lost
		}
		over, err := l.check(ctx)
		if err != nil {
			return err
		}
		next := l.now
		next.Creating, next.Removing = slices.Clone(next.Creating), slices.Clone(next.Removing)
		edit(&next)
		next.Step++
		next.NextPack = max(next.NextPack, l.has.nextPack())
		l.unsure = true
		err = writeOver(ctx, l.site.cfg.Blobs, ownerName, over, "owner", next, maxOwner)
		if err == nil {
			l.now, l.unsure = next, false
			return nil
		} else if !errors.Is(err, blob.ErrChanged) {
			l.now.Step = next.Step
			return err
		}
	}
	return fmt.Errorf("%s: %w", ownerName, blob.ErrChanged)
}

// check returns an error if this process is not the owner any more. Otherwise
// it returns the version of the blob.
func (l *lease) check(ctx context.Context) (blob.Version, error) {
	v, err := l.site.cfg.Blobs.Version(ctx, ownerName)
	if err != nil {
		return v, l.gone(err)
	}
	f, err := readOwner(ctx, l.site.cfg.Blobs)
	if err != nil {
		return v, l.gone(err)
	}
	if f.Session != l.now.Session {
		e := f.asError()
		e.Overtaken = true
		l.lost = e
		return v, e
	}
	l.now.Step = max(l.now.Step, f.Step)
	return v, nil
}

// gone returns the error for an owner's blob that cannot be read. If the blob
// was removed, this process is not the owner any more.
func (l *lease) gone(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.lost = fmt.Errorf("the blob that says who writes to the store was removed; open the store again: %w", ErrNotOwner)
	return l.lost
}

// stillOwner returns an error if this process is not the owner any more.
func (l *lease) stillOwner(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.finish(ctx, false); err != nil {
		return err
	}
	if l.lost != nil {
		return l.lost
	}
	_, err := l.check(ctx)
	return err
}

// create announces that a record will be created, and remove announces that
// blobs will be removed. Afterwards the caller calls done for the names whose
// work has ended, and leave for the others.
func (l *lease) create(ctx context.Context, name string) error {
	return l.announce(ctx, func(f *ownerFile) { f.Creating = added(f.Creating, name) }, name)
}

func (l *lease) remove(ctx context.Context, names ...string) error {
	return l.announce(ctx, func(f *ownerFile) { f.Removing = added(f.Removing, names...) }, names...)
}

func added(list []string, names ...string) []string {
	list = append(list, names...)
	slices.Sort(list)
	return slices.Compact(list)
}

func (l *lease) announce(ctx context.Context, edit func(*ownerFile), names ...string) error {
	if l == nil || len(names) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.finish(ctx, false); err != nil {
		return err
	}
	err := l.change(ctx, edit)
	if err != nil { // the announcement may have been written all the same
		edit(&l.now)
		l.unsure = true
		return err
	}
	for _, n := range names {
		l.busy[n] = true
	}
	return nil
}

// leave says that the caller has given up work that it announced for some
// names, and that it does not know whether the store did the work. The names
// stay announced, and finish settles them later.
func (l *lease) leave(names ...string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		delete(l.busy, n)
	}
}

// doneTime is how long done tries to withdraw announcements.
const doneTime = 10 * time.Second

// done withdraws the announcements of names whose work has ended. If it cannot
// write that, finish settles the names later, which does no harm.
func (l *lease) done(ctx context.Context, names ...string) {
	if l == nil || len(names) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		delete(l.busy, n)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doneTime)
	defer cancel()
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return slices.Contains(names, n) })
	}
	err := l.change(ctx, func(f *ownerFile) { f.Creating, f.Removing = without(f.Creating), without(f.Removing) })
	if err != nil {
		l.site.cfg.Log("%v", err)
	}
}

// settle calls finish for all announced names, also those of packs.
func (l *lease) settle(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.finish(ctx, true)
}

// finish settles announced names that nobody is working on any more. It bars
// the name of a record that was to be created, unless the record exists. It
// removes blobs that were to be removed. Packs are left out unless all is set.
// Their removal can wait, since the process that announced it does not rely on
// these packs. mu is held.
func (l *lease) finish(ctx context.Context, all bool) error {
	left := func(n string) bool { return !l.busy[n] && (all || !strings.HasPrefix(n, packPrefix)) }
	if !slices.ContainsFunc(l.now.Creating, left) && !slices.ContainsFunc(l.now.Removing, left) {
		return nil
	}
	if l.lost != nil {
		return l.lost
	}
	// Announcements that may not have been written are written now. A folder that
	// takes the store over must know of each removal that may still arrive.
	if l.unsure {
		if err := l.change(ctx, func(*ownerFile) {}); err != nil {
			return err
		}
	}
	if _, err := l.check(ctx); err != nil { // else another folder has settled it
		return err
	}
	for _, n := range l.now.Creating {
		if left(n) {
			if err := bar(ctx, l.site.cfg.Blobs, n, blob.None); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	for _, n := range l.now.Removing {
		if !left(n) {
			continue
		}
		if err := l.finishRemoval(ctx, n); err != nil {
			return err
		}
	}
	return l.change(ctx, func(f *ownerFile) {
		f.Creating, f.Removing = slices.DeleteFunc(f.Creating, left), slices.DeleteFunc(f.Removing, left)
	})
}

// finishRemoval removes a blob whose removal was announced. If it is a record,
// its name is barred, so that a late request to remove it cannot hit a new
// record.
func (l *lease) finishRemoval(ctx context.Context, name string) error {
	if strings.HasPrefix(name, packPrefix) { // a pack's number is never used again
		err := l.site.cfg.Blobs.Remove(ctx, name)
		if _, n, ok := parsePackName(name); ok && err == nil {
			l.has.mu.Lock()
			defer l.has.mu.Unlock()
			delete(l.has.packs, n) // it is still there if a collection could not remove it
			l.has.dirty = true
		}
		return err
	}
	return bar(ctx, l.site.cfg.Blobs, name, blob.Any)
}

// barred is written in the place of a record that must not be created any more.
// Readers only check that it is a bar.
type barred struct {
	Why string `json:"why"`
}

const barWhat = "barred"

// bar occupies the name of a record, so that a late request to create the
// record fails.
func bar(ctx context.Context, blobs blob.Store, name string, over blob.Version) error {
	return writeOver(ctx, blobs, name, over, barWhat,
		barred{"a backup of this name was being committed or deleted when its process ended; this keeps the name from being used"}, maxOwner)
}

// isBar reports whether the text of a record is a bar.
func isBar(text []byte) bool {
	_, err := unseal(barWhat, text)
	return err == nil
}
