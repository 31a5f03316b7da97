package sharedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// LastAction is the record of the last action that a box completed.
type LastAction struct {
	Format   int             `json:"format"` // LastFormat, set by SetLast
	Arming   box.Arming      `json:"arming"`
	Action   box.Action      `json:"action"`
	Outcome  box.Outcome     `json:"outcome"` // may be a text that this program does not know
	Time     time.Time       `json:"time"`
	Receipts []image.Receipt `json:"receipts,omitempty"`
	Restored *Restored       `json:"restored,omitempty"` // the latest restore, of this action or of an earlier one
}

// Restored is the latest restore that a box completed: whose system it has.
type Restored struct {
	Arming box.Arming `json:"arming"`
	Time   time.Time  `json:"time"`
	From   string     `json:"from,omitempty"`  // box whose backup it was; "" is the box's own
	Hooks  []box.Hook `json:"hooks,omitempty"` // changes of the restored system
}

// SharesMachineID reports whether the box may have the machine-id of another one, since it
// got that one's system without the hook that takes the id away.
func (r *Restored) SharesMachineID() bool {
	return r != nil && box.SharesMachineID(r.From, r.Hooks)
}

// LastFormat is the number of the record's format that this code writes.
const LastFormat = 1

const (
	maxLast   = 16 << 20 // bytes
	maxRanges = 1000     // of each kind in a receipt, so that the record stays below maxLast
)

// SetLast writes the record durably, as the last step before disarming. It
// keeps only the first thousand bad and differing ranges of each receipt. The
// sidecar has all bad ones. If a is no restore, what the record says of the latest one
// stays, whatever a says of it.
func (f *Folder) SetLast(a LastAction) error {
	a.Format = LastFormat
	if a.Action != box.Restore {
		a.Restored = nil
		if before, err := f.Last(); err == nil && before != nil { // a record that cannot be read says nothing
			a.Restored = before.Restored
		}
	}
	a.Receipts = slices.Clone(a.Receipts)
	for i := range a.Receipts {
		r := &a.Receipts[i]
		r.Bad, r.Differ = r.Bad[:min(maxRanges, len(r.Bad))], r.Differ[:min(maxRanges, len(r.Differ))]
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("record of the last action: %w", err)
	}
	data = append(data, '\n')
	if _, err := parseLast(data); err != nil {
		return fmt.Errorf("record of the last action: %w", err)
	}
	if err := f.WriteFile(lastName, data); err != nil {
		return f.explain("record the action", err)
	}
	return nil
}

// Last returns the record of the last action, or nil if there is none.
func (f *Folder) Last() (*LastAction, error) {
	data, err := durable.ReadFile(f.fsys, f.Path(lastName), maxLast)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := parseLast(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(lastName), err)
	}
	return a, nil
}

func parseLast(data []byte) (*LastAction, error) {
	if len(data) > maxLast {
		return nil, fmt.Errorf("it is larger than %d bytes", maxLast)
	}
	var a LastAction
	if err := image.DecodeStrict("it", data, &a); err != nil {
		return nil, err
	}
	if a.Format != LastFormat {
		return nil, fmt.Errorf("it has format %d, this program reads format %d", a.Format, LastFormat)
	}
	if _, err := box.ParseArming(string(a.Arming)); err != nil {
		return nil, err
	}
	if _, err := box.ParseAction(string(a.Action)); err != nil {
		return nil, err
	}
	if r := a.Restored; r != nil {
		if _, err := box.ParseArming(string(r.Arming)); err != nil {
			return nil, err
		}
		if r.From != "" && !image.ValidBox(r.From) {
			return nil, fmt.Errorf("%.40q is not a box", r.From)
		}
	}
	return &a, nil
}
