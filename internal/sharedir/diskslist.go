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

// ErrNoDisks is matched when the box has no disk-devices.lst.
var ErrNoDisks = errors.New("there is no " + box.DisksFile)

// ReadDisks is the text of the box's disk-devices.lst. That there is none, which
// means all disks, is believed only if its name is not in the folder: a link to
// nothing, or a server that has lost the file, is another error.
func (f *Folder) ReadDisks() ([]byte, error) {
	data, err := durable.ReadFile(f.fsys, f.Path(box.DisksFile), 1<<20)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	names, dirErr := f.fsys.ReadDir(f.dir)
	switch {
	case errors.Is(dirErr, fs.ErrNotExist):
		return nil, ErrNoDisks // the box has no folder either
	case dirErr != nil:
		return nil, dirErr
	case slices.Contains(names, box.DisksFile):
		return nil, fmt.Errorf("%s is there and cannot be opened: %v; is it a link to a file that is not there?", f.Path(box.DisksFile), err)
	}
	return nil, ErrNoDisks
}

// LikeDisks lists files of the folder that somebody may have meant to be
// disk-devices.lst: with an ending that an editor added, a typing error, in
// other letters.
func (f *Folder) LikeDisks() ([]string, error) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !likeDisks(name) }), nil
}

// likeDisks reports whether a name is none of ours and looks like that of the
// list: by its letters alone, which may have a few mistakes.
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

// mistakes is how many letters must be added, removed or changed to make b of a
// (Levenshtein's distance).
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
