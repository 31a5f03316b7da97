package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Open asks to open the image of a disk of a backup.
type Open struct {
	Box    string      `json:"box"`
	ID     string      `json:"id"`     // of the backup
	Disk   string      `json:"disk"`   // the name that it has in the record
	Root   object.Name `json:"root"`   // that the agent expects
	Size   int64       `json:"size"`   // of the disk, bytes
	Sector int         `json:"sector"` // bytes
}

// OpenOf asks for the image of a disk of a record.
func OpenOf(r *image.Record, d *image.RecordedDisk) Open {
	return Open{r.Box, r.ID, d.Name, d.Root, d.Disk.Size, d.Disk.SectorSize}
}

// Record returns a record that has the disk that is asked for.
func (o *Open) Record() *image.Record {
	disk := image.RecordedDisk{Name: o.Disk, Root: o.Root, Disk: image.Identity{Size: o.Size, SectorSize: o.Sector}}
	return &image.Record{Format: image.RecordFormat, Box: o.Box, ID: o.ID, Disks: []image.RecordedDisk{disk}}
}

// ParseOpen parses the JSON of an Open.
func ParseOpen(b []byte) (*Open, error) {
	var o Open
	if len(b) > MaxOpen {
		return nil, fmt.Errorf("the request has more than %d bytes", MaxOpen)
	}
	if err := image.DecodeStrict("the request", b, &o); err != nil {
		return nil, err
	}
	if !image.ValidBox(o.Box) || !image.ValidID(o.ID) || !image.ValidName(o.Disk) {
		return nil, fmt.Errorf("there is no disk %.40q of backup %.40q of %.70q: such names are not given", o.Disk, o.ID, o.Box)
	}
	if o.Size < 1 || o.Size > chunk.MaxDisk || !image.ValidSectorSize(o.Sector) {
		return nil, fmt.Errorf("no disk has %d bytes in sectors of %d", o.Size, o.Sector)
	}
	return &o, nil
}

// Stored is the answer to objects that were all stored.
type Stored struct {
	Counted int `json:"counted"`
}

// ParseStored parses the JSON of a Stored that answers for n objects.
func ParseStored(b []byte, n int) error {
	var s Stored
	if err := image.DecodeStrict("the answer", b, &s); err != nil {
		return err
	}
	if s.Counted != n {
		return fmt.Errorf("the server counts %d objects of %d, and names no problem", s.Counted, n)
	}
	return nil
}

// Committed is the answer to a commit.
type Committed struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	After string    `json:"after,omitempty"`
}

// ParseCommitted parses the JSON of a Committed.
func ParseCommitted(b []byte) (*Committed, error) {
	var c Committed
	if err := image.DecodeStrict("the answer", b, &c); err != nil {
		return nil, err
	}
	if !image.ValidID(c.ID) || c.After != "" && !image.ValidID(c.After) || c.Time.IsZero() {
		return nil, fmt.Errorf("the server committed a backup %.40q after %.40q at %v", c.ID, c.After, c.Time)
	}
	return &c, nil
}

// These limit what a record says of a box and its disks, in bytes.
const (
	maxHost  = 253 // of a host name, as in the domain name system
	maxUUID  = 64
	maxOther = 4096 // of a serial number, a model, a path
	maxDisks = 1024 // disks of a record, as image.Record has them
	// maxTrees is more than the page and the root take that a small disk adds to a store.
	maxTrees = 64 << 20
)

// MarshalRecord returns the text of a record that is to be committed. It lacks what
// the server and the admin say of it.
func MarshalRecord(r *image.Record) ([]byte, error) {
	c := *r
	c.ID, c.Time, c.After, c.Note, c.Pinned, c.Baseline = "", time.Time{}, "", "", false, false
	b, err := json.Marshal(&c)
	if err == nil && len(b) > MaxRecord {
		err = fmt.Errorf("the record of the backup has %d bytes, more than %d", len(b), MaxRecord)
	}
	return b, err
}

// ParseRecord parses what MarshalRecord writes.
func ParseRecord(b []byte) (*image.Record, error) {
	var r image.Record
	if err := decode("the record", b, MaxRecord, maxDisks, &r); err != nil {
		return nil, err
	}
	if r.ID != "" || !r.Time.IsZero() || r.After != "" || r.Note != "" || r.Pinned || r.Baseline {
		return nil, errors.New("the record says something that only the server, or an admin, may say")
	}
	if !printable(r.Host, maxHost) || !printable(r.UUID, maxUUID) || !printable(string(r.Arming), maxUUID) {
		return nil, errors.New("the record has a host name, a UUID or an arming that cannot be")
	}
	for i := range r.Disks {
		d := &r.Disks[i]
		if d.Disk.Size > chunk.MaxDisk || d.Stored > 2*d.Disk.Size+maxTrees { // it is added up with that of other backups
			return nil, fmt.Errorf("the record has a disk of %d bytes that added %d to the store", d.Disk.Size, d.Stored)
		}
		for _, s := range []string{d.Kernel, d.Disk.WWN, d.Disk.Serial, d.Disk.Path, d.Disk.Model} {
			if len(s) > maxOther {
				return nil, fmt.Errorf("the record says more than %d bytes of a disk", maxOther)
			}
		}
	}
	checked := r
	checked.ID = "20000101-000000" // Check wants one
	return &r, checked.Check()
}

// printable reports whether s is short, and has no control characters.
func printable(s string, most int) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return len(s) <= most
}
