package sharedir

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// ErrNoDisks means that the box has no disk-devices.lst.
var ErrNoDisks = errors.New("there is no " + box.DisksFile)

// ReadDisks returns the text of the box's disk-devices.lst. A missing list
// means all disks, so ErrNoDisks is returned only if its name is not in the
// folder. If the name is there but cannot be opened, the error is another one.
// The name may be a link to a missing file, or the server may have lost the
// file.
func (f *Folder) ReadDisks() ([]byte, error) {
	if err := f.Own(); err != nil {
		return nil, err
	}
	data, err := durable.ReadFile(f.fsys, f.Path(box.DisksFile), 1<<20)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	names, dirErr := f.fsys.ReadDir(f.dir)
	switch {
	case errors.Is(dirErr, fs.ErrNotExist):
		return nil, ErrNoDisks // the box does not even have a folder
	case dirErr != nil:
		return nil, dirErr
	case slices.Contains(names, box.DisksFile):
		return nil, fmt.Errorf("%s is there and cannot be opened: %v; is it a link to a file that is not there?", f.Path(box.DisksFile), err)
	}
	return nil, ErrNoDisks
}

// LikeDisks lists files of the folder that somebody may have meant to be
// disk-devices.lst. Their names have a suffix that an editor added, a typing
// error, or letters of another case.
func (f *Folder) LikeDisks() ([]string, error) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !likeDisks(name) }), nil
}

// likeDisks reports whether a name looks like that of the list and is not the
// name itself. It compares only the letters, and allows a few mistakes.
func likeDisks(name string) bool {
	if name == box.DisksFile {
		return false
	}
	letters := strings.Map(func(r rune) rune {
		if r = lower(r); r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, name)
	const whole = "diskdeviceslst"
	return strings.Contains(letters, "diskdevice") || strings.HasPrefix(letters, "disk") && strings.HasSuffix(letters, "lst") ||
		len(letters) < 2*len(whole) && mistakes(letters, whole) <= 3
}

func lower(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// mistakes is how many letters must be added, removed or changed to turn a into
// b (Levenshtein's distance).
func mistakes(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
