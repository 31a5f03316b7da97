package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/words"
)

// Fault is a part of a store that is not as it was written.
type Fault struct {
	File     string       // name of the blob, "index" for the snapshot of the index, or "" for objects that are in no pack
	Off, Len int64        // bytes of the file; Len 0 means the whole file
	Err      error        // what is wrong
	Objects  []object.Key // objects that were in this part, as far as known
	Costs    []Cost       // what images lose by the fault
	// Known says that an earlier scrub found the fault, and that no image needs
	// the lost objects any more. Either backups have stored them again, or the
	// images are deleted. The next collection removes what is damaged.
	Known bool
}

// Cost is what an image loses by a fault.
type Cost struct {
	Box, ID string
	Disk    string        // image name; "" for all disks
	Bytes   int64         // of the disk; 0 if Disk is ""
	Places  []image.Range // the first maxPlaces of them on the disk, in order
}

// maxPlaces limits the places that are kept for each image and fault.
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

// Where describes the fault without its costs.
func (f Fault) Where() string {
	s := f.File
	if s == "" && errors.Is(f.Err, chunk.ErrWrong) {
		return f.Err.Error()
	} else if s == "" {
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
	Objects int   // undamaged
	Records int   // undamaged
	Bytes   int64 // bytes read
	Faults  []Fault
	Foreign []string // files that do not belong to the store
	Unnoted error    // why the result could not be written down, or not everything repaired; else nil
}

// Err returns nil if the store has no fault, or only Known ones. The error says
// what helps. A new backup heals what packs have lost, but no record.
func (r *ScrubReport) Err() error {
	err := r.damage()
	if r.Unnoted != nil {
		err = errors.Join(err, fmt.Errorf("what was found could not be written down in the store, "+
			"so neither does `testbox image list` show it nor a new backup heal it; mend that, as by making room, and scrub again: %w", r.Unnoted))
	}
	return err
}

// damage returns the part of Err that is about faults.
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

// maxUnended is how many faults of a scrub that ended early are named.
const maxUnended = 20

// Unended is the error of a scrub that ended early, with what it had found. The
// consequences of that are not known.
func (r *ScrubReport) Unended(err error) error {
	if r == nil || len(r.Faults) == 0 {
		return err
	}
	errs := []error{err, fmt.Errorf("the scrub had found %s until then; what that costs is known at its end, so run it again",
		words.Count(len(r.Faults), "fault"))}
	for _, f := range r.Faults[:min(len(r.Faults), maxUnended)] {
		errs = append(errs, errors.New(f.Where()))
	}
	return errors.Join(errs...)
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

// String describes the report for people.
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
