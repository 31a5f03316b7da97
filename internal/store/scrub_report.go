package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/words"
)

// Fault is something of a store that is not as it was written.
type Fault struct {
	File     string       // name of the blob; "index" is the snapshot of the index; "" is none: objects that are nowhere
	Off, Len int64        // bytes of the file; Len 0 is all of it
	Err      error        // what is wrong
	Objects  []object.Key // that were there, as far as known
	Costs    []Cost       // what images lose by it
	// Known says that an earlier scrub found it, and that nothing needs any
	// more what was there: backups since then brought it again, or the images
	// are deleted. The next collection removes it.
	Known bool
}

// Cost is what an image loses by a fault.
type Cost struct {
	Box, ID string
	Disk    string        // image name; "" is all disks
	Bytes   int64         // of the disk; 0 with Disk ""
	Places  []image.Range // on the disk, in order, the first maxPlaces of them
}

// maxPlaces bounds the places that are told of an image and a fault.
const maxPlaces = 1000

func (c Cost) String() string {
	if c.Disk == "" {
		return fmt.Sprintf("%s %s: the whole backup", c.Box, c.ID)
	}
	s := fmt.Sprintf("%s %s disk %s: %s, at", c.Box, c.ID, c.Disk, words.Count(c.Bytes, "byte"))
	for i, p := range c.Places {
		if i == 5 {
			return s + " and other places"
		}
		s += fmt.Sprintf(" %d+%d", p.Off, p.Len)
	}
	return s
}

// Where is the fault without what it costs.
func (f Fault) Where() string {
	s := f.File
	if s == "" {
		s = "no pack"
	}
	if f.Len > 0 {
		s += fmt.Sprintf(", bytes %d to %d", f.Off, f.Off+f.Len-1)
	}
	return s + ": " + f.Err.Error()
}

func (f Fault) String() string {
	s := f.Where()
	if f.Known {
		s += " (known, nothing is lost by it any more; the next collection removes it)"
	} else if len(f.Costs) == 0 {
		s += " (no image loses anything)"
	}
	for _, c := range f.Costs {
		s += "\n  costs " + c.String()
	}
	return s
}

// ScrubReport is what a scrub found.
type ScrubReport struct {
	Packs   int
	Objects int   // that are whole
	Records int   // that are whole
	Bytes   int64 // read
	Faults  []Fault
	Foreign []string // files that are nothing of the store
	Unnoted error    // why not all of it could be written down, or put right, in the store
}

// Err is nil if all is whole, or was lost and is healed. It says what helps: a
// new backup heals what packs have lost, and no record.
func (r *ScrubReport) Err() error {
	err := r.damage()
	if r.Unnoted != nil {
		err = errors.Join(err, fmt.Errorf("what was found could not be written down in the store, "+
			"so neither does `testbox image list` show it nor a new backup heal it; mend that, as by making room, and scrub again: %w", r.Unnoted))
	}
	return err
}

// damage is Err of what is damaged.
func (r *ScrubReport) damage() error {
	faults, records := 0, 0
	for _, f := range r.Faults {
		switch {
		case f.Known:
		case f.isRecord():
			faults, records = faults+1, records+1
		default:
			faults++
		}
	}
	if faults == 0 {
		return nil
	}
	hurt := len(r.Images())
	text := fmt.Sprintf("the store has %s, which %s %s", words.Count(faults, "fault"),
		words.Verb(faults, "damages", "damage"), words.Count(hurt, "backup"))
	if hurt > records {
		text += "; back those boxes up again, what their disks still hold is healed by that; " +
			"`testbox store copy` from a second copy of the store heals all of it"
	}
	if records > 0 {
		text += fmt.Sprintf("; %s cannot be read, which no new backup heals: "+
			"a second copy of the store does, or the backup is given up, as said above",
			words.Count(records, "record"))
	}
	return errors.New(text)
}

func (f Fault) isRecord() bool { return strings.HasPrefix(f.File, recordPrefix) }

// Images lists the backups that lose something, as "BOX ID", sorted.
func (r *ScrubReport) Images() (out []string) {
	for _, f := range r.Faults {
		for _, c := range f.Costs {
			out = append(out, c.Box+" "+c.ID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// String is the report for people.
func (r *ScrubReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "read %s: %s in %s and %s %s whole\n",
		image.SizeText(r.Bytes), words.Count(r.Objects, "object"), words.Count(r.Packs, "pack"),
		words.Count(r.Records, "record"), words.Verb(r.Objects+r.Records, "is", "are"))
	for _, f := range r.Faults {
		fmt.Fprintln(&b, f)
	}
	for _, name := range r.Foreign {
		fmt.Fprintf(&b, "%s is nothing of the store\n", name)
	}
	return b.String()
}
