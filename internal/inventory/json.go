package inventory

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/box"
)

// MaxJSON is the largest size in bytes that ParseJSON accepts. A kernel log
// needs up to 1 MiB of it.
const MaxJSON = 16 << 20

// JSON returns the structured form.
func (inv *Inventory) JSON() []byte {
	b, err := json.MarshalIndent(inv, "", "  ")
	if err != nil {
		panic(err) // cannot happen, since the fields are plain
	}
	return append(b, '\n')
}

// ParseJSON reads the structured form. It ignores fields that it does not know,
// because fields may be added under the same format number. A box wrote the
// data, so the result is to be trusted no more than that box.
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

// maxDisksJSON is how many bytes of the structured form ParseDisks accepts for the
// disks. A disk needs some 4 KiB.
const maxDisksJSON = 1 << 20

// ParseDisks reads only the disks of the structured form. Whatever the data is, that
// takes no more than some 64 MiB of memory.
func ParseDisks(data []byte) ([]Disk, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("inventory is larger than %d bytes", MaxJSON)
	}
	var top struct {
		Format int             `json:"format"`
		Disks  json.RawMessage `json:"disks"`
	}
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, fmt.Errorf("inventory is not readable: %w", err)
	}
	switch {
	case top.Format != Format:
		return nil, fmt.Errorf("inventory has format %d, this program reads format %d", top.Format, Format)
	case top.Disks == nil:
		return nil, nil
	case len(top.Disks) > maxDisksJSON:
		return nil, fmt.Errorf("the disks of the inventory have %d bytes, more than %d", len(top.Disks), maxDisksJSON)
	}
	var disks []Disk
	if err := json.Unmarshal(top.Disks, &disks); err != nil {
		return nil, fmt.Errorf("the disks of the inventory are not readable: %w", err)
	}
	return disks, nil
}

// File is a file of the inventory.
type File struct {
	Name string
	Data []byte
}

// Files returns the inventory's files, which are the text, the JSON and the
// zip. If there is an error, the zip is missing.
func (inv *Inventory) Files() ([]File, error) {
	files := []File{{box.InfoText, inv.Text()}, {box.InfoJSON, inv.JSON()}}
	zip, err := inv.Zip()
	if err != nil {
		return files, err
	}
	return append(files, File{box.InfoZip, zip}), nil
}
