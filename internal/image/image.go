// Package image has the nouns of imaging. They are what a disk is known by, the
// facts that are kept beside an image, the pieces by which an image is read and
// written, and the receipt that proves a restore.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
)

// PieceSize is the most bytes of a disk that are read, encoded, written and read
// back at a time. A Writer gets pieces of exactly this length, except for the
// disk's last piece.
const PieceSize = 1 << 20

// Identity is what a disk is known by, since kernel names move between boots.
// Empty fields are unknown.
type Identity struct {
	// WWN is the World Wide Name, EUI-64 or NGUID, as the kernel spells it
	// ("naa.5000c500...", "eui....", "uuid....").
	WWN         string `json:"wwn,omitempty"`
	Serial      string `json:"serial,omitempty"`    // without surrounding blanks
	NamespaceID int    `json:"namespace,omitempty"` // NVMe namespace (0 is unknown or not NVMe)
	Path        string `json:"path,omitempty"`      // by-path name ("pci-0000:00:1f.2-ata-1")
	Model       string `json:"model,omitempty"`     // without surrounding blanks
	Size        int64  `json:"size"`                // bytes
	SectorSize  int    `json:"sectorSize"`          // logical sector, bytes
}

func (d Identity) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes, %d-byte sectors", d.Size, d.SectorSize)
	for _, f := range []struct{ name, v string }{{"model", d.Model}, {"serial", d.Serial}, {"wwn", d.WWN}, {"path", d.Path}} {
		if f.v != "" {
			fmt.Fprintf(&b, ", %s %s", f.name, f.v)
		}
	}
	if d.NamespaceID != 0 {
		fmt.Fprintf(&b, ", namespace %d", d.NamespaceID)
	}
	return b.String()
}

// Range is a run of bytes of a disk.
type Range struct {
	Off int64 `json:"off"` // bytes
	Len int64 `json:"len"` // bytes
}

// End is the first byte after the run.
func (r Range) End() int64 { return r.Off + r.Len }

// Clip is the part of r that lies between from and to. If there is none, Len is 0
// and Off has no meaning.
func (r Range) Clip(from, to int64) Range {
	off := max(r.Off, from)
	return Range{Off: off, Len: max(0, min(r.End(), to)-off)}
}

// FactsFormat is the number of the sidecar's format that this code writes.
const FactsFormat = 1

// Facts are what the sidecar (sda.json) says of the image beside it.
type Facts struct {
	Format   int        `json:"format"`        // FactsFormat
	Name     string     `json:"name"`          // the image's name ("sda"), which later backups of the disk keep
	Kernel   string     `json:"kernel"`        // the disk's kernel name when it was read
	Disk     Identity   `json:"disk"`          //
	Box      string     `json:"box"`           // dotted address
	Host     string     `json:"host"`          // host name or "unknown"
	UUID     string     `json:"uuid"`          // the box's SMBIOS UUID ("" is unknown)
	Arming   box.Arming `json:"arming"`        // the arming that made this image
	Time     time.Time  `json:"time"`          // when the backup was committed
	BLAKE3   string     `json:"blake3"`        // of the disk's raw bytes, 64 hexadecimal digits
	SHA256   string     `json:"sha256"`        // of the image file, 64 hexadecimal digits
	FileSize int64      `json:"fileSize"`      // of the image file, bytes
	Bad      []Range    `json:"bad,omitempty"` // unreadable sectors, zeros in the image
	// Firmware is the state of the box's firmware at the backup. nil is unknown.
	Firmware *efi.State `json:"firmware,omitempty"`
}

// Label is what an image is found by. It has the image's name, the disk that it
// was made of, and the time. If an image has no sidecar, at most the size of its
// disk is known.
type Label struct {
	Name string
	Disk Identity
	Time time.Time
}

// Label gives the image's label.
func (f *Facts) Label() Label { return Label{f.Name, f.Disk, f.Time} }

// MaxFacts is the size in bytes of the largest sidecar that is accepted. A backup
// fails at 100000 bad ranges, and a sidecar with so many has about 6 MB.
const MaxFacts = 16 << 20

