package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Place is where a partition is on its disk, in blocks of that disk.
type Place struct {
	Number        uint32
	Start, Blocks uint64
}

// Key is what a partition is known by, on whatever disk it is. It is "" if that is not
// known.
func (p *Partition) Key() string {
	switch {
	case p == nil:
		return ""
	case p.GUID != "":
		return strings.ToLower(p.GUID)
	case p.MBR != "":
		return MBRKey(p.MBR, p.Number)
	}
	return ""
}

// MBRKey is the key of a partition of an MBR.
func MBRKey(signature string, number uint32) string {
	return fmt.Sprintf("%s-%02d", strings.ToLower(signature), number)
}

// PutBack is what became of the boot entries of an image.
type PutBack struct {
	Put  []Number `json:"put,omitempty" doc:"the boot entries that were added, or that were there and came back into the order"`
	Left []string `json:"left,omitempty" doc:"what was not put back, and why, in sentences"`
}

// PutBack adds the boot entries of a recorded state that start a system from one of
// the given partitions, unless there are such entries. places has where each partition
// is now, by its key. now is the present state. Nothing is ever removed, and no other
// variable is written.
func (d Dir) PutBack(now, recorded *State, places map[string]Place) *PutBack {
	var done PutBack
	var wanted []Entry // disk entries of the record as they are numbered now
	for _, e := range recorded.Ordered() {
		if e.Kind != DiskEntry || e.Partition.Key() == "" || e.File == "" {
			continue // the firmware makes entries for whole disks by itself
		}
		is := now.starts(&e)
		if is == nil {
			n, err := d.putBack(now, &e, places)
			if err != nil {
				done.Left = append(done.Left, fmt.Sprintf("The boot entry %s (%s) was not put back: %v.", e.Number, e.label(), err))
				continue
			}
			e.Number = n
			now.Entries = append(now.Entries, e)
			slices.SortFunc(now.Entries, func(a, b Entry) int { return int(a.Number) - int(b.Number) })
			done.Put = append(done.Put, n)
			is = &e
		} else if !slices.Contains(now.Order, is.Number) && !slices.Contains(done.Put, is.Number) {
			done.Put = append(done.Put, is.Number) // such as after a power cut between the entry and the order
		}
		wanted = append(wanted, *is)
	}
	if len(done.Put) == 0 {
		return &done
	}
	order := now.insert(wanted, done.Put)
	if err := d.writeOrder(order); err != nil {
		done.Left = append(done.Left, fmt.Sprintf("The entries that were put back (%s) are not in the boot order, which stays %s: %v.",
			Numbers(done.Put), Numbers(now.Order), err))
		return &done
	}
	now.Order = order
	return &done
}

// label names an entry.
func (e *Entry) label() string {
	if e.Name == "" {
		return e.File
	}
	return fmt.Sprintf("%s, %s", e.Name, e.File)
}

// starts returns the entry that starts what another one does, or nil.
func (s *State) starts(as *Entry) *Entry {
	for i := range s.Entries {
		e := &s.Entries[i]
		if e.Partition.Key() == as.Partition.Key() && strings.EqualFold(e.File, as.File) {
			return e
		}
	}
	return nil
}

// putBack adds one entry, and returns its number.
func (d Dir) putBack(now *State, e *Entry, places map[string]Place) (Number, error) {
	at, is := places[e.Partition.Key()]
	if !is {
		return 0, fmt.Errorf("its partition %s is on no disk that was restored", e.Partition.Key())
	}
	option, err := relocate(e.Option, at)
	if err != nil {
		return 0, err
	}
	// Without this an entry would be added at each restore, since none that is there would be the one of the record.
	will, err := parseOption(e.Number, option)
	if err != nil || will.Kind != DiskEntry || will.Partition.Key() != e.Partition.Key() || !strings.EqualFold(will.File, e.File) {
		return 0, errors.New("its bytes in the backup say something else than what is recorded of it")
	}
	if is := now.optionBytes(); is+len(option) > maxOptions {
		return 0, fmt.Errorf("the boot entries have %d bytes already, and to fill the memory of the firmware could damage it; "+
			"`efibootmgr -B -b NUMBER` removes an entry that nobody needs", is)
	}
	n, err := now.free(e.Number)
	if err != nil {
		return 0, err
	}
	name := "Boot" + n.String()
	if err := d.write(name, option, true); err != nil {
		return 0, err
	}
	back, err := d.Read(name, Global)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read it back: %w", err)
	case !bytes.Equal(back, option):
		return 0, errors.New("the firmware took it without an error, and did not keep it")
	}
	return n, nil
}

