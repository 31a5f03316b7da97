package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// damageName is the blob with what images were found to lack. It says so at
// each look at the store, without reading trees.
const damageName = "damage"

const (
	maxDamage       = 64 << 20 // bytes of the blob
	maxDamagePlaces = 20       // that are kept of an image
)

// Damage is what an image in the store was found to lack.
type Damage struct {
	Root   string        `json:"root"`   // of the image; equal disks have one
	Bytes  int64         `json:"bytes"`  // of the disk
	Places []image.Range `json:"places"` // on the disk, in order, the first of them
	Found  time.Time     `json:"found"`  // when it was looked at last
}

// Damages are those of images, by root.
type Damages map[string]Damage

// damageFile is the blob. What a process that may not write to the store found
// damaged stands here too, and counts as missing from the next Open on.
type damageFile struct {
	Images  []Damage    `json:"images"`
	Objects []badObject `json:"objects"`
}

// Whole reports whether an image has all that its disk had, as far as is known:
// it was read without bad sectors, and nothing of it is damaged in the store.
func (d Damages) Whole(disk *image.RecordedDisk) bool {
	_, damaged := d[disk.Root]
	return !damaged && len(disk.Bad) == 0
}

// Of gives what the images of a backup lack, by the names of its disks.
func (d Damages) Of(r *image.Record) map[string]Damage {
	out := map[string]Damage{}
	for i := range r.Disks {
		if one, damaged := d[r.Disks[i].Root]; damaged {
			out[r.Disks[i].Name] = one
		}
	}
	return out
}

// Damages reads what images were found to lack by the last scrub, and by those
// who verified images since.
func (s *Store) Damages(ctx context.Context) (Damages, error) {
	f, err := s.readDamage(ctx)
	if err != nil {
		return nil, err
	}
	out := Damages{}
	for _, d := range f.Images {
		out[d.Root] = d
	}
	return out, nil
}

// readDamage reads the blob. One that is spoilt is as good as none: a scrub
// writes it anew.
func (s *Store) readDamage(ctx context.Context) (f damageFile, err error) {
	body, err := readEnvelope(ctx, s.cfg.Blobs, damageName, damageName, maxDamage)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err == nil:
		err = unmarshalStrict(body, &f)
	case !isSpoilt(err):
		return f, err
	}
	if err != nil {
		s.cfg.Log("the list of damaged images: %v; run `testbox store scrub`", err)
		return damageFile{}, nil
	}
	return f, nil
}

// loadDamage takes what others found damaged for missing, as loadBad does.
func (s *Store) loadDamage(ctx context.Context) error {
	f, err := s.readDamage(ctx)
	if err != nil {
		return err
	}
	s.takeBad(f.Objects)
	s.noted = map[string]time.Time{}
	for _, d := range f.Images {
		s.noted[d.Root] = d.Found
	}
	return nil
}

// changeDamage rewrites the list. It needs no more than the right to write a
// small file: the one who verifies an image is not the one who writes to the
// store.
func (s *Store) changeDamage(ctx context.Context, edit func(Damages, *[]badObject)) error {
	done, err := s.cfg.Notes()
	if err != nil {
		return err
	}
	defer done()
	for try := 0; ; try++ {
		err := s.rewriteDamage(ctx, edit)
		switch {
		case try == 3:
			return err
		case errors.Is(err, fs.ErrNotExist): // who opens the store to write clears temporary files away
		case errors.Is(err, fs.ErrExist), errors.Is(err, blob.ErrChanged): // another process wrote the list
		default:
			return err
		}
	}
}

func (s *Store) rewriteDamage(ctx context.Context, edit func(Damages, *[]badObject)) error {
	over, err := s.version(ctx, damageName) // before it is read
	if err != nil {
		return err
	}
	f, err := s.readDamage(ctx)
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
	case empty && s.cfg.Owner == nil: // else a request that comes late could remove another list
		return s.cfg.Blobs.Remove(ctx, damageName)
	}
	f.Images = slices.SortedFunc(maps.Values(images), func(a, b Damage) int { return cmp.Compare(a.Root, b.Root) })
	if f.Objects == nil {
		f.Objects = []badObject{}
	}
	return writeOver(ctx, s.cfg.Blobs, damageName, over, damageName, f, maxDamage)
}

// healedBy takes the images of a backup off the list that were on it when this
// store was opened: a commit has found all of them there, without what was
// known to be damaged. What was found since is not known here.
func (s *Store) healedBy(ctx context.Context, r *image.Record) {
	noted := map[string]time.Time{}
	s.mu.Lock()
	for _, d := range r.Disks {
		if at, is := s.noted[d.Root]; is {
			noted[d.Root] = at
		}
	}
	s.mu.Unlock()
	if len(noted) == 0 {
		return
	}
	err := s.changeDamage(ctx, func(images Damages, _ *[]badObject) {
		for root, at := range noted {
			if images[root].Found.Equal(at) {
				delete(images, root)
			}
		}
	})
	if err != nil {
		s.cfg.Log("the list of damaged images could not be written: %v", err)
	}
}