// ParseFacts reads a sidecar. Unknown fields, and values that cannot be true, are
// errors.
func ParseFacts(data []byte) (*Facts, error) {
	if len(data) > MaxFacts {
		return nil, fmt.Errorf("sidecar is larger than %d bytes", MaxFacts)
	}
	var f Facts
	if err := DecodeStrict("sidecar", data, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Format != FactsFormat:
		return nil, fmt.Errorf("sidecar has format %d, this program reads format %d", f.Format, FactsFormat)
	case !ValidName(f.Name):
		return nil, fmt.Errorf("sidecar names the image %q", f.Name)
	case f.Disk.Size <= 0 || f.FileSize <= 0:
		return nil, errors.New("sidecar has a size that is not positive")
	case !ValidSectorSize(f.Disk.SectorSize) || f.Disk.Size%int64(f.Disk.SectorSize) != 0:
		return nil, fmt.Errorf("sidecar has %d bytes in sectors of %d", f.Disk.Size, f.Disk.SectorSize)
	case !isHex(f.BLAKE3, 64) || !isHex(f.SHA256, 64):
		return nil, errors.New("sidecar has a hash that is not 64 hexadecimal digits")
	}
	if f.Firmware != nil {
		if err := f.Firmware.Check(); err != nil {
			return nil, fmt.Errorf("sidecar: %w", err)
		}
	}
	if !badFits(f.Bad, f.Disk.Size) {
		return nil, errors.New("sidecar has a bad-sector range outside the disk or out of order")
	}
	return &f, nil
}

// DecodeStrict reads one JSON value. Unknown fields, and bytes behind the value,
// are errors. The error texts call the value by the name what.
func DecodeStrict(what string, data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s is not readable: %w", what, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has something after its end", what)
	}
	return nil
}

// badFits reports whether ranges are in order and lie on a disk of size bytes.
func badFits(bad []Range, size int64) bool {
	end := int64(0)
	for _, r := range bad {
		if r.Off < end || r.Len <= 0 || r.Len > size-r.Off {
			return false
		}
		end = r.End()
	}
	return true
}

// Marshal is the sidecar's text.
func (f *Facts) Marshal() []byte {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		panic(err) // plain fields only
	}
	return append(b, '\n')
}

// ValidName reports whether s can be the name of an image ("sda", "nvme0n1").
func ValidName(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || i > 0 && ('0' <= c && c <= '9' || c == '-' || c == '_')) {
			return false
		}
	}
	return true
}

// partitionName matches names of partitions. Systems call them sda1, nvme0n1p1,
// mmcblk0p2 or sda-part1, and people write sda_1 and sdap1 too. It also matches
// mmcblk0boot0, a small memory beside the disk on the same chip.
var partitionName = regexp.MustCompile(`^((sd|hd|vd|xvd|ubd|dasd)[a-z]{1,3}([-_]?p?|[-_])|` +
	`mmcblk\d+(boot|gp)|(nvme\d+n|mmcblk|md|loop|nbd|pmem|rbd|zd|ram|bcache|drbd|dm-|(cciss|ida|rd|ataraid)[-_!]?c\d+d)\d+[-_]?p|` +
	`(.+[-_]|.*\d)?part(ition)?[-_]?)\d{1,3}$`)

// NamesPartition reports whether a name is that of a partition ("sda1"), and not
// that of a disk.
func NamesPartition(s string) bool { return partitionName.MatchString(strings.ToLower(s)) }

