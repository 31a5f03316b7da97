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

// Entry is an image in the area.
type Entry struct {
	Name  string       // "sda"
	Path  string       // image file, as a path for durable.FS.Open
	Facts *image.Facts // facts of the sidecar; nil for an image made by hand or by an older script
	Size  int64        // bytes of the image file
}

// ErrUnfinished means that Recover must be called first.
var ErrUnfinished = errors.New("a backup was committed and is not in place yet")

// Images lists the box's images, sorted by name. The list has only images
// without a problem. The error joins the problems of all others. Problems are
// two files for one name, a sidecar that cannot be read, a sidecar without its
// image, and an image file of another length than its sidecar says. A restore
// must refuse on any error.
func (f *Folder) Images() ([]Entry, error) { return f.images("") }

// ReadImages is Folder.Images for any folder, such as a copy of a box's folder.
// It changes nothing there.
func ReadImages(fsys durable.FS, dir string) ([]Entry, error) {
	return (&Folder{fsys: fsys, dir: dir}).Images()
}

// ReadOldImages is Folder.OldImages for any folder.
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

// imageNames returns the sorted names that have an image or a sidecar in files.
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

// entry returns the image called name, or nil if there is none.
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

// anonymous returns an image without using a sidecar. Only its name and the
// length of its file are known.
func (f *Folder) anonymous(name, file string) (*Entry, error) {
	size, err := durable.Size(f.fsys, f.Path(file))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return &Entry{Name: name, Path: f.Path(file), Size: size}, nil
}

// withFacts returns an image that has a sidecar. It is an error if the two do
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

// isFacts reports whether a file is a sidecar of the image called name. It
// could also be a JSON file of the admin that has such a name by chance.
func (f *Folder) isFacts(name, sidecar string, there bool) bool {
	if !there {
		return false
	}
	facts, err := f.facts(sidecar)
	return err == nil && facts.Name == name
}

// Committed reports whether all of the box's images are of this arming. Then
// the agent only has to disarm.
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
