package bootfiles

import (
	"crypto/rand"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// leftoverAge is the age at which a temporary file is no longer that of a write
// or a removal that goes on.
const leftoverAge = time.Hour

// sweep removes the temporary files of the box that crashes left. These are
// unfinished boot files, and boot files that were being removed. No loader asks
// for them, so an error is no reason to say anything.
//
// Their age is that of their content by the clock of the machine that has the
// folder. A boot file that is being removed may be old, but Disarm gives it its
// name again only if it was written a moment ago.
func (f *Folder) sweep(addr box.Addr) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return
	}
	now := time.Time{}
	for _, name := range names {
		if !strings.HasPrefix(name, addr.Hex()+".") || !durable.IsTemp(name) {
			continue
		}
		written, err := f.written(f.Path(name))
		if err != nil {
			continue
		}
		if now.IsZero() {
			if now, err = f.clock(addr); err != nil {
				return
			}
		}
		if now.Sub(written) > leftoverAge {
			f.fsys.Remove(f.Path(name))
		}
	}
}

// clock reads the time of the machine that has the folder, by a file that it
// makes there.
func (f *Folder) clock(addr box.Addr) (time.Time, error) {
	path := f.BootFile(addr) + "." + rand.Text() + ".tmp"
	w, err := f.fsys.Create(path, 0o644)
	if err != nil {
		return time.Time{}, err
	}
	defer f.fsys.Remove(path)
	if err := w.Close(); err != nil {
		return time.Time{}, err
	}
	return f.written(path)
}