// ValidSectorSize reports whether n is a power of two from 512 to 64 KiB.
func ValidSectorSize(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// Piece is a part of a disk's bytes, as a Reader gives it.
type Piece struct {
	Content Content
	// Ranges are the places of the bytes on the disk, in the order of the disk.
	// No range is empty or touches the next. Zero and Unused have one range, of
	// any length. Data has one or more, of at most PieceSize bytes together.
	// Nobody may change them.
	Ranges []Range
	Len    int64 // bytes of all ranges
	// Sum is the BLAKE3-256 of the data, if the image tells it before the data
	// is fetched. Decode then checks the data against it. Otherwise Sum is zero.
	Sum [32]byte
	// Decode fills dst[:Len] with the data, range after range. It is nil if
	// Content is not Data. It may spoil what dst has behind Len, and is faster
	// if there is some room. It may be called once, from any goroutine, while
	// other pieces are decoded. An error means that the image is damaged or
	// cannot be read, and that the bytes in dst are of no use.
	Decode func(dst []byte) error
	// Stored is the data as a store has it. It is nil if the image does not tell Sum.
	Stored Stored
}

// Stored is the data of a piece that a store has. Its methods do the same for
// several pieces of one image, one after the other. This costs less than a call for
// each, if the store is far away. They may be called on any of the pieces, and from
// any goroutine.
type Stored interface {
	// Bring is Decode for all pieces. into gives the memory for piece i. If compare is
	// false, the data is not compared with Sum, since the caller does so later.
	Bring(pieces []Stored, into func(i int) (dst []byte, compare bool)) error
	// Check finds out, without decoding, whether what is stored of the pieces can be
	// read and has not changed since it was stored.
	Check(pieces []Stored) error
}

// Reader reads an image.
type Reader interface {
	// Next gives the next piece. All pieces together have each byte of the disk
	// once. Each piece begins at the first byte of the disk that no earlier
	// piece had. The order may begin at another place than the disk's beginning.
	// It then goes from that place to the disk's end, and from the disk's
	// beginning to that place, and no piece lies on both sides of the place. Next
	// returns io.EOF itself, not wrapped, after the last piece of an image that is
	// known to be complete. If the image ends in any other way, it returns another
	// error.
	Next() (Piece, error)
}

// Writer writes an image, in the order of the disk.
type Writer interface {
	// Encode appends the stored form of a piece to dst. It may be called from
	// many goroutines at once.
	Encode(dst, piece []byte) ([]byte, error)
	// Append writes a piece, given with its stored form. It is called in the
	// order of the disk, from one goroutine. The caller reuses both buffers
	// after the return.
	Append(piece, encoded []byte) error
}

// Receipt proves what an action did to one disk. No action reports success
// without one.
type Receipt struct {
	Image    string   `json:"image"`             // image name
	Disk     string   `json:"disk"`              // kernel name
	Identity Identity `json:"identity"`          //
	Read     int64    `json:"read"`              // bytes read from the disk (backup, verify)
	Zero     int64    `json:"zero"`              // bytes of the disk that are zero
	Written  int64    `json:"written"`           // bytes written to the disk, zeros included
	Skipped  int64    `json:"skipped,omitempty"` // bytes found right and so not written
	Unused   int64    `json:"unused,omitempty"`  // bytes that the image does not have, since nothing uses them
	Verified int64    `json:"verified"`          // bytes read back and found right
	BLAKE3   string   `json:"blake3,omitempty"`  // of the image's raw bytes; "" for an image in a store
	Root     string   `json:"root,omitempty"`    // of the image, if it is in a store
	Changed  []Range  `json:"changed,omitempty"` // places where the disk must differ from the image, as for a moved backup GPT
	Differ   []Range  `json:"differ,omitempty"`  // the first places where disk and image differ (verify)
	Bad      []Range  `json:"bad,omitempty"`     // unreadable sectors
	Stages   []Stage  `json:"stages"`            //
	// FromServer and FromPeers are bytes of chunks, as the store has them, that the box got from the server and from
	// other boxes that restored the same image. Both are 0 if nobody counted.
	FromServer int64 `json:"fromServer,omitempty"`
	FromPeers  int64 `json:"fromPeers,omitempty"`
	// Hooks are changes of the restored system, after it was read back.
	Hooks []HookDone `json:"hooks,omitempty"`
}

// HookDone is what a hook did to the restored system of a disk.
type HookDone struct {
	Hook  string   `json:"hook"`            // its name
	Place string   `json:"place"`           // the file system, for people
	Text  string   `json:"text"`            // what was done, for people
	Files []string `json:"files,omitempty"` // that were changed, made or removed
}

// Limits of what a receipt says of hooks.
const (
	MaxHooks     = 8
	MaxHookFiles = 64
)

// Stage is one pass over a disk's bytes.
type Stage struct {
	Name    string        `json:"name"`  // "read", "check", "write", "verify", ...
	Bytes   int64         `json:"bytes"` // of the disk
	Elapsed time.Duration `json:"ns"`
	// Busy is the share of Elapsed in which the stage's workers were busy, from
	// 0 to 1. If several stages ran at the same time, the one with the largest
	// share limited the speed of the others.
	Busy float64 `json:"busy,omitempty"`
	// Active is the part of Elapsed in which at least one worker was busy. A stage that
	// reads a disk has it, so that waiting for the network or the processor does not make
	// the disk seem slow. 0 means that it was not measured.
	Active time.Duration `json:"activeNs,omitempty"`
}

// ReadRate is how fast the disk was read, in bytes a second, while it was being read. It is
// 0 if the stage reads no disk, or if that was not measured.
func (s Stage) ReadRate() float64 {
	if s.Active <= 0 || s.Name != "read" && s.Name != "compare" {
		return 0
	}
	return float64(s.Bytes) / s.Active.Seconds()
}

// Rate is the stage's speed in bytes a second.
func (s Stage) Rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Bytes) / s.Elapsed.Seconds()
}
