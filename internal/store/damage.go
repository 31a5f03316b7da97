package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// damageName is the blob with what images were found to lack. It tells this
// without reading trees.
const damageName = "damage"

const (
	maxDamage       = 64 << 20 // bytes of the blob
	maxDamagePlaces = 20       // kept for each image
)

// Damage is what an image in the store was found to lack, that is, the parts of
// its disk that cannot be read.
type Damage struct {
	Root   object.Name   `json:"root"`   // of the image; equal disks have the same root
	Bytes  int64         `json:"bytes"`  // of the disk that cannot be read
	Places []image.Range `json:"places"` // the first of them on the disk, in order
	Found  time.Time     `json:"found"`  // when this was found last
}

// Damages has the damage of each damaged image, by root.
type Damages map[object.Name]Damage

// damageFile is the content of the blob damageName. Its Objects were found
// damaged by processes that may not write to the store. They count as missing
// from the next Open on.
type damageFile struct {
	Images  []Damage    `json:"images"`
	Objects []badObject `json:"objects"`
}

// Whole reports whether an image has all that its disk had, as far as is known.
// This means that the disk was read without bad sectors, and that no part of the
// image is damaged in the store.
func (d Damages) Whole(disk *image.RecordedDisk) bool {
	_, damaged := d[disk.Root]
	return !damaged && len(disk.Bad) == 0
}

// Of returns what the images of a backup lack, by the names of its disks.
func (d Damages) Of(r *image.Record) map[string]Damage {
	out := map[string]Damage{}
	for i := range r.Disks {
		if one, damaged := d[r.Disks[i].Root]; damaged {
			out[r.Disks[i].Name] = one
		}
	}
	return out
}

// Damages reads what images were found to lack by the last scrub, and by
// processes that verified images since.
func (l *damageList) Damages(ctx context.Context) (Damages, error) {
	f, err := l.readDamage(ctx)
	if err != nil {
		return nil, err
	}
	out := Damages{}
	for _, d := range f.Images {
		out[d.Root] = d
	}
	return out, nil
}

// damageList is the list of damaged images. All processes that use the store
// share it.
type damageList struct {
	*site

	listMu sync.Mutex                // guards the fields below
	noted  map[object.Name]time.Time // images that were on the list at Open, or were added by this process -> when they were found
	found  []badObject               // objects found damaged while the store is open for reading only
	met    bool                      // something was found damaged or gone since the list was written
	told   bool                      // the list was written, and nothing was found since
}

// saw notes that this process found something damaged. objects names the
// damaged objects, and is empty if they are not known, as after the loss of a
// pack. If the store is open for reading only, NoteFound writes them into the
// list later.
func (l *damageList) saw(objects ...badObject) {
	l.listMu.Lock()
	defer l.listMu.Unlock()
	l.found = append(l.found, objects...)
	l.met, l.told = true, false
}

// idle reports whether NoteFound has nothing to write. A store that may be
// written to keeps its own list (badList). In a store that is open for reading
// only, there is nothing to write if the list has all that was found, or if
// nothing was found and nothing is lost.
func (l *damageList) idle(lost bool) bool {
	l.listMu.Lock()
	defer l.listMu.Unlock()
	return !l.cfg.ReadOnly || l.told || !lost && !l.met
}

// readDamage reads the blob. A spoilt blob counts as an empty one, since a
// scrub writes it anew.
func (l *damageList) readDamage(ctx context.Context) (f damageFile, err error) {
	body, err := readEnvelope(ctx, l.cfg.Blobs, damageName, damageName, maxDamage)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err == nil:
		err = image.DecodeStrict("it", body, &f)
	case !isSpoilt(err):
		return f, err
	}
	if err != nil {
		l.cfg.Log("the list of damaged images: %v; run `testbox store scrub`", err)
		return damageFile{}, nil
	}
	return f, nil
}

// load reads the list, and returns the objects that other processes found
// damaged. It is called before the store is shared.
func (l *damageList) load(ctx context.Context) ([]badObject, error) {
	f, err := l.readDamage(ctx)
	for _, d := range f.Images {
		l.noted[d.Root] = d.Found
	}
	return f.Objects, err
}

