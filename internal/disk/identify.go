package disk

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// ids is what udev makes by-id names of, besides the identity.
type ids struct {
	vendor     string // SCSI inquiry
	page83     vpd83
	ata        ataInfo // zero if not known
	usbSerial  string  // of the USB device
	identifier string  // NVMe only, the kernel's wwid
}

// device reads a text attribute of the device that carries the disk.
func (n *node) device(name string) string {
	return clean(n.read(path.Join(n.deviceDir(), name), maxAttr))
}

// identify fills in the model, serial, World Wide Name and namespace.
func (n *node) identify(d *Disk) ids {
	switch {
	case strings.HasPrefix(n.name, "nvme"):
		return n.identifyNVMe(d)
	case d.Transport == "mmc" || d.Transport == "sd":
		d.Model, d.Serial = n.device("name"), known(n.device("serial"))
		return ids{}
	case d.Transport == "virtio":
		d.Serial = known(n.attr("serial"))
		return ids{}
	case d.Transport == "virtual":
		return ids{}
	}
	return n.identifySCSI(d)
}

// identifyNVMe reads the identity of a namespace. The kernel's wwid is the
// namespace's UUID, NGUID or EUI-64. If the namespace has none of them, the
// kernel makes a wwid of vendor, serial, model and namespace ("nvme.8086-..."),
// which tells nothing new.
func (n *node) identifyNVMe(d *Disk) ids {
	d.Model, d.Serial = n.device("model"), known(n.device("serial"))
	if id, err := strconv.Atoi(n.attr("nsid")); err == nil && id > 0 {
		d.NamespaceID = id
	}
	wwid := n.attr("wwid")
	d.WWN = wwnOf(wwid)
	return ids{identifier: wwid}
}

// identifySCSI reads what the disk answered at discovery. It prefers the pages
// of vital product data to the kernel's wwid. A disk may have several names,
// and kernel versions differ in which of them they take for the wwid. The wwid
// is used for disks without these pages.
func (n *node) identifySCSI(d *Disk) ids {
	dir := n.deviceDir()
	x := ids{
		vendor: n.device("vendor"),
		page83: parseVPD83(n.read(path.Join(dir, "vpd_pg83"), maxVPD)),
		ata:    parseVPD89(n.read(path.Join(dir, "vpd_pg89"), maxVPD)),
	}
	d.Model = n.device("model")
	if strings.HasPrefix(x.ata.model, d.Model) {
		d.Model = x.ata.model // the SCSI model is cut to 16 characters
	}
	d.Serial = known(parseVPD80(n.read(path.Join(dir, "vpd_pg80"), maxVPD)))
	if d.Serial == "" {
		d.Serial = known(n.device("serial")) // not a SCSI attribute, but other drivers (xvd, cciss) have it
	}
	if d.WWN = x.page83.wwn(); d.WWN == "" {
		d.WWN = wwnOf(n.device("wwid"))
	}
	if d.Transport == "usb" {
		x.usbSerial = n.usb("serial")
		if d.Serial == "" {
			d.Serial = known(x.usbSerial)
		}
	}
	return x
}

// usb reads an attribute of the nearest USB device above the disk.
func (n *node) usb(name string) string {
	for dir := n.dir; dir != "."; dir = path.Dir(dir) {
		if usbDev.MatchString(path.Base(dir)) {
			return clean(n.read(path.Join(dir, name), maxAttr))
		}
	}
	return ""
}

// multipathDir is the folder of the first path below an NVMe multipath disk.
// For nvme0n1 that is the hidden disk nvme0c0n1, which stands below a
// controller.
func (n *node) multipathDir() string {
	sub, ns, ok := strings.Cut(strings.TrimPrefix(n.name, "nvme"), "n")
	if !ok {
		return ""
	}
	entries, err := fs.ReadDir(n.sys, "block")
	if err != nil {
		return ""
	}
	for _, e := range entries { // ReadDir sorts, so the path is the same each time
		rest, ok := strings.CutPrefix(e.Name(), "nvme"+sub+"c")
		if _, of, cut := strings.Cut(rest, "n"); ok && cut && of == ns {
			return resolve(n.sys, "block/"+e.Name())
		}
	}
	return ""
}

// controllers lists the folders of an NVMe subsystem's controllers.
func (n *node) controllers(dir string) []string {
	if !strings.Contains(dir, "/nvme-subsystem/") {
		return nil
	}
	entries, err := fs.ReadDir(n.sys, dir)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, e := range entries {
		if nvmeCtrl.MatchString(e.Name()) {
			dirs = append(dirs, resolve(n.sys, path.Join(dir, e.Name())))
		}
	}
	return dirs
}

// wwnOf returns a kernel wwid if it is a worldwide name, else "". A wwid of
// kind t10 is none, since it is only vendor, model and serial in a row.
func wwnOf(wwid string) string {
	kind, id, ok := strings.Cut(strings.ToLower(wwid), ".")
	if !ok || kind != "naa" && kind != "eui" && kind != "uuid" || known(id) == "" {
		return ""
	}
	return kind + "." + id
}

// known returns s, or "" if s cannot tell one disk from another. That is so for
// an empty text, for one character repeated (blanks, zeros, all ones), and for
// words that makers leave in when they forget the serial.
func known(s string) string {
	s = strings.TrimSpace(s)
	bare := strings.ToLower(strings.NewReplacer("-", "", " ", "", "_", "", ".", "").Replace(s))
	if bare == "" || strings.Trim(bare, bare[:1]) == "" || strings.Contains(s, "?") {
		return ""
	}
	switch bare {
	case "none", "null", "unknown", "na", "n/a", "default", "notavailable", "serialnumber", "tobefilledbyo.e.m", "tobefilledbyoem":
		return ""
	}
	return s
}
