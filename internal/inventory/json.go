package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"testbox-imaging/internal/durable"
)

// The names of the files that Save writes into a box's folder.
const (
	TextName = "testbox-info.txt"
	JSONName = "testbox-info.json"
	ZipName  = "testbox-info.zip"
)

// MaxJSON is the size in bytes over which ParseJSON refuses; a kernel log
// takes up to a MiB of it.
const MaxJSON = 16 << 20

// JSON is the structured form.
func (inv *Inventory) JSON() []byte {
	b, err := json.MarshalIndent(inv, "", "  ")
	if err != nil {
		panic(err) // plain fields only
	}
	return append(b, '\n')
}

// ParseJSON reads the structured form. Fields that it does not know are passed
// over, because they may be added under the same format number. What it gives
// was written by a box and is to be trusted no more than that.
func ParseJSON(data []byte) (*Inventory, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("inventory is larger than %d bytes", MaxJSON)
	}
	var inv Inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("inventory is not readable: %w", err)
	}
	if inv.Format != Format {
		return nil, fmt.Errorf("inventory has format %d, this program reads format %d", inv.Format, Format)
	}
	return &inv, nil
}

// Save writes the three files into a box's folder, each durably and readable
// by all. It tries every one; the errors are joined.
func (inv *Inventory) Save(fsys durable.FS, dir string) error {
	zip, err := inv.Zip()
	if err == nil {
		err = durable.WriteFile(fsys, filepath.Join(dir, ZipName), zip, 0o644)
	}
	return errors.Join(
		durable.WriteFile(fsys, filepath.Join(dir, TextName), inv.Text(), 0o644),
		durable.WriteFile(fsys, filepath.Join(dir, JSONName), inv.JSON(), 0o644),
		err,
	)
}
