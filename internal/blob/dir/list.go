package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/durable"
)

// List implements blob.Store. It ignores files whose names are not valid for a
// blob.
func (s *Store) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	var out []blob.Info
	want := func(name string) bool {
		return blob.ValidName(name) && (strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name+"/"))
	}
	err := s.walk(ctx, want, func(name string, size int64) error {
		if strings.HasPrefix(name, prefix) {
			out = append(out, blob.Info{Name: name, Size: size})
		}
		return nil
	})
	slices.SortFunc(out, func(a, b blob.Info) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// Settle implements blob.Settler. A process may have been killed after it
// renamed or removed files and before it synced the folder.
func (s *Store) Settle(ctx context.Context, prefix string) error { return s.settle(ctx, "", prefix) }

func (s *Store) settle(ctx context.Context, dir, prefix string) error {
	names, err := s.fsys.ReadDir(s.file(dir))
	if err != nil {
		if _, notFile := durable.Size(s.fsys, s.file(dir)); dir != "" && (notFile == nil || errors.Is(notFile, fs.ErrNotExist)) {
			return nil // a file, or removed meanwhile
		}
		return err
	}
	for _, name := range names {
		name = path.Join(dir, name)
		if blob.ValidName(name) && (strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name+"/")) {
			if err := s.settle(ctx, name, prefix); err != nil {
				return err
			}
		}
	}
	return errors.Join(ctx.Err(), s.fsys.SyncDir(s.file(dir)))
}

// Clean removes the temporary files that a crash left. The caller makes sure
// that nobody writes blobs meanwhile.
func (s *Store) Clean(ctx context.Context) error {
	want := func(name string) bool { return durable.IsTemp(name) || blob.ValidName(name) }
	return s.walk(ctx, want, func(name string, _ int64) error {
		if !durable.IsTemp(name) {
			return nil
		}
		return s.fsys.Remove(s.file(name))
	})
}

// removed checks a listed name that does not exist when it is opened. If the
// name is still listed, it is a link that leads nowhere, as to a disk that is
// not mounted. Its blobs are not gone then, so removed returns an error.
func (s *Store) removed(dir, name string) error {
	names, err := s.fsys.ReadDir(s.file(dir))
	if err != nil || !slices.Contains(names, path.Base(name)) {
		return nil
	}
	if _, err := durable.Size(s.fsys, s.file(name)); !errors.Is(err, fs.ErrNotExist) {
		return nil // somebody is writing it just now
	}
	return fmt.Errorf("%s is a link to what is not there", s.file(name))
}

// walk calls each for all wanted files in the wanted folders.
func (s *Store) walk(ctx context.Context, want func(name string) bool, each func(name string, size int64) error) error {
	names, err := s.fsys.ReadDir(s.root)
	if err != nil {
		return err
	}
	return s.entries(ctx, "", names, want, each)
}

func (s *Store) entries(ctx context.Context, dir string, names []string, want func(string) bool, each func(string, int64) error) error {
	for _, name := range names {
		name = path.Join(dir, name)
		if err := ctx.Err(); err != nil {
			return err
		}
		if !want(name) {
			continue
		}
		size, err := durable.Size(s.fsys, s.file(name))
		if err == nil {
			err = each(name, size)
		} else if below, dirErr := s.fsys.ReadDir(s.file(name)); dirErr == nil {
			err = s.entries(ctx, name, below, want, each)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = s.removed(dir, name)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
