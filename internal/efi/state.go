package efi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// State is the state of a box's firmware, as a backup records it. Empty fields are
// unknown. On a BIOS machine only Kind, Vendor, Version, Date and NVMe say anything.
type State struct {
	Kind    string `json:"kind" doc:"BIOS or UEFI"`
	Bits    int    `json:"bits,omitempty" doc:"of UEFI: 32 or 64"`
	Vendor  string `json:"vendor,omitempty" doc:"maker of the firmware, as SMBIOS has it"`
	Version string `json:"version,omitempty" doc:"of the firmware, as SMBIOS has it"`
	Date    string `json:"date,omitempty" doc:"of the firmware, as SMBIOS has it"`
	// SecureBoot is "on", "off", "on, setup mode" or "off, setup mode".
	SecureBoot string   `json:"secureBoot,omitempty" doc:"on or off, and whether it is in setup mode"`
	Order      []Number `json:"order,omitempty" doc:"BootOrder"`
	Current    *Number  `json:"current,omitempty" doc:"the entry that started this boot"`
	Next       *Number  `json:"next,omitempty" doc:"the entry for the next boot alone"`
	// Entries are all boot entries, sorted by number, also those that are not in Order.
	Entries   []Entry     `json:"entries,omitempty" doc:"all boot entries, by their numbers, also those that are not in the order"`
	Variables []Variable  `json:"variables,omitempty" doc:"variables that are worth to be compared"`
	NVMe      []Namespace `json:"nvme,omitempty" doc:"namespaces of NVMe disks"`
	Problems  []string    `json:"problems,omitempty" doc:"what could not be read"`
}

// The values of State.Kind.
const (
	BIOS = "BIOS"
	UEFI = "UEFI"
)

// Kind says what a boot entry starts from.
type Kind string

// The kinds of boot entries.
const (
	DiskEntry     Kind = "disk"
	NetworkEntry  Kind = "network"
	FirmwareEntry Kind = "firmware" // a program of the firmware's own, such as its setup or a shell
	OtherEntry    Kind = "other"    // its device path is not understood
)

// Entry is a boot entry (the variable Boot####).
type Entry struct {
	Number Number `json:"number"`
	Name   string `json:"name,omitempty"`
	Active bool   `json:"active,omitempty" doc:"the firmware tries it"`
	Hidden bool   `json:"hidden,omitempty" doc:"the firmware does not show it in its menu"`
	Kind   Kind   `json:"kind" doc:"disk, network, firmware (a program of its own), or other"`
	Path   string `json:"path,omitempty" doc:"the device path, for people"`
	MAC    string `json:"mac,omitempty" doc:"of the network card, lower case with colons"`
	URI    string `json:"uri,omitempty" doc:"of a network entry"`
	// Partition is where File is. It is nil if the entry names no partition.
	Partition *Partition `json:"partition,omitempty" doc:"the partition that it names"`
	File      string     `json:"file,omitempty" doc:"what it starts, with the path in the file system"`
	Option    []byte     `json:"option,omitempty" doc:"the bytes of the variable, unless they are too many"`
}

// Partition is the partition of a boot entry.
type Partition struct {
	Number uint32 `json:"number"`
	Start  uint64 `json:"start" doc:"in blocks of its disk"`
	Blocks uint64 `json:"blocks"` // how many it has
	GUID   string `json:"guid,omitempty" doc:"of a GPT, lower case"`
	MBR    string `json:"mbr,omitempty" doc:"of an MBR: the signature of its disk, 8 lower-case hexadecimal digits"`
	// Disk is the kernel name of the disk that the partition is on, and Volume the
	// number of its FAT file system, such as "4A3B-0C1D". They are "" if there is no
	// such disk or file system.
	Disk   string `json:"disk,omitempty"`
	Volume string `json:"volume,omitempty" doc:"number of its FAT file system"`
}

func (p *Partition) String() string {
	table, id := "GPT", p.GUID
	if id == "" {
		table, id = "MBR", p.MBR
	}
	return fmt.Sprintf("HD(%d,%s,%s,0x%x,0x%x)", p.Number, table, id, p.Start, p.Blocks)
}

// Variable is a variable that is worth to be compared. Its value is kept if it is
// short and no secret can be in it.
type Variable struct {
	Name   string `json:"name"`
	Vendor string `json:"vendor"` // GUID
	Size   int    `json:"size"`
	SHA256 string `json:"sha256" doc:"of the value"`
	Value  string `json:"value,omitempty" doc:"in hexadecimal digits; left out if it is long, or could hold a secret"`
}

// Namespace is a namespace of an NVMe disk.
type Namespace struct {
	Disk    string      `json:"disk"` // kernel name
	Serial  string      `json:"serial,omitempty"`
	ID      uint32      `json:"id"`
	Active  []uint32    `json:"active,omitempty" doc:"all namespaces that the controller has"`
	Blocks  uint64      `json:"blocks,omitempty"` // of the namespace
	Formats []LBAFormat `json:"formats,omitempty" doc:"that it can have"`
	Format  int         `json:"format" doc:"index in formats of the one that it has"`
}

