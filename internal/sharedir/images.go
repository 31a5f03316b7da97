package sharedir

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// Entry is an image of the area.
type Entry struct {
	Name  string       // "sda"
	Path  string       // of the image file, for durable.FS.Open
	Facts *image.Facts // of the sidecar; nil for an image made by hand or by an older script
	Size  int64        // of the image file, bytes
}

// ErrUnfinished is matched by errors of calls that need Recover first.
var ErrUnfinished = errors.New("a backup was committed and is not in place yet")

// Images lists the box's images, sorted by name. The error joins what is wrong
// with any of them (two files for one name, a sidecar that cannot be read, an
// image file of another length than its sidecar says, a sidecar without its
// image); the entries are those with which nothing is. A restore must refuse on
// any error.
func (f *Folder) Images() ([]Entry, error) { return f.images("") }

// ReadImages is Folder.Images of any folder, such as a copy of a box's. Nothing
// is made or changed in it.
func ReadImages(fsys durable.FS, dir string) ([]Entry, error) {
	return (&Folder{fsys: fsys, dir: dir}).Images()
}

// ReadOldImages is Folder.OldImages of any folder.
func ReadOldImages(fsys durable.FS, dir string) ([]Entry, error) {
	return (&Folder{fsys: fsys, dir: dir}).OldImages()
}

// OldImages lists the images of the previous backup, which backup-again kept.
func (f *Folder) OldImages() ([]Entry, error) { return f.images(oldExt) }

func (f *Folder) images(suffix string) ([]Entry, error) {
	files, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the images in %s: %w", f.dir, err)
	}
	if slices.Contains(files, planName) {
		return nil, fmt.Errorf("%s: %w", f.Path(planName), ErrUnfinished)
	}
	var es []Entry
	var errs []error
	for _, name := range imageNames(files, suffix) {
		switch e, err := f.entry(files, name, suffix); {
		case err != nil:
			errs = append(errs, err)
		case e != nil:
			es = append(es, *e)
		}
	}
	return es, errors.Join(errs...)
}

// imageNames is the sorted names of which files has an image or a sidecar.
func imageNames(files []string, suffix string) []string {
	var names []string
	for _, file := range files {
		if base, found := strings.CutSuffix(file, suffix); found {
			if name, _, ok := splitFile(base); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// entry is the image called name; nil if there is none.
func (f *Folder) entry(files []string, name, suffix string) (*Entry, error) {
	has := func(ext string) bool { return slices.Contains(files, name+ext+suffix) }
	rawgz, gz, sidecar := name+rawgzExt+suffix, name+gzExt+suffix, name+sidecarExt+suffix
	switch {
	case has(rawgzExt) && has(gzExt):
		return nil, fmt.Errorf("%s has two images of %s, %s and %s: remove or rename the one that is not wanted", f.dir, name, rawgz, gz)
	case has(rawgzExt) && has(sidecarExt):
		return f.withFacts(name, rawgz, sidecar)
	case has(rawgzExt):
		return f.anonymous(name, rawgz)
	case f.isFacts(name, sidecar, has(sidecarExt)):
		return nil, fmt.Errorf("%s has the sidecar %s, but its image %s is missing: put the image back, or remove the sidecar too", f.dir,
			sidecar, rawgz)
	case has(gzExt):
		return f.anonymous(name, gz)
	}
	return nil, nil
}

// anonymous is the image in a file without a sidecar: only its name and the length
// of the file are known.
func (f *Folder) anonymous(name, file string) (*Entry, error) {
	size, err := durable.Size(f.fsys, f.Path(file))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return &Entry{Name: name, Path: f.Path(file), Size: size}, nil
}

// withFacts is the image in a file that has a sidecar. It is an error if the two do
// not belong together.
func (f *Folder) withFacts(name, file, sidecar string) (*Entry, error) {
	e, err := f.anonymous(name, file)
	if err != nil {
		return nil, err
	}
	if e.Facts, err = f.facts(sidecar); err != nil {
		return nil, fmt.Errorf("%s: %w; put a good copy back, or remove it to use the image without its facts", f.Path(sidecar), err)
	}
	switch {
	case e.Facts.Name != name:
		return nil, fmt.Errorf("%s is the sidecar of an image %s: give both files that name again", f.Path(sidecar), e.Facts.Name)
	case e.Facts.FileSize != e.Size:
		return nil, fmt.Errorf("%s has %d bytes, but its sidecar says %d: it is cut or is another image", e.Path, e.Size, e.Facts.FileSize)
	}
	return e, nil
}

func (f *Folder) facts(sidecar string) (*image.Facts, error) {
	data, err := durable.ReadFile(f.fsys, f.Path(sidecar), image.MaxFacts)
	if err != nil {
		return nil, err
	}
	return image.ParseFacts(data)
}

// isFacts reports whether a file is a sidecar of the image called name and not
// some JSON of the admin's that happens to stand here.
func (f *Folder) isFacts(name, sidecar string, there bool) bool {
	if !there {
		return false
	}
	facts, err := f.facts(sidecar)
	return err == nil && facts.Name == name
}

// Committed reports whether the box's images are all of this arming, so that
// there is nothing left to do but to disarm.
func (f *Folder) Committed(arming box.Arming) (bool, error) {
	es, err := f.Images()
	if err != nil || len(es) == 0 {
		return false, err
	}
	for _, e := range es {
		if e.Facts == nil || e.Facts.Arming != arming {
			return false, nil
		}
	}
	return true, nil
}

// WriteFile writes a small file of the folder durably.
func (f *Folder) WriteFile(name string, data []byte) error {
	return durable.WriteFile(f.fsys, f.Path(name), data, fileMode)
}
