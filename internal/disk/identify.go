package disk

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// ids are what the by-id names are made of besides the identity.
type ids struct {
	vendor     string // SCSI inquiry
	page83     vpd83
	ata        ataInfo // zero: not known
	usbSerial  string  // of the USB device
	identifier string  // NVMe: wwid as the kernel has it
}

// device reads a text attribute of the device that carries the disk.
func (n *node) device(name string) string {
	return clean(n.read(path.Join(n.deviceDir(), name), maxAttr))
}

// identify fills in model, serial, World Wide Name and namespace.
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

// identifyNVMe reads a namespace. The kernel's wwid is the namespace's UUID,
// NGUID or EUI-64; where it has none of them it makes one up of vendor,
// serial, model and namespace ("nvme.8086-..."), which adds nothing.
func (n *node) identifyNVMe(d *Disk) ids {
	d.Model, d.Serial = n.device("model"), known(n.device("serial"))
	if id, err := strconv.Atoi(n.attr("nsid")); err == nil && id > 0 {
		d.NamespaceID = id
	}
	wwid := n.attr("wwid")
	d.WWN = wwnOf(wwid)
	return ids{identifier: wwid}
}

// identifySCSI reads what the disk answered at discovery. The pages of vital
// product data are read rather than the kernel's wwid, because which of
// several names the kernel takes differs between its versions; the wwid is for
// disks whose pages are not there.
func (n *node) identifySCSI(d *Disk) ids {
	dir := n.deviceDir()
	x := ids{
		vendor: n.device("vendor"),
		page83: parseVPD83(n.read(path.Join(dir, "vpd_pg83"), maxVPD)),
		ata:    parseVPD89(n.read(path.Join(dir, "vpd_pg89"), maxVPD)),
	}
	d.Model = n.device("model")
	if strings.HasPrefix(x.ata.model, d.Model) {
		d.Model = x.ata.model // SCSI has only 16 characters of it
	}
	d.Serial = known(parseVPD80(n.read(path.Join(dir, "vpd_pg80"), maxVPD)))
	if d.Serial == "" {
		d.Serial = known(n.device("serial")) // no SCSI attribute of the kernel's, but other drivers' (xvd, cciss)
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

// multipathDir is the folder of the first path below an NVMe multipath disk:
// for nvme0n1 the hidden disk nvme0c0n1, whose place is a controller's.
func (n *node) multipathDir() string {
	sub, ns, ok := strings.Cut(strings.TrimPrefix(n.name, "nvme"), "n")
	if !ok {
		return ""
	}
	entries, err := fs.ReadDir(n.sys, "block")
	if err != nil {
		return ""
	}
	for _, e := range entries { // sorted, so the same path each time
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

// wwnOf takes a kernel wwid that is a worldwide name; t10 ones are only
// vendor, model and serial in a row.
func wwnOf(wwid string) string {
	kind, id, ok := strings.Cut(strings.ToLower(wwid), ".")
	if !ok || kind != "naa" && kind != "eui" && kind != "uuid" || known(id) == "" {
		return ""
	}
	return kind + "." + id
}

// known gives "" for a text that tells no disk from another: an empty one, one
// character over and over (blanks, zeros, all ones), and what makers write when
// they forgot to fill it in.
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
