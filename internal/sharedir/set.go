package sharedir

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// Set is a backup being written. It has all images of one action. Commit makes
// them the box's images together, or none of them.
type Set struct {
	folder *Folder
	arming box.Arming
	token  []byte // the text that this set wrote into the writer file
	images []*ImageFile
	done   bool
}

// ErrImages means that Commit was called with None, but the box has images.
// Nothing was changed.
var ErrImages = errors.New("the box has images already")

// ErrSecondAgent means that another agent has begun a backup in the same folder.
// Nothing was changed.
var ErrSecondAgent = errors.New("another machine is at work with the address of this box")

// Begin starts a backup. It calls Recover first, which removes what earlier
// ones left.
//
// There may be two agents in one folder, if a machine was given this box's
// address by mistake. The one that began last wins, and the other one's Commit
// fails. Each writes its own token into a file, and Commit checks that it is
// still there. A lock would need somebody to break it after each power cut.
func (f *Folder) Begin(arming box.Arming) (*Set, error) {
	if _, err := box.ParseArming(string(arming)); err != nil {
		return nil, err
	}
	if err := f.Recover(); err != nil {
		return nil, err
	}
	s := &Set{folder: f, arming: arming, token: []byte(string(arming) + " " + rand.Text() + "\n")}
	if err := f.WriteFile(writerName, s.token); err != nil {
		return nil, f.explain("begin a backup", err)
	}
	return s, nil
}

// ImageFile is an image being written.
type ImageFile struct {
	set      *Set
	name     string
	file     durable.File
	size     int64
	sidecar  int64 // bytes; 0 until the image is finished
	unsynced int64 // bytes written since the last sync
	finished bool
	failed   error
}

// Create starts the image called name. The file gets the name of an image only
// in Commit.
func (s *Set) Create(name string) (*ImageFile, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%q cannot be the name of an image", name)
	}
	if s.done {
		return nil, errors.New("image created in a backup that has ended")
	}
	if s.find(name) != nil {
		return nil, fmt.Errorf("image %s created twice in one backup", name)
	}
	file, err := s.folder.fsys.Create(s.path(name+rawgzExt), fileMode)
	if err != nil {
		return nil, s.folder.explain("create image "+name, err)
	}
	w := &ImageFile{set: s, name: name, file: file}
	s.images = append(s.images, w)
	return w, nil
}