// LBAFormat is a format that an NVMe namespace can have.
type LBAFormat struct {
	Block       int `json:"block" doc:"bytes of a block"`
	Metadata    int `json:"metadata,omitempty" doc:"bytes beside each block"`
	Performance int `json:"performance" doc:"0 is the best, 3 the worst"`
}

// Limits of a state.
const (
	MaxEntries    = 256
	MaxVariables  = 64
	MaxNamespaces = 64
	maxFormats    = 64
	maxActive     = 1024
	maxProblems   = 64
	maxLine       = 256 // bytes of other texts
	// MaxState is how many bytes the JSON of a state has at most. Real ones have some
	// 10 KiB. Each record of a backup has one.
	MaxState = 256 << 10
)

// size is the length of the state's JSON.
func (s *State) size() int {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // the fields are plain
	}
	return len(b)
}

// fit leaves out what is too much for a record. Only broken or hostile firmware has so
// much.
func (s *State) fit() {
	if s.size() <= MaxState {
		return
	}
	for i := range s.Entries {
		s.Entries[i].Option = nil
	}
	for s.size() > MaxState && len(s.Entries) > 0 {
		s.Entries = s.Entries[:len(s.Entries)/2]
	}
	s.problem(errors.New("the boot entries are too long, so that some are left out, and none can be put back"))
}

// Entry returns the entry with a number, or nil.
func (s *State) Entry(n Number) *Entry {
	for i := range s.Entries {
		if s.Entries[i].Number == n {
			return &s.Entries[i]
		}
	}
	return nil
}

// Ordered returns the entries in the order in which the firmware tries them. Entries
// that are not in that order are left out.
func (s *State) Ordered() []Entry {
	var list []Entry
	for _, n := range s.Order {
		if e := s.Entry(n); e != nil {
			list = append(list, *e)
		}
	}
	return list
}

// Check returns an error if a value of the state cannot be true, or if there is too
// much of something.
func (s *State) Check() error {
	switch {
	case s.Kind != BIOS && s.Kind != UEFI:
		return fmt.Errorf("the firmware is of the kind %.40q", s.Kind)
	case s.Bits != 0 && s.Bits != 32 && s.Bits != 64:
		return fmt.Errorf("the firmware has %d bits", s.Bits)
	case len(s.Order) > MaxEntries || len(s.Entries) > MaxEntries:
		return fmt.Errorf("the firmware has more than %d boot entries", MaxEntries)
	case len(s.Variables) > MaxVariables || len(s.NVMe) > MaxNamespaces || len(s.Problems) > maxProblems:
		return errors.New("the state of the firmware has too much of something")
	}
	if n := s.size(); n > MaxState {
		return fmt.Errorf("the state of the firmware has %d bytes, more than %d", n, MaxState)
	}
	texts := append([]string{s.Vendor, s.Version, s.Date, s.SecureBoot}, s.Problems...)
	for i := range s.Entries {
		e := &s.Entries[i]
		if i > 0 && e.Number <= s.Entries[i-1].Number {
			return fmt.Errorf("the boot entries of the firmware are not in order at %s", e.Number)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("boot entry %s: %w", e.Number, err)
		}
	}
	for _, v := range s.Variables {
		if v.Size < 0 || v.Size > maxVariable || !isHex(v.SHA256, 64) || !isHex(v.Value, len(v.Value)) || len(v.Value) > 2*maxValue {
			return fmt.Errorf("the variable %.40q of the firmware cannot be so", v.Name)
		}
		texts = append(texts, v.Name, v.Vendor)
	}
	for i := range s.NVMe {
		n := &s.NVMe[i]
		if len(n.Formats) > maxFormats || len(n.Active) > maxActive || n.Format < 0 || n.Format >= max(len(n.Formats), 1) {
			return fmt.Errorf("the NVMe namespace of %.40q cannot be so", n.Disk)
		}
		for _, f := range n.Formats {
			if f.Block < 0 || f.Metadata < 0 || f.Performance < 0 || f.Performance > 3 {
				return fmt.Errorf("the NVMe namespace of %.40q has a format that cannot be", n.Disk)
			}
		}
		texts = append(texts, n.Disk, n.Serial)
	}
	for _, t := range texts {
		if !isClean(t, maxLine) {
			return fmt.Errorf("the state of the firmware has the text %.40q", t)
		}
	}
	return nil
}

func (e *Entry) check() error {
	switch e.Kind {
	case DiskEntry, NetworkEntry, FirmwareEntry, OtherEntry:
	default:
		return fmt.Errorf("it is of the kind %.40q", e.Kind)
	}
	if len(e.Option) > maxOption {
		return fmt.Errorf("it has %d bytes, more than %d", len(e.Option), maxOption)
	}
	texts := map[string]int{e.Name: maxName, e.Path: maxPathText, e.MAC: maxLine, e.URI: maxFile, e.File: maxFile}
	if p := e.Partition; p != nil {
		for _, t := range []string{p.GUID, p.MBR, p.Disk, p.Volume} {
			texts[t] = maxLine
		}
	}
	for t, limit := range texts {
		if !isClean(t, limit) {
			return fmt.Errorf("it has the text %.40q", t)
		}
	}
	return nil
}

func isHex(s string, n int) bool { return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" }
