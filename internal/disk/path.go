package disk

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// deviceDir is the folder of the device that carries the disk.
func (n *node) deviceDir() string { return resolve(n.sys, path.Join(n.dir, "device")) }

// path spells the disk's place as udev's path_id does
// ("pci-0000:00:1f.2-ata-1.0"). It is "" if sys has no symbolic links, or if
// the place has no lasting name. path walks up the folders from the disk. For
// each bus on the way it puts a word before the others.
func (n *node) path() string {
	dir := n.dir
	if strings.HasPrefix(n.name, "nvme") && strings.Contains(dir, "/nvme-subsystem/") {
		dir = n.multipathDir()
	}
	if !strings.HasPrefix(dir, "devices/") {
		return ""
	}
	w := walk{node: n, at: strings.Split(path.Dir(dir), "/"), dir: dir}
	for len(w.at) > 1 && w.step() {
	}
	if w.parent && w.transport {
		return strings.Join(w.words, "-")
	}
	return ""
}

// walk is the state of spelling one path.
type walk struct {
	*node
	dir       string   // the disk's folder
	at        []string // the folders still to be looked at, the last one first
	words     []string
	parent    bool // a bus was seen whose addresses do not change between boots
	transport bool // it is known how the disk is attached to that bus
}

// prepend puts a word before the other words.
func (w *walk) prepend(word string) { w.words = slices.Insert(w.words, 0, word) }

// skip drops folders from the end as long as match holds for them.
func (w *walk) skip(match func(string) bool) {
	for len(w.at) > 1 && match(w.at[len(w.at)-1]) {
		w.at = w.at[:len(w.at)-1]
	}
}

// here is the path of the folder that is up steps above the next one.
func (w *walk) here(up int) string { return strings.Join(w.at[:len(w.at)-up], "/") }

// step looks at the next folder, and drops it and perhaps some above it. It
// returns false if the place has no lasting name.
func (w *walk) step() bool {
	c := w.at[len(w.at)-1]
	switch {
	case scsiAddr.MatchString(c):
		return w.scsi()
	case usbIface.MatchString(c):
		w.prepend("usb-0:" + usbIface.FindStringSubmatch(c)[1])
		w.transport = true
		w.skip(func(c string) bool {
			return usbIface.MatchString(c) || usbDev.MatchString(c) || strings.HasPrefix(c, "usb")
		})
		return true
	case c == "nvme" || nvmeCtrl.MatchString(c):
		if nsid := w.attr("nsid"); nsid != "" && !w.transport {
			w.prepend("nvme-" + nsid)
			w.transport = true
		}
	case virtioNo.MatchString(c):
		w.transport = true
	case strings.HasPrefix(c, "vbd-"):
		w.prepend("xen-" + c)
		w.parent, w.transport = true, true
	case pciAddr.MatchString(c):
		w.prepend("pci-" + c)
		w.parent = true
		w.skip(pciAddr.MatchString) // the bridges above
		return true
	}
	w.at = w.at[:len(w.at)-1]
	return true
}

// scsi spells the word for a SCSI disk, whose folder H:B:T:L is next.
func (w *walk) scsi() bool {
	whole := "/" + w.here(0) + "/"
	word := ""
	switch {
	case strings.Contains(whole, "/rport-"):
		word = w.fibreChannel()
		w.parent = true
	case strings.Contains(whole, "/end_device-"):
		word = w.sas()
		w.parent = true
	case strings.Contains(whole, "/session"):
		word = w.iscsi()
		w.parent = true
	case strings.Contains(whole, "/ata"):
		word = w.ata()
	default:
		if word = w.hyperv(); word == "" {
			word = w.plainSCSI()
		}
	}
	if word == "" {
		return false
	}
	w.prepend(word)
	w.transport = true
	host := slices.IndexFunc(w.at, hostDir.MatchString)
	if host < 1 {
		return false
	}
	if strings.HasPrefix(word, "ip-") { // the session may use any network card
		w.at = w.at[:1]
		return true
	}
	w.at = w.at[:host]
	if strings.HasPrefix(word, "vmbus-") && host > 2 {
		w.prepend("acpi-" + w.at[host-2])
		w.parent = true
	}
	return true
}

var hostDir = regexp.MustCompile(`^host\d+$`)

// class reads an attribute of a transport class. Its device stands in a folder
// below the device dir itself, such as .../ata1/ata_port/ata1/port_no.
func (w *walk) class(dir, class, attr string) string {
	return clean(w.read(path.Join(dir, class, path.Base(dir), attr), maxAttr))
}

