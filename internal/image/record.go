package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/object"
)

// Content says what a run of a disk's bytes is.
type Content uint8

// The contents. The store's pages have the same numbers (docs/format.md).
const (
	Data   Content = 0
	Zero   Content = 1
	Unused Content = 2 // no file system uses these bytes, so the image does not have them
)

func (c Content) String() string { return [...]string{"data", "zero", "unused"}[min(c, 2)] }

// RecordFormat is the number of the record's format that this code writes.
const RecordFormat = 1

// Record is one backup of a box in a store. It names all disks of the backup,
// which are committed together. It is written last. Objects in the store count
// only if a record refers to them, directly or through other objects.
type Record struct {
	Format int        `json:"format"`           // RecordFormat
	ID     string     `json:"id"`               // "20261127-004616", in UTC, with "-2" and so on if the box had one in this second
	Box    string     `json:"box"`              // dotted address, or a name as ValidBox says
	Host   string     `json:"host,omitempty"`   // host name
	UUID   string     `json:"uuid,omitempty"`   // the box's SMBIOS UUID
	Arming box.Arming `json:"arming,omitempty"` // the arming that made this backup
	Time   time.Time  `json:"time"`             // when it was committed
	// After is the id of a backup of the box that was made before this one but
	// has a later date, since one of the clocks was wrong.
	After    string         `json:"after,omitempty"`
	Note     string         `json:"note,omitempty"`     // an admin's words, at most MaxNote bytes
	Pinned   bool           `json:"pinned,omitempty"`   // retention does not delete it
	Baseline bool           `json:"baseline,omitempty"` // a restore without a selector takes this backup (at most one of a box)
	Disks    []RecordedDisk `json:"disks"`              // at least one
	Boot     *BootTest      `json:"boot,omitempty"`     // the latest boot test; nil is none
	Firmware *efi.State     `json:"firmware,omitempty"` // of the box at the backup; nil is unknown
}

// RecordedDisk is a disk of a Record.
type RecordedDisk struct {
	Name   string      `json:"name"`             // the image's name ("sda"), which later backups of the disk keep
	Kernel string      `json:"kernel,omitempty"` // the disk's kernel name, or the path of the file, when it was read
	Disk   Identity    `json:"disk"`
	Root   object.Name `json:"root"`          // of the image's tree
	Data   int64       `json:"data"`          // bytes used and not zero
	Zero   int64       `json:"zero"`          // bytes used and zero
	Unused int64       `json:"unused"`        // bytes not in the image (Data, Zero and Unused together are Disk.Size)
	Stored int64       `json:"stored"`        // bytes that this backup added to the store for the disk, compressed
	Bad    []Range     `json:"bad,omitempty"` // unreadable sectors, zeros in the image
}

// Labels are the labels of the backup's images, in the order of Disks.
func (r *Record) Labels() []Label {
	labels := make([]Label, len(r.Disks))
	for i, d := range r.Disks {
		labels[i] = Label{d.Name, d.Disk, r.Time}
	}
	return labels
}

// MaxRecord is the size in bytes of the largest record that is accepted.
const MaxRecord = 64 << 20

// MaxNote is the length of the longest note, in bytes.
const MaxNote = 1000

// BoxRule says for people what ValidBox wants.
const BoxRule = `letters, digits, "-", "_" and ".", at most 64 of them, not first a dot or a dash, and not ".tmp" at the end`

// ValidBox reports whether s can be the name of a box in a store, as BoxRule says.
// A dotted address is valid. Each valid name can be a part of a blob's name. Names
// that end in ".tmp" are left to the packages that store the blobs.
func ValidBox(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[0] == '-' || strings.HasSuffix(s, ".tmp") {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// ParseRecord reads a record. Unknown fields, and values that cannot be true, are
// errors.
func ParseRecord(data []byte) (*Record, error) {
	if len(data) > MaxRecord {
		return nil, fmt.Errorf("record is larger than %d bytes", MaxRecord)
	}
	var r Record
	if err := DecodeStrict("record", data, &r); err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	return &r, nil
}

// Check returns an error if a value of the record cannot be true.
func (r *Record) Check() error {
	switch {
	case r.Format != RecordFormat:
		return fmt.Errorf("record has format %d, this program reads format %d", r.Format, RecordFormat)
	case !ValidID(r.ID):
		return fmt.Errorf("record has the id %q", r.ID)
	case !ValidBox(r.Box):
		return fmt.Errorf("record has the box %q", r.Box)
	case r.After != "" && !ValidID(r.After):
		return fmt.Errorf("record comes after %q, which is no id", r.After)
	case len(r.Note) > MaxNote:
		return fmt.Errorf("record has a note of %d bytes, more than %d", len(r.Note), MaxNote)
	case len(r.Disks) == 0 || len(r.Disks) > 1024:
		return fmt.Errorf("record has %d disks", len(r.Disks))
	}
	if r.Boot != nil {
		if err := r.Boot.Check(); err != nil {
			return err
		}
	}
	if r.Firmware != nil {
		if err := r.Firmware.Check(); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	names := map[string]bool{}
	for i := range r.Disks {
		d := &r.Disks[i]
		if err := d.check(); err != nil {
			return err
		}
		if names[d.Name] {
			return fmt.Errorf("record has two disks %s", d.Name)
		}
		names[d.Name] = true
	}
	return nil
}

// Disk gives the disk whose image has this name, or nil if there is none.
func (r *Record) Disk(name string) *RecordedDisk {
	for i := range r.Disks {
		if r.Disks[i].Name == name {
			return &r.Disks[i]
		}
	}
	return nil
}

func (d *RecordedDisk) check() error {
	switch {
	case !ValidName(d.Name):
		return fmt.Errorf("record names a disk %q", d.Name)
	case d.Disk.Size <= 0 || !ValidSectorSize(d.Disk.SectorSize) || d.Disk.Size%int64(d.Disk.SectorSize) != 0:
		return fmt.Errorf("record has %d bytes in sectors of %d", d.Disk.Size, d.Disk.SectorSize)
	case d.Root == object.Name{}:
		return errors.New("record has a disk without a root")
	case d.Data < 0 || d.Zero < 0 || d.Unused < 0 || d.Stored < 0 || d.Data > d.Disk.Size || d.Zero > d.Disk.Size ||
		d.Unused != d.Disk.Size-d.Data-d.Zero:
		return fmt.Errorf("record has a disk of %d bytes with %d of data, %d zero, %d unused", d.Disk.Size, d.Data, d.Zero, d.Unused)
	case !badFits(d.Bad, d.Disk.Size):
		return errors.New("record has a bad-sector range outside the disk or out of order")
	}
	return nil
}

// ValidID reports whether s can be the id of a record.
func ValidID(s string) bool {
	if len(s) < 15 {
		return false
	}
	rest := s[15:]
	_, err := time.Parse("20060102-150405", s[:15])
	return err == nil && (rest == "" || len(rest) > 1 && len(rest) < 8 && rest[0] == '-' && rest[1] != '0' &&
		strings.Trim(rest[1:], "0123456789") == "")
}

// Marshal is the record's text.
func (r *Record) Marshal() []byte {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		panic(err) // the fields are plain, and a year above 9999 cannot be parsed either
	}
	return append(b, '\n')
}
