package sharedir

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
)

// TestNote: a note is that of the box itself. What else stands in its place is an error.
func TestNote(t *testing.T) {
	f := osArea(t)
	path := f.Path(box.FirmwareFile)
	if n, err := f.Note(); n != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no note: %v, %v", n, err)
	}
	note := (&efi.Note{Format: efi.NoteFormat, State: efi.State{Kind: efi.BIOS}}).Marshal()
	must(t, f.WriteFile(box.FirmwareFile, note))
	if n, err := f.Note(); err != nil || n.State.Kind != efi.BIOS {
		t.Errorf("a note: %v, %v", n, err)
	}
	another, err := box.ParseAddr("10.0.9.9")
	must(t, err)
	other := f.area.Look(another)
	must(t, os.Symlink(f.Dir(), other.Dir()))
	if n, err := other.Note(); n != nil || err == nil {
		t.Errorf("a folder that is a link to another box's: %v, %v", n, err)
	}
	must(t, os.Remove(other.Dir()))
	other, err = f.area.Box(another)
	must(t, err)
	for what, make := range map[string]func(string) error{
		"a link to the note of another box": func(at string) error { return os.Symlink(path, at) },
		"a pipe":                            func(at string) error { return syscall.Mkfifo(at, 0o644) },
		"a note that is too large": func(at string) error {
			return os.WriteFile(at, bytes.Repeat([]byte(" "), efi.MaxNote+1), 0o644)
		},
		"no note": func(at string) error { return os.WriteFile(at, []byte("{}"), 0o644) },
	} {
		at := other.Path(box.FirmwareFile)
		must(t, make(at))
		if n, err := other.Note(); n != nil || err == nil {
			t.Errorf("%s: %v, %v", what, n, err)
		}
		must(t, os.Remove(at))
	}
}
