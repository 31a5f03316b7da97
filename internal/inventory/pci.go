package inventory

import (
	"path"
	"regexp"
	"strconv"
	"strings"
)

// maxDevices limits the number of PCI functions, of network cards, and of
// disks. Big servers with virtual functions have some hundred.
const maxDevices = 2048

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func (c *collector) collectPCI() {
	const top = "bus/pci/devices"
	entries, err := c.sys.list(top)
	if err != nil {
		if !missing(err) { // a machine without PCI is possible
			c.problem("PCI: %v", err)
		}
		return
	}
	names := c.pciNames()
	for _, e := range entries {
		if !pciAddress.MatchString(e.Name()) {
			continue
		}
		if len(c.inv.PCI) == maxDevices {
			c.problem("PCI: more than %d functions, the rest is left out", maxDevices)
			return
		}
		p := c.readPCI(path.Join(top, e.Name()))
		p.Address = e.Name()
		names.fill(&p)
		c.inv.PCI = append(c.inv.PCI, p)
	}
}

func (c *collector) pciNames() *pciNames {
	if c.PCIIDs == nil {
		return &pciNames{}
	}
	text, err := timed(c.sys.guard, c.PCIIDs)
	if err == nil {
		var names *pciNames
		if names, err = parsePCIIDs(text); err == nil {
			return names
		}
	}
	c.problem("names of PCI devices: %v", err)
	return &pciNames{}
}

func (c *collector) readPCI(dir string) PCI {
	hex := func(name string) string { return strings.TrimPrefix(c.sys.attr(path.Join(dir, name)), "0x") }
	p := PCI{
		Class: hex("class"), Vendor: hex("vendor"), Device: hex("device"), Revision: hex("revision"),
		SubVendor: hex("subsystem_vendor"), SubDevice: hex("subsystem_device"),
		Driver: c.sys.linkBase(path.Join(dir, "driver")),
	}
	width := c.sys.attr(path.Join(dir, "current_link_width"))
	if speed := c.sys.attr(path.Join(dir, "current_link_speed")); speed != "" && width != "" && width != "0" {
		p.Link = speed + " x" + width
	}
	return p
}

// fill sets the names of p that the list has.
func (n *pciNames) fill(p *PCI) {
	vendor, device := hexNumber(p.Vendor), hexNumber(p.Device)
	class := hexNumber(p.Class)
	key := vendor<<16 | device
	p.VendorName = n.vendors[uint16(vendor)]
	p.DeviceName = n.devices[uint32(key)]
	p.SubsystemName = n.subsystems[key<<32|hexNumber(p.SubVendor)<<16|hexNumber(p.SubDevice)]
	if p.ClassName = n.subclasses[uint16(class>>8)]; p.ClassName == "" {
		p.ClassName = n.classes[uint8(class>>16)]
	}
}

// hexNumber is 0 if s is not a number. Vendor 0 and class 0 have no names.
func hexNumber(s string) uint64 {
	n, err := strconv.ParseUint(s, 16, 24)
	if err != nil {
		return 0
	}
	return n
}
