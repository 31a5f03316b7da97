package main

import (
	"strings"

	"testbox-imaging/internal/efi"
)

// maxEntriesShown is how many boot entries of a kind are printed. Real firmware has fewer.
const maxEntriesShown = 20

// printFirmware prints the state of a box's firmware.
func printFirmware(p printer, s *efi.State) {
	p.printf("firmware: %s\n", printable(s.Firmware()))
	if s.SecureBoot != "" {
		p.printf("  Secure Boot: %s\n", printable(s.SecureBoot))
	}
	entries := func(title string, list []efi.Entry) {
		if len(list) == 0 {
			return
		}
		p.printf("  %s:\n", title)
		for _, e := range list[:min(len(list), maxEntriesShown)] {
			mark := ""
			if s.Current != nil && *s.Current == e.Number {
				mark = " (started this boot)"
			}
			p.printf("    %s%s\n", printable(e.String()), mark)
		}
		if more := len(list) - maxEntriesShown; more > 0 {
			p.printf("    and %d more; --json prints all\n", more)
		}
	}
	entries("boot order", s.Ordered())
	entries("not in the boot order", s.Unordered())
	if s.Next != nil {
		p.printf("  for the next boot alone: %s\n", s.Next)
	}
	for i := range s.NVMe {
		p.printf("  %s\n", printable(s.NVMe[i].String()))
	}
	if len(s.Variables) > 0 {
		var names []string
		for _, v := range s.Variables {
			names = append(names, printable(v.Name))
		}
		p.printf("  variables, which --json prints: %s\n", strings.Join(names, ", "))
	}
	for _, text := range s.Problems {
		p.printf("  not known: %s\n", printable(text))
	}
}

// firmwareDiff says how the firmware's states of two backups differ.
type firmwareDiff struct {
	Unknown string       `json:"unknown,omitempty"` // why they are not compared
	Changes []efi.Change `json:"changes"`
}

func diffFirmware(a, b *efi.State) *firmwareDiff {
	d := &firmwareDiff{Changes: []efi.Change{}}
	switch {
	case a == nil && b == nil:
		return nil // backups of files have none
	case a == nil:
		d.Unknown = "the first backup says nothing of the firmware"
	case b == nil:
		d.Unknown = "the second backup says nothing of the firmware"
	default:
		d.Changes = append(d.Changes, efi.Changes(a, b)...)
	}
	return d
}

func (d *firmwareDiff) print(p printer) {
	switch {
	case d == nil:
	case d.Unknown != "":
		p.printf("firmware: not compared, since %s\n", d.Unknown)
	case len(d.Changes) == 0:
		p.printf("firmware: the same\n")
	default:
		for _, c := range d.Changes {
			p.printf("firmware: %s\n", printable(c.String()))
		}
	}
}
