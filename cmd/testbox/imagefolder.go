package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/form"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

// folderImport brings folders of share mode into a store.
type folderImport struct {
	p             printer
	o             createOptions
	s             saver
	known         map[string][]*image.Record // backups of each box that was looked for
	damages       store.Damages              // damage of these
	older         time.Time                  // time of the .old images in the current folder
	done, skipped int                        // backups
	bad           bool                       // one of the backups has unreadable sectors
	failed        []error
}

// importFolders imports a box's folder, or all folders of a backup area.
func importFolders(ctx context.Context, p printer, dir string, o createOptions) (err error) {
	dirs, err := boxFolders(p, dir)
	if err != nil {
		return err
	}
	s, err := o.openSaver(ctx, p)
	if err != nil {
		return err
	}
	defer closing(ctx, p, s, &err)
	f := &folderImport{p: p, o: o, s: s, known: map[string][]*image.Record{}}
	for _, d := range dirs {
		// The older backup comes first. Of two without a sidecar it must not be the
		// latest.
		f.older = time.Time{}
		f.try(ctx, d, sharedir.ReadOldImages)
		f.try(ctx, d, sharedir.ReadImages)
	}
	if err := ctx.Err(); err != nil {
		f.failed = append(f.failed, fmt.Errorf("%w; run it again to go on", err))
	}
	return f.end(dir)
}

// end prints what was done, and returns the error of the import.
func (f *folderImport) end(dir string) error {
	all := f.done + f.skipped + len(f.failed)
	switch {
	case all == 0:
		return wrong("%s has no images: files such as sda.raw.gz", dir)
	case all > 1:
		f.p.printf("%s imported, %d %s there already, %d failed\n",
			words.Count(f.done, "backup"), f.skipped, words.Verb(f.skipped, "was", "were"), len(f.failed))
	}
	err := errors.Join(f.failed...)
	switch {
	case err != nil && f.done > 0: // the error's exit code may mean that nothing was changed, which is not true then
		return errors.New(err.Error())
	case err == nil && f.bad:
		return errBadSectors
	}
	return err
}

// boxFolders returns the folders of boxes that the argument stands for. It is
// either one itself, or a backup area that has them.
func boxFolders(p printer, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, wrong("%w", err)
	}
	isArea := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == sharedir.Marker })
	if !isArea && hasImages(dir) {
		return []string{dir}, nil
	}
	var dirs []string
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		if !e.IsDir() || !hasImages(sub) {
			continue
		}
		if !isAddress(e.Name()) {
			p.warnf("%s is passed over: it has images, but is not named by the address of a box; import it by itself", sub)
			continue
		}
		dirs = append(dirs, sub)
	}
	if len(dirs) == 0 {
		return nil, wrong("%s has no images: neither files such as sda.raw.gz, nor folders of boxes with some", dir)
	}
	return dirs, nil
}

func isAddress(name string) bool {
	a, err := box.ParseAddr(name)
	return err == nil && a.String() == name
}

// hasImages reports whether a folder has images. Damaged ones count too.
func hasImages(dir string) bool {
	for _, read := range []readImages{sharedir.ReadImages, sharedir.ReadOldImages} {
		if entries, err := read(durable.OS{}, dir); err != nil || len(entries) > 0 {
			return true
		}
	}
	return false
}

// readImages lists the images of one backup in a folder.
type readImages func(durable.FS, string) ([]sharedir.Entry, error)

// try imports a backup of a folder, if there is one.
func (f *folderImport) try(ctx context.Context, dir string, read readImages) {
	entries, err := read(durable.OS{}, dir)
	if errors.Is(err, sharedir.ErrUnfinished) {
		err = fmt.Errorf("%w; the next start of the box's maintenance system does that, import it then", err)
	}
	if err != nil {
		f.failed = append(f.failed, wrong("%w", err))
		return
	}
	if len(entries) == 0 || ctx.Err() != nil {
		return
	}
	switch err := f.backup(ctx, dir, entries); {
	case errors.Is(err, errBadSectors):
		f.bad = true
	case err != nil:
		f.failed = append(f.failed, err)
	}
}

// backup imports one backup.
func (f *folderImport) backup(ctx context.Context, dir string, entries []sharedir.Entry) error {
	r, err := f.record(dir, entries)
	if err != nil {
		return err
	}
	f.older = r.Time
	if err := f.look(ctx, r.Box); err != nil {
		return err
	}
	if r.Arming != "" {
		if known := f.find(r.Box, func(k *image.Record) bool { return k.Arming == r.Arming && sameNames(k, entries) }); known != nil {
			f.skip(dir, known)
			return nil
		}
	}
	disks, err := f.open(ctx, entries)
	defer closeDisks(disks)
	if err != nil {
		return err
	}
	var twin *image.Record
	o := f.o
	o.unless = func(r *image.Record) bool {
		if r.Arming == "" {
			twin = f.find(r.Box, func(k *image.Record) bool { return k.Arming == "" && sameRoots(k, r) })
		}
		return twin != nil
	}
	err = saveDisks(ctx, f.p, f.s, r, disks, o)
	switch {
	case twin != nil:
		f.skip(dir, twin)
		return nil
	case err == nil || errors.Is(err, errBadSectors):
		f.done++
		f.known[r.Box] = append(f.known[r.Box], r)
	}
	return err
}

