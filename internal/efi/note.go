package efi

import (
	"encoding/json"
	"errors"
	"fmt"
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
	if n.Format != NoteFormat {
		return nil, fmt.Errorf("the note about the firmware has format %d, and this program reads format %d", n.Format, NoteFormat)
	}
	if err := n.State.Check(); err != nil {
		return nil, err
	}
	if f := n.NetworkFirst; f != nil {
		switch f.Result {
		case OrderKept, OrderRepaired, OrderIgnored, OrderFailed, OrderNone:
		default:
			return nil, fmt.Errorf("the note about the firmware has the result %.40q", f.Result)
		}
		if !isClean(f.Text, maxNoteText) || len(f.Before) > MaxEntries || len(f.Wrote) > MaxEntries {
			return nil, errors.New("the note about the firmware says too much, or what cannot be printed")
		}
	}
	return &n, nil
}

// maxNoteText is how long the text about BootOrder may be, in bytes.
const maxNoteText = 4 << 10
