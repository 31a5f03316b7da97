package inventory

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/box"
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

// File is a file of the inventory.
type File struct {
	Name string
	Data []byte
}

// Files gives the inventory's files: the text, the JSON and the zip, which is
// missing beside an error.
func (inv *Inventory) Files() ([]File, error) {
	files := []File{{box.InfoText, inv.Text()}, {box.InfoJSON, inv.JSON()}}
	zip, err := inv.Zip()
	if err != nil {
		return files, err
	}
	return append(files, File{box.InfoZip, zip}), nil
}