// folder is the path of the nearest folder, here or above, whose name has the
// prefix.
func (w *walk) folder(prefix string) string {
	for i := len(w.at); i > 0; i-- {
		if strings.HasPrefix(w.at[i-1], prefix) {
			return strings.Join(w.at[:i], "/")
		}
	}
	return ""
}

// hbtl is host, bus, target and logical unit of the SCSI disk.
func (w *walk) hbtl() (v [4]int) {
	for i, s := range strings.Split(w.at[len(w.at)-1], ":") {
		v[i], _ = strconv.Atoi(s) // digits only, and Atoi gives the largest int for too many of them
	}
	return v
}

// lun spells a logical unit as udev does, which writes numbers below 256 in
// decimal.
func (w *walk) lun() string {
	n := w.hbtl()[3]
	if n < 256 {
		return fmt.Sprintf("lun-%d", n)
	}
	return fmt.Sprintf("lun-0x%04x%04x00000000", n&0xffff, n>>16&0xffff)
}

func (w *walk) ata() string {
	port := w.class(w.folder("ata"), "ata_port", "port_no")
	if port == "" {
		return ""
	}
	v := w.hbtl()
	if v[1] != 0 { // behind a port multiplier
		return fmt.Sprintf("ata-%s.%d.0", port, v[1])
	}
	return fmt.Sprintf("ata-%s.%d", port, v[2]) // master and slave of a PATA cable
}

func (w *walk) fibreChannel() string {
	port := w.class(w.folder("target"), "fc_transport", "port_name")
	if port == "" {
		return ""
	}
	return "fc-" + port + "-" + w.lun()
}

func (w *walk) iscsi() string {
	session := w.folder("session")
	conn := path.Join(session, "connection"+strings.TrimPrefix(path.Base(session), "session")+":0")
	target := w.class(session, "iscsi_session", "targetname")
	addr := w.class(conn, "iscsi_connection", "persistent_address")
	port := w.class(conn, "iscsi_connection", "persistent_port")
	if target == "" || addr == "" || port == "" {
		return ""
	}
	return fmt.Sprintf("ip-%s:%s-iscsi-%s-%s", addr, port, target, w.lun())
}

// sas returns the word for a SAS disk. A disk on one phy is named by that phy
// of the controller or expander. A disk on a wide port is named by its own SAS
// address.
func (w *walk) sas() string {
	end := w.folder("end_device-")
	port := path.Dir(end)
	if w.class(port, "sas_port", "num_phys") != "1" {
		if addr := w.class(end, "sas_device", "sas_address"); addr != "" {
			return "sas-" + addr + "-" + w.lun()
		}
		return ""
	}
	phy := w.class(end, "sas_device", "phy_identifier")
	if phy == "" {
		return ""
	}
	if exp := path.Dir(port); strings.HasPrefix(path.Base(exp), "expander-") {
		addr := w.class(exp, "sas_device", "sas_address")
		if addr == "" {
			return ""
		}
		return "sas-exp" + addr + "-phy" + phy + "-" + w.lun()
	}
	return "sas-phy" + phy + "-" + w.lun()
}

// hyperv names the controller by its GUID. That is the folder's name, or in
// older kernels its attribute device_id.
func (w *walk) hyperv() string {
	dir := path.Dir(w.folder("host"))
	guid := path.Base(dir)
	if strings.HasPrefix(guid, "vmbus_") {
		guid = strings.Trim(clean(w.read(path.Join(dir, "device_id"), maxAttr)), "{}")
	}
	if !vmbusDev.MatchString(guid) {
		return ""
	}
	return "vmbus-" + strings.ReplaceAll(guid, "-", "") + "-" + w.lun()
}

// plainSCSI names the disk by host, bus, target and logical unit. The kernel
// numbers hosts in the order in which it finds them. So the host is counted
// from the lowest number on the same controller.
func (w *walk) plainSCSI() string {
	v := w.hbtl()
	entries, err := fs.ReadDir(w.sys, path.Dir(w.folder("host")))
	if err != nil {
		return ""
	}
	base := v[0]
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "host")); err == nil && hostDir.MatchString(e.Name()) {
			base = min(base, n)
		}
	}
	return fmt.Sprintf("scsi-%d:%d:%d:%d", v[0]-base, v[1], v[2], v[3])
}
