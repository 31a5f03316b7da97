package inventory

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// pciNames are the names of a pci.ids file (https://pci-ids.ucw.cz). These are
// its lines:
//
//	vvvv  vendor name
//	<tab>dddd  device name
//	<tab><tab>ssss nnnn  subsystem name (vendor and device of the card)
//	C cc  class name
//	<tab>ss  sub-class name
//	<tab><tab>pp  programming interface name
type pciNames struct {
	vendors    map[uint16]string
	devices    map[uint32]string // vendor<<16 | device
	subsystems map[uint64]string // key of devices<<32 | card vendor<<16 | card device
	classes    map[uint8]string
	subclasses map[uint16]string // class<<8 | sub-class
}

// Limits of the list. The real one has 1.6 MB and 45000 lines.
const (
	maxPCIIDs     = 16 << 20
	maxPCIIDsLine = 1024
)

// parsePCIIDs reads a list. Lines that it does not understand are skipped,
// because only a name is lost, and the device is shown with its numbers.
func parsePCIIDs(text []byte) (*pciNames, error) {
	if len(text) > maxPCIIDs {
		return nil, fmt.Errorf("the list of PCI names is larger than %d bytes", maxPCIIDs)
	}
	p := pciParser{names: pciNames{
		vendors: map[uint16]string{}, devices: map[uint32]string{}, subsystems: map[uint64]string{},
		classes: map[uint8]string{}, subclasses: map[uint16]string{},
	}}
	for line := range bytes.Lines(text) {
		if len(line) <= maxPCIIDsLine {
			p.line(strings.TrimRight(string(line), "\r\n"))
		}
	}
	return &p.names, nil
}

// pciParser has the vendor, device or class that the following deeper lines
// belong to.
type pciParser struct {
	names   pciNames
	section pciSection
	vendor  uint16
	device  uint32
	hasDev  bool
	class   uint8
}

type pciSection int

const (
	pciNone pciSection = iota // before the first vendor, or in a part not known here
	pciVendor
	pciClass
)

func (p *pciParser) line(s string) {
	body := strings.TrimLeft(s, "\t")
	depth := len(s) - len(body)
	switch {
	case body == "" || body[0] == '#':
	case depth == 0:
		p.top(body)
	case p.section == pciVendor:
		p.inVendor(depth, body)
	case p.section == pciClass && depth == 1:
		if n, name, ok := number(body, 2); ok {
			p.names.subclasses[uint16(p.class)<<8|uint16(n)] = name
		}
	}
}

func (p *pciParser) top(body string) {
	p.section, p.hasDev = pciNone, false
	if rest, ok := strings.CutPrefix(body, "C "); ok {
		if n, name, ok := number(rest, 2); ok {
			p.section, p.class = pciClass, uint8(n)
			p.names.classes[p.class] = name
		}
		return
	}
	if n, name, ok := number(body, 4); ok {
		p.section, p.vendor = pciVendor, uint16(n)
		p.names.vendors[p.vendor] = name
	}
}

func (p *pciParser) inVendor(depth int, body string) {
	switch depth {
	case 1:
		n, name, ok := number(body, 4)
		if p.hasDev = ok; ok {
			p.device = uint32(p.vendor)<<16 | uint32(n)
			p.names.devices[p.device] = name
		}
	case 2:
		if len(body) < 5 || body[4] != ' ' || !p.hasDev {
			return
		}
		card, err := strconv.ParseUint(body[:4], 16, 16)
		n, name, ok := number(body[5:], 4)
		if err == nil && ok {
			p.names.subsystems[uint64(p.device)<<32|card<<16|uint64(n)] = name
		}
	}
}

// number reads "hhhh  name", where the number has that many hexadecimal digits.
func number(s string, digits int) (n uint64, name string, ok bool) {
	if len(s) < digits+2 || s[digits] != ' ' {
		return 0, "", false
	}
	n, err := strconv.ParseUint(s[:digits], 16, 16)
	name = clean(s[digits:])
	return n, name, err == nil && name != ""
}
