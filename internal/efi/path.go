package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf16"
)

// Types of the nodes of a device path, and those of their sub-types that are
// understood here (UEFI specification 2.10, chapter 10).
const (
	typeHardware  = 0x01
	typeACPI      = 0x02
	typeMessaging = 0x03
	typeMedia     = 0x04
	typeBBS       = 0x05
	typeEnd       = 0x7f

	subPCI        = 1
	subMemory     = 3
	subVendor     = 4
	subController = 5

	subATAPI     = 1
	subSCSI      = 2
	subFibre     = 3
	subUSB       = 5
	subMsgVendor = 10
	subMAC       = 11
	subIPv4      = 12
	subIPv6      = 13
	subUSBClass  = 15
	subUSBWWID   = 16
	subUnit      = 17
	subSATA      = 18
	subISCSI     = 19
	subVLAN      = 20
	subSAS       = 22
	subNVMe      = 23
	subURI       = 24
	subSD        = 26
	subWiFi      = 28
	subEMMC      = 29
	subDNS       = 31

	subHardDrive   = 1
	subCDROM       = 2
	subMediaVendor = 3
	subFile        = 4
	subFvFile      = 6
	subFv          = 7
	subRAMDisk     = 9

	subEndAll      = 0xff
	subEndInstance = 0x01
)

// Limits of a device path.
const (
	maxNodes    = 64
	maxPathText = 1024 // bytes
	maxFile     = 512  // bytes
)

// node is a node of a device path.
type node struct {
	kind, sub byte
	data      []byte // without the four bytes of the header
}

func (n node) is(kind, sub byte) bool { return n.kind == kind && n.sub == sub }

// nodes cuts the first device path of b into its nodes. The end is none of them.
// What follows the first path is passed over, since a load option may have more.
func nodes(b []byte) ([]node, error) {
	var all []node
	for len(b) >= 4 {
		n := int(binary.LittleEndian.Uint16(b[2:]))
		switch {
		case n < 4 || n > len(b):
			return all, fmt.Errorf("a device path has a node of %d bytes, and %d are left", n, len(b))
		case b[0]&0x7f == typeEnd: // old firmware wrote 0xff for it
			return all, nil
		case len(all) == maxNodes:
			return all, fmt.Errorf("a device path has more than %d nodes", maxNodes)
		}
		all = append(all, node{b[0], b[1], b[4:n]})
		b = b[n:]
	}
	return all, errors.New("a device path has no end")
}

// Signature types of a hard drive's node.
const (
	signatureMBR  = 1
	signatureGUID = 2
)

// hardDriveLen is the length of the data of a hard drive's node.
const hardDriveLen = 38

// hardDrive reads the node of a partition.
func hardDrive(b []byte) (*Partition, error) {
	if len(b) != hardDriveLen {
		return nil, fmt.Errorf("the node of a partition has %d bytes instead of %d", len(b), hardDriveLen)
	}
	p := &Partition{
		Number: binary.LittleEndian.Uint32(b), Start: binary.LittleEndian.Uint64(b[4:]), Blocks: binary.LittleEndian.Uint64(b[12:]),
	}
	switch b[37] {
	case signatureGUID:
		p.GUID = guid(b[20:36])
	case signatureMBR:
		p.MBR = fmt.Sprintf("%08x", binary.LittleEndian.Uint32(b[20:]))
	}
	return p, nil
}