// Write implements io.Writer. After an error the image cannot be finished any
// more.
func (w *ImageFile) Write(p []byte) (int, error) {
	if w.failed != nil {
		return 0, w.failed
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	if w.unsynced += int64(n); err == nil && w.unsynced >= syncEvery {
		w.unsynced = 0
		err = w.file.Sync()
	}
	if err != nil {
		w.failed = w.set.folder.explain("write image "+w.name, err)
	}
	return n, w.failed
}

// syncEvery is how many bytes of an image are written between two syncs. If
// only the complete image were synced, and the memory of the box or the server
// held most of it, the sync could take longer than a box may show no progress.
const syncEvery = 64 << 20

// Finish makes an image and its facts durable under their temporary names. The
// facts must be those of the bytes that were written.
func (s *Set) Finish(name string, facts *image.Facts) error {
	w := s.find(name)
	if w == nil || w.finished || s.done {
		return fmt.Errorf("image %s finished, but it is not being written", name)
	}
	if w.failed != nil {
		return w.failed
	}
	text, err := w.sidecarText(facts)
	if err != nil {
		return err
	}
	w.finished = true
	syncErr := w.file.Sync()
	if err := errors.Join(syncErr, w.file.Close()); err != nil {
		return s.folder.explain("make image "+name+" durable", err)
	}
	if err := durable.WriteFile(s.folder.fsys, s.path(name+sidecarExt), text, fileMode); err != nil {
		return s.folder.explain("write the facts of image "+name, err)
	}
	w.sidecar = int64(len(text))
	return nil
}

// sidecarText returns the sidecar's text, after it checked the facts against
// what was written.
func (w *ImageFile) sidecarText(facts *image.Facts) ([]byte, error) {
	text := facts.Marshal()
	if _, err := image.ParseFacts(text); err != nil {
		return nil, fmt.Errorf("facts of image %s: %w", w.name, err)
	}
	if facts.Name != w.name || facts.Arming != w.set.arming || facts.FileSize != w.size {
		return nil, fmt.Errorf("facts of image %s (arming %s, %d bytes written) are those of %s (arming %s, %d bytes)",
			w.name, w.set.arming, w.size, facts.Name, facts.Arming, facts.FileSize)
	}
	return text, nil
}

// Before says what a Commit does with the images that are there.
type Before int

const (
	None    Before = iota // there must be none
	Retire                // all of them become the .old images, also those without a successor, and replace older .old images
	Replace               // each must have a successor, which replaces it, and the .old images stay
)

// Commit makes the finished images the box's images.
//
// If it returns nil, they are in place and durable. After an error that matches
// ErrCommitted they are the box's backup, and Recover will put them in place.
// After an error that matches durable.ErrUnsure, the next Recover finds out
// whether they are. After any other error nothing has changed.
func (s *Set) Commit(before Before) error {
	plan, err := s.plan(before)
	if err != nil {
		return err
	}
	// The new files and their names are durable. Finish synced each file, and then
	// the folder.
	f := s.folder
	if err := s.stillOurs(); err != nil {
		return err
	}
	if err := f.WriteFile(planName, plan.marshal()); err != nil {
		s.done = errors.Is(err, durable.ErrUnsure) // the backup may be committed, so Abort must not remove the images
		return f.explain("commit the backup", err)
	}
	s.done = true
	if err := f.carryOut(plan); err != nil {
		return fmt.Errorf("%w: %w", ErrCommitted, err)
	}
	f.fsys.Remove(f.Path(writerName))
	return nil
}

// ErrCommitted means that Commit failed after the commit point.
var ErrCommitted = errors.New("the backup is committed, but could not be put in place yet")

// stillOurs checks that no other agent began a backup after this one.
func (s *Set) stillOurs() error {
	token, err := durable.ReadFile(s.folder.fsys, s.folder.Path(writerName), 4096)
	if err == nil && bytes.Equal(token, s.token) {
		return nil
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w %s: look for a second machine with it", ErrSecondAgent, s.folder.addr)
	}
	return err
}

// Abort gives up the backup and removes its files. After Commit it does
// nothing, so it can be deferred. The next Recover removes what Abort could
// not.
func (s *Set) Abort() {
	if s.done {
		return
	}
	s.done = true
	for _, w := range s.images {
		if !w.finished {
			w.file.Close()
		}
	}
	// If a second agent began, it may be using these names.
	if s.stillOurs() != nil {
		return
	}
	for _, w := range s.images {
		s.folder.fsys.Remove(s.path(w.name + rawgzExt))
		s.folder.fsys.Remove(s.path(w.name + sidecarExt))
	}
	s.folder.fsys.Remove(s.folder.Path(writerName))
}

func (s *Set) path(file string) string { return s.folder.Path(newFile(file, s.arming)) }

func (s *Set) find(name string) *ImageFile {
	for _, w := range s.images {
		if w.name == name {
			return w
		}
	}
	return nil
}

// explain says what could not be done for the box. For a full server it also
// says what to do.
func (f *Folder) explain(what string, err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if !full {
		return fmt.Errorf("cannot %s of box %s: %w", what, f.addr, err)
	}
	room := ""
	if free, known := f.Free(); known {
		room = fmt.Sprintf(" (free space in %s: %d MiB)", f.dir, free>>20)
	}
	return fmt.Errorf("the storage server is full: cannot %s of box %s: %w%s; remove images that are not needed any more, such as .old ones",
		what, f.addr, err, room)
}