// look finds out which backups of a box are in the store.
func (f *folderImport) look(ctx context.Context, box string) error {
	if _, looked := f.known[box]; looked {
		return nil
	}
	records, damaged, err := f.s.RecordsOf(ctx, box)
	if err != nil {
		return err
	}
	for _, d := range damaged {
		f.p.warnf("%v; if it is one of those that are imported, it is imported again", d)
	}
	f.known[box], f.damages = records, damagesOf(ctx, f.p, f.s)
	return nil
}

func (f *folderImport) skip(dir string, known *image.Record) {
	f.skipped++
	f.p.printf("%s: backup %s of %s was there already\n", dir, known.ID, known.Box)
}

// find finds a backup that is in the store already. A damaged one does not
// count, because importing it again repairs it.
func (f *folderImport) find(box string, is func(*image.Record) bool) (found *image.Record) {
	for _, k := range f.known[box] {
		if !is(k) {
			continue
		}
		if len(f.damages.Of(k)) == 0 {
			return k
		}
		found = k
	}
	if found != nil {
		f.p.tellf("backup %s of %s is damaged in the store, and is imported again", found.ID, found.Box)
	}
	return nil
}

func sameNames(r *image.Record, entries []sharedir.Entry) bool {
	return len(r.Disks) == len(entries) && !slices.ContainsFunc(entries, func(e sharedir.Entry) bool { return r.Disk(e.Name) == nil })
}

func sameRoots(a, b *image.Record) bool {
	return len(a.Disks) == len(b.Disks) && !slices.ContainsFunc(a.Disks, func(x image.RecordedDisk) bool {
		return !slices.ContainsFunc(b.Disks, func(y image.RecordedDisk) bool { return x.Name == y.Name && x.Root == y.Root })
	})
}

// record makes the record from what the sidecars and the folder say about the
// backup.
func (f *folderImport) record(dir string, entries []sharedir.Entry) (*image.Record, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &image.Record{Format: image.RecordFormat, Box: filepath.Base(full), Note: f.o.note, Pinned: f.o.pin}
	var facts *image.Facts
	for i, e := range entries {
		switch {
		case e.Facts == nil && image.NamesPartition(e.Name):
			return nil, wrong("%s has the name of a partition, and is no image of a disk; move it out of the folder, or, if it holds a whole disk, "+
				"give it the disk's name, such as sda.raw.gz", e.Path)
		case i > 0 && armingOf(e.Facts) != armingOf(facts):
			return nil, refused("the images in %s are not of one backup: %s has %s, %s has %s; move those that do not belong together out of it",
				dir, entries[i-1].Name, armingOf(facts), e.Name, armingOf(e.Facts))
		}
		facts = e.Facts
	}
	if facts == nil {
		return r, f.handmade(r, entries)
	}
	r.Host, r.UUID, r.Arming, r.Time, r.Firmware = facts.Host, facts.UUID, facts.Arming, facts.Time, facts.Firmware
	switch {
	case facts.Box == r.Box:
	case isAddress(r.Box):
		f.p.warnf("the images in %s were made of box %s (%s); they become a backup of %s, whose folder it is",
			dir, facts.Box, printable(facts.Host), r.Box)
	default:
		return nil, refused("the images in %s are of box %s; give the folder that name, or the address of the box that is to have them",
			dir, facts.Box)
	}
	return r, checkWords(r.Box, r.Note)
}

// armingOf says which arming an image was made for.
func armingOf(f *image.Facts) string {
	if f == nil {
		return "no sidecar"
	}
	return "the arming " + string(f.Arming)
}

// handmade fills the record for images without a sidecar. The time is that of
// their files.
func (f *folderImport) handmade(r *image.Record, entries []sharedir.Entry) error {
	for _, e := range entries {
		f.p.warnf("%s has no sidecar; nothing says whether it is whole", e.Path)
		st, err := os.Stat(e.Path)
		if err != nil {
			return err
		}
		if made := st.ModTime(); made.After(r.Time) {
			r.Time = made
		}
	}
	if now := time.Now(); r.Time.After(now) {
		r.Time = now
	}
	if !r.Time.After(f.older) { // copying the folder can have changed the order of the files' times
		r.Time = f.older.Add(time.Second)
	}
	return checkWords(r.Box, r.Note)
}

// notGzip is the error of an image whose form does not fit its name.
func notGzip(path string, is *form.Form) error {
	if is == nil {
		return wrong("%s is not a gzip file; it may be damaged", path)
	}
	return wrong("%s is not a gzip file, but %s", path, is)
}

// open opens all images as disks.
func (f *folderImport) open(ctx context.Context, entries []sharedir.Entry) (out []namedDisk, err error) {
	for _, e := range entries {
		if is, err := formOf(e.Path); err != nil {
			return out, err
		} else if is == nil || is.Kind != form.Gzip {
			return out, notGzip(e.Path, is)
		}
		d, err := importFile(ctx, f.p, e.Path, f.o, e.Facts)
		if err != nil {
			return out, err
		}
		n := namedDisk{name: e.Name, localDisk: d}
		if e.Facts != nil {
			d.identity, d.kernel, n.bad = e.Facts.Disk, e.Facts.Kernel, e.Facts.Bad
		}
		out = append(out, n)
	}
	return out, nil
}