// Verify reads all of the image of a backup's disk. nil says that it can be
// restored whole; else it says what cannot. Any other error says that nothing is
// known of it.
func (s *Store) Verify(ctx context.Context, r *image.Record, disk string, workers int, told func(done int64)) (*Damage, error) {
	im, err := s.OpenImage(ctx, r, disk)
	if err == nil {
		defer im.Close()
		err = im.Check(ctx, workers, told)
	}
	d := r.Disk(disk)
	if err == nil || !isLost(err) {
		return nil, err
	}
	if s.cfg.ReadOnly { // a backup may have brought it again since
		if err := s.lookAgain(ctx, false); err != nil {
			return nil, err
		}
	}
	found := &Damage{Root: d.Root}
	err = s.lacks(ctx, d, map[object.Name]bool{}, s.unreadable, func(_ object.Key, at image.Range, _ error) { found.add(at) })
	if err == nil && found.Bytes == 0 {
		err = errors.New("an object could not be read at first, and could then; look at the disk or the network that the store is on, and verify again")
	}
	return found, err
}

// unreadable reads the chunks of a page that are there, and says which are
// whole.
func (s *Store) unreadable(ctx context.Context, page *chunk.Page) ([]bool, error) {
	there := s.there(page)
	for i, ref := range page.Chunks {
		if !there[i] {
			continue
		}
		_, err := s.raw(ctx, object.Key{Kind: object.Chunk, Name: ref.Name})
		if err != nil && !isLost(err) {
			return nil, err
		}
		there[i] = err == nil
	}
	return there, nil
}

// Lacking reads the trees of all images and says what each lacks of what is
// known to be there. Images of backups that are deleted meanwhile may be
// collected while it reads them, and lack nothing.
func (s *Store) Lacking(ctx context.Context) (Damages, error) {
	records, _, err := s.Records(ctx)
	if err != nil {
		return nil, err
	}
	out, seen := Damages{}, map[string]bool{}
	whole := map[object.Name]bool{}
	for _, r := range records {
		for i := range r.Disks {
			d := &r.Disks[i]
			if seen[d.Root] {
				continue
			}
			seen[d.Root] = true
			found := Damage{Root: d.Root}
			if err := s.lacks(ctx, d, whole, s.indexed, func(_ object.Key, at image.Range, _ error) { found.add(at) }); err != nil {
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
	if records, _, err = s.Records(ctx); err != nil {
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

// NoteFound leaves for all who look at the store what was found by reading that
// was not done to verify images. lost says that something could not be read;
// else it is done only if something was found damaged. After NoteVerified there
// is nothing to do until more is found.
func (s *Store) NoteFound(ctx context.Context, lost bool) error {
	s.mu.Lock()
	idle := !s.cfg.ReadOnly || s.told || !lost && !s.met
	s.mu.Unlock()
	if idle {
		return nil
	}
	damaged, err := s.Lacking(ctx)
	if err != nil {
		return err
	}
	return s.NoteVerified(ctx, nil, damaged)
}

// NoteVerified leaves for all who look at the store what was found by verifying
// images: these are whole, those lack something. What others noted since this
// store was opened stays: the place may have been read before it was damaged.
func (s *Store) NoteVerified(ctx context.Context, whole []string, damaged Damages) error {
	if len(damaged) == 0 { // most often there is nothing to be said, and the folder need not be writable
		noted, err := s.Damages(ctx)
		isNoted := func(root string) bool { _, is := noted[root]; return is }
		if err != nil || !slices.ContainsFunc(whole, isNoted) {
			return err
		}
	}
	s.mu.Lock()
	s.met, s.told = false, true
	s.mu.Unlock()
	now := time.Now().UTC().Truncate(time.Second)
	return s.changeDamage(ctx, func(images Damages, objects *[]badObject) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, root := range whole {
			if images[root].Found.Equal(s.noted[root]) {
				delete(images, root)
			}
		}
		for root, d := range damaged {
			d.Found = now
			images[root] = d
			s.noted[root] = now
		}
		for _, b := range s.found {
			if !slices.Contains(*objects, b) {
				*objects = append(*objects, b)
			}
		}
	})
}

// noteScrubbed puts what a scrub found in the place of what was noted before it
// began. What was noted since stays: the scrub may have read that place before
// it was damaged. What it found damaged is on the list of damaged objects.
func (s *Store) noteScrubbed(ctx context.Context, damaged Damages, before damageFile) error {
	now := time.Now().UTC().Truncate(time.Second)
	return s.changeDamage(ctx, func(images Damages, objects *[]badObject) {
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

// String is the damage for people.
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