// text16 decodes UTF-16 up to the first zero.
func text16(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// lenovoPXE is the data of the vendor's node by which Lenovo's firmware names an entry
// that tries all network cards. Such an entry has no MAC.
var lenovoPXE = vendorNode{"bc7838d2-0f82-4d60-8316-c068ee79d25b", "78a84aaf2b2afc4ea79cf5cc8f3d3803"}

type vendorNode struct{ vendor, data string }

func vendorOf(n node) vendorNode {
	if len(n.data) < 16 {
		return vendorNode{}
	}
	return vendorNode{guid(n.data), fmt.Sprintf("%x", n.data[16:])}
}

// Device types of a BBS node, which stands for a device that is booted as by a BIOS.
const bbsNetwork = 6

// describe fills in what a device path says of an entry.
func (e *Entry) describe(all []node) error {
	var text []string
	var files []string
	var disk, network, firmware bool
	var firstErr error
	for _, n := range all {
		text = append(text, n.String())
		switch {
		case n.is(typeMedia, subHardDrive):
			p, err := hardDrive(n.data)
			if err != nil && firstErr == nil {
				firstErr = err
			}
			if e.Partition == nil {
				e.Partition = p
			}
			disk = true
		case n.is(typeMedia, subFile):
			files = append(files, text16(n.data))
		case n.is(typeMedia, subFvFile), n.is(typeMedia, subFv):
			firmware = true
		case n.is(typeMessaging, subMAC):
			network = true
			e.MAC = n.mac()
		case n.is(typeMessaging, subURI):
			network = true
			e.URI = clean(string(n.data), maxFile)
		case n.is(typeMessaging, subIPv4), n.is(typeMessaging, subIPv6), n.is(typeMessaging, subWiFi), n.is(typeMessaging, subDNS):
			network = true
		case n.is(typeMessaging, subMsgVendor):
			network = network || vendorOf(n) == lenovoPXE
		case n.kind == typeBBS && len(n.data) >= 2:
			network = network || binary.LittleEndian.Uint16(n.data) == bbsNetwork
			disk = disk || !network
		case n.is(typeMedia, subCDROM), n.is(typeMessaging, subISCSI), n.isDisk():
			disk = true
		}
	}
	e.Path = clean(strings.Join(text, "/"), maxPathText)
	e.File = clean(joinFiles(files), maxFile)
	switch { // a disk behind a network card is a disk, since nothing of ours is asked there
	case firmware:
		e.Kind = FirmwareEntry
	case disk:
		e.Kind = DiskEntry
	case network:
		e.Kind = NetworkEntry
	case e.File != "":
		e.Kind = DiskEntry // a short path, which the firmware looks for on all disks
	default:
		e.Kind = OtherEntry
	}
	return firstErr
}

// isDisk reports whether a node is one of a disk.
func (n node) isDisk() bool {
	if n.kind != typeMessaging {
		return false
	}
	switch n.sub {
	case subATAPI, subSCSI, subFibre, subUSB, subUSBClass, subUSBWWID, subUnit, subSATA, subSAS, subNVMe, subSD, subEMMC:
		return true
	}
	return false
}

// joinFiles joins the nodes of a path to a file. Each of them may have a part of it.
func joinFiles(files []string) string {
	var b strings.Builder
	for _, f := range files {
		if b.Len() > 0 && !strings.HasPrefix(f, `\`) && !strings.HasSuffix(b.String(), `\`) {
			b.WriteByte('\\')
		}
		b.WriteString(f)
	}
	return b.String()
}

// mac returns the address of a network card, or "" if it is none of six bytes.
func (n node) mac() string {
	if len(n.data) < 6 {
		return ""
	}
	m := n.data[:6]
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// String writes a node for people, much as the UEFI specification does.
func (n node) String() string {
	d := n.data
	u16 := func(off int) uint16 { return binary.LittleEndian.Uint16(d[off:]) }
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(d[off:]) }
	switch {
	case n.is(typeHardware, subPCI) && len(d) >= 2:
		return fmt.Sprintf("Pci(0x%x,0x%x)", d[1], d[0])
	case n.is(typeHardware, subController) && len(d) >= 4:
		return fmt.Sprintf("Ctrl(0x%x)", u32(0))
	case n.is(typeHardware, subVendor) && len(d) >= 16:
		return fmt.Sprintf("VenHw(%s)", guid(d))
	case n.kind == typeACPI && n.sub == 1 && len(d) >= 8:
		if u32(0) == 0x0a0341d0 || u32(0) == 0x0a0841d0 { // PNP0A03 and PNP0A08
			return fmt.Sprintf("PciRoot(0x%x)", u32(4))
		}
		return fmt.Sprintf("Acpi(0x%x,0x%x)", u32(0), u32(4))
	case n.is(typeMessaging, subSCSI) && len(d) >= 4:
		return fmt.Sprintf("Scsi(0x%x,0x%x)", u16(0), u16(2))
	case n.is(typeMessaging, subUSB) && len(d) >= 2:
		return fmt.Sprintf("USB(0x%x,0x%x)", d[0], d[1])
	case n.is(typeMessaging, subMsgVendor) && len(d) >= 16:
		return fmt.Sprintf("VenMsg(%s)", guid(d))
	case n.is(typeMessaging, subMAC) && len(d) >= 6:
		return fmt.Sprintf("MAC(%s)", n.mac())
	case n.is(typeMessaging, subIPv4) && len(d) >= 8:
		return "IPv4(" + netip.AddrFrom4([4]byte(d[4:8])).String() + ")"
	case n.is(typeMessaging, subIPv6) && len(d) >= 32:
		return "IPv6(" + netip.AddrFrom16([16]byte(d[16:32])).String() + ")"
	case n.is(typeMessaging, subUnit) && len(d) >= 1:
		return fmt.Sprintf("Unit(0x%x)", d[0])
	case n.is(typeMessaging, subSATA) && len(d) >= 6:
		return fmt.Sprintf("Sata(0x%x,0x%x,0x%x)", u16(0), u16(2), u16(4))
	case n.is(typeMessaging, subVLAN) && len(d) >= 2:
		return fmt.Sprintf("Vlan(%d)", u16(0))
	case n.is(typeMessaging, subNVMe) && len(d) >= 12:
		e := d[4:12] // most significant byte last
		return fmt.Sprintf("NVMe(0x%x,%02x-%02x-%02x-%02x-%02x-%02x-%02x-%02x)", u32(0), e[7], e[6], e[5], e[4], e[3], e[2], e[1], e[0])
	case n.is(typeMessaging, subURI):
		return "Uri(" + string(d) + ")"
	case n.is(typeMedia, subHardDrive):
		if p, err := hardDrive(d); err == nil {
			return p.String()
		}
	case n.is(typeMedia, subFile):
		return "File(" + text16(d) + ")"
	case n.is(typeMedia, subFvFile) && len(d) >= 16:
		return "FvFile(" + guid(d) + ")"
	case n.is(typeMedia, subFv) && len(d) >= 16:
		return "Fv(" + guid(d) + ")"
	case n.kind == typeBBS && len(d) >= 4:
		return fmt.Sprintf("BBS(0x%x)", u16(0))
	}
	return fmt.Sprintf("Path(%d,%d)", n.kind, n.sub)
}
