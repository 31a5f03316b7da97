package efi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// NoteFormat is the number of the form of a note that this code writes.
const NoteFormat = 1

// MaxNote is how many bytes the JSON of a note has at most.
const MaxNote = MaxState + 64<<10

// Marshal returns the JSON of a note.
func (n *Note) Marshal() []byte {
	b, err := json.MarshalIndent(n, "", " ")
	if err != nil {
		panic(err) // the fields are plain
	}
	return append(b, '\n')
}

// ParseNote reads a note. A box wrote it, so it is trusted no more than that box.
// Fields that are not known are passed over, since a newer agent may have written it.
func ParseNote(b []byte) (*Note, error) {
	if len(b) > MaxNote {
		return nil, fmt.Errorf("the note about the firmware has more than %d bytes", MaxNote)
	}
	var n Note
	if err := json.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("the note about the firmware is not readable: %w", err)
	}
	if err := n.Check(); err != nil {
		return nil, err
	}
	return &n, nil
}

// Check returns an error if a value of the note cannot be true.
func (n *Note) Check() error {
	if n.Format != NoteFormat {
		return fmt.Errorf("the note about the firmware has format %d, and this program reads format %d", n.Format, NoteFormat)
	}
	if f := n.NetworkFirst; f != nil {
		switch f.Result {
		case OrderKept, OrderRepaired, OrderIgnored, OrderFailed, OrderNone:
		default:
			return fmt.Errorf("the note about the firmware has the result %.40q", f.Result)
		}
		if !isClean(f.Text, maxNoteText) || len(f.Before) > MaxEntries || len(f.Wrote) > MaxEntries {
			return errors.New("the note about the firmware says too much, or what cannot be printed")
		}
	}
	if p := n.PutBack; p != nil {
		if len(p.Put) > MaxEntries || len(p.Left) > MaxEntries ||
			slices.ContainsFunc(p.Left, func(s string) bool { return !isClean(s, maxNoteText) }) {
			return errors.New("the note about the firmware says too much, or what cannot be printed")
		}
	}
	return n.State.Check()
}

// maxNoteText is how long the text about BootOrder may be, in bytes.
const maxNoteText = 4 << 10