// changeDamage rewrites the list. The caller needs only the right to write a
// small file, since verifying images is allowed without the right to write to
// the store.
func (l *damageList) changeDamage(ctx context.Context, edit func(Damages, *[]badObject)) error {
	done, err := l.cfg.Notes()
	if err != nil {
		return err
	}
	defer done()
	for try := 0; ; try++ {
		err := l.rewriteDamage(ctx, edit)
		switch {
		case try == 3:
			return err
		case errors.Is(err, fs.ErrNotExist): // a process that opened the store for writing has removed our temporary file
		case errors.Is(err, fs.ErrExist), errors.Is(err, blob.ErrChanged): // another process wrote the list
		default:
			return err
		}
	}
}

func (l *damageList) rewriteDamage(ctx context.Context, edit func(Damages, *[]badObject)) error {
	over, err := l.version(ctx, damageName) // before the list is read, as in changeLocked
	if err != nil {
		return err
	}
	f, err := l.readDamage(ctx)
	if err != nil {
		return err
	}
	images := Damages{}
	for _, d := range f.Images {
		images[d.Root] = d
	}
	had := len(f.Images) + len(f.Objects)
	edit(images, &f.Objects)
	switch empty := len(images) == 0 && len(f.Objects) == 0; {
	case empty && had == 0:
		return nil
	case empty && l.cfg.Owner == nil: // with an Owner, a late request to remove it could hit a newer list
		return l.cfg.Blobs.Remove(ctx, damageName)
	}
	f.Images = slices.SortedFunc(maps.Values(images), func(a, b Damage) int { return bytes.Compare(a.Root[:], b.Root[:]) })
	if f.Objects == nil {
		f.Objects = []badObject{}
	}
	return writeOver(ctx, l.cfg.Blobs, damageName, over, damageName, f, maxDamage)
}

// healedBy removes the images of a new backup from the list, if they were on it
// when this store was opened. The commit has found all objects of these images,
// not counting those known to be damaged. Damage that others noted later stays,
// since it is not known here.
func (l *damageList) healedBy(ctx context.Context, r *image.Record) {
	noted := map[object.Name]time.Time{}
	l.listMu.Lock()
	for _, d := range r.Disks {
		if at, is := l.noted[d.Root]; is {
			noted[d.Root] = at
		}
	}
	l.listMu.Unlock()
	if len(noted) == 0 {
		return
	}
	err := l.changeDamage(ctx, func(images Damages, _ *[]badObject) {
		for root, at := range noted {
			if images[root].Found.Equal(at) {
				delete(images, root)
			}
		}
	})
	if err != nil {
		l.cfg.Log("the list of damaged images could not be written: %v", err)
	}
}

// Verify reads all of the image of a backup's disk. It returns nil if the image
// can be restored in full, and otherwise the damage. After an error nothing is
// known about the image.
func (u *Upkeep) Verify(ctx context.Context, r *image.Record, disk string, workers int, told func(done int64)) (*Damage, error) {
	im, err := openImage(ctx, u.objects, u.catalogue, r, disk)
	if err == nil {
		defer im.Close()
		err = im.Check(ctx, workers, told)
	}
	d := r.Disk(disk)
	if err == nil || !IsLost(err) {
		return nil, err
	}
	if u.objects.cfg.ReadOnly { // a backup may have stored it again since
		if err := u.objects.lookAgain(ctx, false); err != nil {
			return nil, err
		}
	}
	found := &Damage{Root: d.Root}
	err = u.objects.lacks(ctx, d, map[object.Name]bool{}, u.objects.unreadable, func(_ object.Key, at image.Range, _ error) { found.add(at) })
	if err == nil && found.Bytes == 0 {
		err = errors.New("an object could not be read at first, and could then; " +
			"look at the disk or the network that the store is on, and verify again")
	}
	return found, err
}

// unreadable reads the chunks of a page that are in the index, and returns what is
// wrong with each chunk of the page.
func (s *objects) unreadable(ctx context.Context, page *chunk.Page) ([]error, error) {
	lacks := s.lacking(page)
	for i, ref := range page.Chunks {
		if lacks[i] != nil {
			continue
		}
		_, err := s.raw(ctx, object.Key{Kind: object.Chunk, Name: ref.Name})
		if err != nil && !IsLost(err) {
			return nil, err
		}
		lacks[i] = err
	}
	return lacks, nil
}