// maxOptions is how many bytes all boot entries may have for one more to be added. Entries of
// disks that are gone stay for ever, so that each new image adds some. Usual firmware has 64 KiB for all variables.
const maxOptions = 16 << 10

// optionBytes is how many bytes all boot entries have.
func (s *State) optionBytes() (n int) {
	for i := range s.Entries {
		if b := s.Entries[i].Option; b != nil {
			n += len(b)
		} else {
			n += maxOption // too long to be kept
		}
	}
	return n
}

// free returns a number that no entry has. The wanted one comes first, also if the order
// still names it, but not before the network. Others must not be in the order, since they
// would get a place there that was another entry's.
func (s *State) free(wanted Number) (Number, error) {
	if len(s.Entries) >= MaxEntries {
		return 0, errors.New("the firmware has too many boot entries already")
	}
	place, network := slices.Index(s.Order, wanted), slices.IndexFunc(s.Order, s.isNetwork)
	if s.Entry(wanted) == nil && (place < 0 || place > network) {
		return wanted, nil
	}
	for _, n := range countUp(2*MaxEntries + 1) {
		if s.Entry(n) == nil && !slices.Contains(s.Order, n) {
			return n, nil
		}
	}
	return 0, errors.New("the firmware has no free number for it")
}

func countUp(n int) []Number {
	list := make([]Number, n)
	for i := range list {
		list[i] = Number(i)
	}
	return list
}

// insert puts new entries into the order. wanted has the entries of the recorded order,
// and new ones are among them. A new one comes behind the one that it followed there.
// The first ones come behind the network.
func (s *State) insert(wanted []Entry, added []Number) []Number {
	order := slices.Clone(s.Order)
	at := max(slices.IndexFunc(order, s.isNetwork), 0) // it may not be first, if the firmware did not let it
	for at < len(order) && s.isNetwork(order[at]) {
		at++
	}
	for _, e := range wanted {
		if i := slices.Index(order, e.Number); i >= 0 {
			at = max(at, i+1)
			continue
		}
		if !slices.Contains(added, e.Number) {
			continue
		}
		order = slices.Insert(order, at, e.Number)
		at++
	}
	return order
}

func (s *State) isNetwork(n Number) bool {
	e := s.Entry(n)
	return e != nil && e.Kind == NetworkEntry
}

// relocate returns a load option whose partition has another place. Its device path
// then begins with the partition, so that the firmware looks for it on all disks.
func relocate(option []byte, to Place) ([]byte, error) {
	if len(option) == 0 {
		return nil, errors.New("its bytes are not in the backup, because they were too many")
	}
	var e Entry
	if len(option) < 8 {
		return nil, errors.New("its bytes in the backup are too few")
	}
	path, err := e.splitOption(option)
	if err != nil {
		return nil, err
	}
	off := 6 // of the path in the option
	for option[off] != 0 || option[off+1] != 0 {
		off += 2
	}
	off += 2
	from := 0
	for {
		rest := path[from:]
		if len(rest) < 4 || int(binary.LittleEndian.Uint16(rest[2:])) < 4 || int(binary.LittleEndian.Uint16(rest[2:])) > len(rest) {
			return nil, errors.New("its device path names no partition")
		}
		if rest[0] == typeMedia && rest[1] == subHardDrive {
			break
		}
		from += int(binary.LittleEndian.Uint16(rest[2:]))
	}
	moved := slices.Clone(path[from:])
	if binary.LittleEndian.Uint16(moved[2:]) != 4+hardDriveLen {
		return nil, errors.New("its device path has a partition that cannot be")
	}
	binary.LittleEndian.PutUint32(moved[4:], to.Number)
	binary.LittleEndian.PutUint64(moved[8:], to.Start)
	binary.LittleEndian.PutUint64(moved[16:], to.Blocks)
	b := slices.Clone(option[:off])
	binary.LittleEndian.PutUint16(b[4:], uint16(len(moved)))
	b = append(b, moved...)
	return append(b, option[off+len(path):]...), nil
}
