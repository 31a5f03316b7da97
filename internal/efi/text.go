package efi

import (
	"fmt"
	"strings"
)

// Firmware says which firmware it is, such as "UEFI, 64 bits, American Megatrends F.31
// of 03/11/2024".
func (s *State) Firmware() string {
	text := s.Kind
	if s.Bits != 0 {
		text += fmt.Sprintf(", %d bits", s.Bits)
	}
	if v := s.Release(); v != "" {
		text += ", " + v
	}
	return text
}

// Release is the maker of the firmware, its version and its date, or "".
func (s *State) Release() string {
	text := strings.TrimSpace(s.Vendor + " " + s.Version)
	if s.Date != "" {
		text = strings.TrimSpace(text + " of " + s.Date)
	}
	return text
}

// Unordered returns the entries that are not in the boot order. The firmware does not try
// them by itself.
func (s *State) Unordered() []Entry {
	all := s.candidates()
	return all[len(s.Ordered()):]
}

// String writes an entry for people: its number, its name and what it starts.
func (e *Entry) String() string {
	return strings.TrimSpace(e.Number.String()+" "+e.Name) + ": " + e.Starts()
}

// Starts says what an entry starts, and whether the firmware passes it over.
func (e *Entry) Starts() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case e.Kind == NetworkEntry:
		add("network")
		if e.MAC != "" {
			add("card %s", e.MAC)
		}
		if e.URI != "" {
			add("%s", e.URI)
		}
	case e.Kind == DiskEntry && (e.Partition != nil || e.File != ""):
		if e.File != "" {
			add("%s", e.File)
		}
		if e.Partition != nil {
			add("%s", e.Partition.place())
		}
	case e.Kind == FirmwareEntry:
		add("a program of the firmware")
	case e.Path != "":
		add("%s", e.Path)
	default:
		add("nothing that is understood")
	}
	if !e.Active {
		add("not active")
	}
	return strings.Join(parts, ", ")
}

// place says for people where a partition is.
func (p *Partition) place() string {
	id := p.GUID
	if id == "" {
		id = p.MBR
	}
	if p.Disk != "" {
		return fmt.Sprintf("partition %d of %s (%s)", p.Number, p.Disk, id)
	}
	return fmt.Sprintf("partition %d with the id %s, which no disk has", p.Number, id)
}

// String writes a namespace for people.
func (n *Namespace) String() string {
	text := fmt.Sprintf("namespace %d of %s", n.ID, n.Disk)
	if n.Serial != "" {
		text += " (" + n.Serial + ")"
	}
	return text + ": " + n.layout()
}

// layout says how a namespace is formatted, and how else it could be.
func (n *Namespace) layout() string {
	var parts []string
	if n.Blocks > 0 {
		parts = append(parts, fmt.Sprintf("%d blocks", n.Blocks))
	}
	var others []string
	for i, f := range n.Formats {
		switch {
		case i == n.Format:
			parts = append(parts, "format "+f.String())
		case f.Block > 0: // else the number is not in use
			others = append(others, f.String())
		}
	}
	if len(others) > 0 {
		parts = append(parts, "can have "+strings.Join(others, " or "))
	}
	if len(n.Active) > 1 {
		parts = append(parts, fmt.Sprintf("the controller has %d namespaces", len(n.Active)))
	}
	if len(parts) == 0 {
		return "nothing known"
	}
	return strings.Join(parts, ", ")
}

// String writes a format for people.
func (f LBAFormat) String() string {
	if f.Metadata > 0 {
		return fmt.Sprintf("%d+%d bytes", f.Block, f.Metadata)
	}
	return fmt.Sprintf("%d bytes", f.Block)
}

// String writes a variable for people.
func (v *Variable) String() string { return v.Name + ": " + v.content() }

func (v *Variable) content() string {
	if v.Value != "" {
		return v.Value
	}
	return fmt.Sprintf("%d bytes, SHA-256 %.12s...", v.Size, v.SHA256)
}

// Means says what a result that is bad means for the box, and "" of one that is good.
func (r Result) Means() string {
	switch r {
	case OrderIgnored:
		return "The maintenance system had put the network first in the boot order, and that did not stay. " +
			"The box may start a system on its disks without asking the server."
	case OrderFailed:
		return "The maintenance system could not put the network first in the boot order. " +
			"The box may start a system on its disks without asking the server."
	case OrderNone:
		return "The firmware has no boot entry for the network card that the box has booted from. " +
			"The box may start a system on its disks without asking the server."
	}
	return ""
}

// Do says what to do about a result that is bad, and "" of one that is good.
func (r Result) Do() string {
	switch r {
	case OrderIgnored:
		return "Put the network first in the setup of the firmware. If it is undone there too, look at the systems on the disks: " +
			"one of them puts itself first, such as at an update of its boot loader."
	case OrderFailed:
		return "Put the network first in the setup of the firmware, and see whether a password or a lock there protects the boot order."
	case OrderNone:
		return "Switch booting from the network on in the setup of the firmware, and put it first."
	}
	return ""
}