// Lacking reads the trees of all images and returns what each lacks, by the
// index. Images of backups that are deleted meanwhile are left out, since they
// may have been collected.
func (u *Upkeep) Lacking(ctx context.Context) (Damages, error) {
	records, _, err := u.catalogue.Records(ctx)
	if err != nil {
		return nil, err
	}
	out, seen := Damages{}, map[object.Name]bool{}
	whole := map[object.Name]bool{}
	for _, r := range records {
		for i := range r.Disks {
			d := &r.Disks[i]
			if seen[d.Root] {
				continue
			}
			seen[d.Root] = true
			found := Damage{Root: d.Root}
			if err := u.objects.lacks(ctx, d, whole, u.objects.indexed, func(_ object.Key, at image.Range, _ error) { found.add(at) }); err != nil {
				return nil, fmt.Errorf("%s: %w", imageName(r, *d), err)
			}
			if found.Bytes > 0 {
				out[d.Root] = found
			}
		}
	}
	if len(out) == 0 {
		return out, nil
	}
	if records, _, err = u.catalogue.Records(ctx); err != nil {
		return nil, err
	}
	still := Damages{}
	for _, r := range records {
		for _, d := range r.Disks {
			if found, lacks := out[d.Root]; lacks {
				still[d.Root] = found
			}
		}
	}
	return still, nil
}

// NoteFound adds damage to the list that was found by reading images for other
// reasons than to verify them. lost says that something could not be read. If
// lost is false, NoteFound writes only if something was found damaged. After
// NoteVerified, it has nothing to do until more damage is found.
func (u *Upkeep) NoteFound(ctx context.Context, lost bool) error {
	if u.objects.damage.idle(lost) {
		return nil
	}
	damaged, err := u.Lacking(ctx)
	if err != nil {
		return err
	}
	return u.objects.damage.NoteVerified(ctx, nil, damaged)
}

// NoteVerified updates the list after images were verified. whole are the
// images that have everything, damaged are the others. What other processes
// noted since this store was opened stays, since the image may have been read
// before it was damaged.
func (l *damageList) NoteVerified(ctx context.Context, whole []object.Name, damaged Damages) error {
	if len(damaged) == 0 { // in the usual case there is nothing to write, and the folder may be read-only
		noted, err := l.Damages(ctx)
		isNoted := func(root object.Name) bool { _, is := noted[root]; return is }
		if err != nil || !slices.ContainsFunc(whole, isNoted) {
			return err
		}
	}
	l.listMu.Lock()
	l.met, l.told = false, true
	l.listMu.Unlock()
	now := time.Now().UTC().Truncate(time.Second)
	return l.changeDamage(ctx, func(images Damages, objects *[]badObject) {
		l.listMu.Lock()
		defer l.listMu.Unlock()
		for _, root := range whole {
			if images[root].Found.Equal(l.noted[root]) {
				delete(images, root)
			}
		}
		for root, d := range damaged {
			d.Found = now
			images[root] = d
			l.noted[root] = now
		}
		for _, b := range l.found {
			if !slices.Contains(*objects, b) {
				*objects = append(*objects, b)
			}
		}
	})
}

// noteScrubbed replaces what was on the list before a scrub began by what the
// scrub found. What was noted since stays, since the scrub may have read that
// place before it was damaged. Damaged objects that the scrub found are on
// another list (badList).
func (l *damageList) noteScrubbed(ctx context.Context, damaged Damages, before damageFile) error {
	now := time.Now().UTC().Truncate(time.Second)
	return l.changeDamage(ctx, func(images Damages, objects *[]badObject) {
		for _, d := range before.Images {
			if images[d.Root].Found.Equal(d.Found) {
				delete(images, d.Root)
			}
		}
		*objects = slices.DeleteFunc(*objects, func(b badObject) bool { return slices.Contains(before.Objects, b) })
		for root, d := range damaged {
			d.Found = now
			images[root] = d
		}
	})
}

func (d *Damage) add(at image.Range) {
	d.Bytes += at.Len
	if n := len(d.Places); n > 0 && d.Places[n-1].End() == at.Off {
		d.Places[n-1].Len += at.Len
	} else if n < maxDamagePlaces {
		d.Places = append(d.Places, at)
	}
}

// String describes the damage for people.
func (d Damage) String() string {
	s := fmt.Sprintf("%d bytes cannot be read in the store any more, at", d.Bytes)
	for i, p := range d.Places {
		if i == 5 {
			return s + " and other places"
		}
		s += fmt.Sprintf(" %d+%d", p.Off, p.Len)
	}
	return s
}
