package disk

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// links returns the names that udev gives the disk below /dev/disk, as far as
// sysfs has what they are made of.
func (n *node) links(d Disk, x ids) []string {
	var l []string
	id := func(format string, parts ...any) { l = append(l, "by-id/"+fmt.Sprintf(format, parts...)) }
	scsi := strings.HasPrefix(d.Name, "sd") || strings.HasPrefix(d.Name, "sr")
	switch {
	case strings.HasPrefix(d.Name, "nvme"):
		if x.identifier != "" {
			id("nvme-%s", underscored(x.identifier))
		}
		if d.Model != "" && d.Serial != "" {
			id("nvme-%s_%s", underscored(d.Model), underscored(d.Serial))
			id("nvme-%s_%s_%d", underscored(d.Model), underscored(d.Serial), d.NamespaceID)
		}
	case d.Transport == "virtio" && d.Serial != "":
		id("virtio-%s", underscored(d.Serial))
	case (d.Transport == "mmc" || d.Transport == "sd") && d.Model != "" && d.Serial != "":
		id("mmc-%s_%s", underscored(d.Model), underscored(d.Serial))
	case scsi:
		l = append(l, n.scsiLinks(d, x)...)
	}
	if num, ok := strings.CutPrefix(d.WWN, "naa."); ok && scsi {
		id("wwn-0x%s", num)
	} else if num, ok := strings.CutPrefix(d.WWN, "eui."); ok && scsi {
		id("wwn-0x%s", num)
	}
	return append(l, pathLinks(d)...)
}

func pathLinks(d Disk) []string {
	if d.Path == "" {
		return nil
	}
	l := []string{"by-path/" + d.Path}
	if place, port, ok := strings.Cut(d.Path, "-ata-"); ok { // older udev names only the port
		port, _, _ = strings.Cut(port, ".")
		l = append(l, "by-path/"+place+"-ata-"+port)
	}
	if d.Transport == "virtio" && strings.HasPrefix(d.Path, "pci-") {
		l = append(l, "by-path/virtio-"+d.Path)
	}
	return l
}

// scsiLinks are the names that ata_id, scsi_id and usb_id make.
func (n *node) scsiLinks(d Disk, x ids) []string {
	var l []string
	if x.ata.model != "" && x.ata.serial != "" {
		l = append(l, "by-id/ata-"+underscored(x.ata.model)+"_"+underscored(x.ata.serial))
	} else if x.vendor == "ATA" && d.Serial != "" && len(d.Model) < 16 { // a model of 16 characters may be cut
		l = append(l, "by-id/ata-"+underscored(d.Model)+"_"+underscored(d.Serial))
	}
	if d.Transport == "usb" && x.usbSerial != "" {
		hctl := strings.Split(n.deviceDir(), "/")
		addr := strings.Split(hctl[len(hctl)-1], ":")
		if len(addr) == 4 {
			l = append(l, fmt.Sprintf("by-id/usb-%s_%s_%s-%s:%s", underscored(x.vendor), underscored(d.Model), underscored(x.usbSerial), addr[2],
				addr[3]))
		}
	}
	for _, des := range x.page83 {
		switch des.kind {
		case 0: // its meaning is the vendor's own, so udev adds vendor and model
			l = append(l, "by-id/scsi-0"+underscored(fmt.Sprintf("%-8s%-16s%s", x.vendor, d.Model, clean(des.id))))
		case 1:
			l = append(l, "by-id/scsi-1"+underscored(clean(des.id)))
		case 2, 3:
			l = append(l, fmt.Sprintf("by-id/scsi-%d%s", des.kind, hex.EncodeToString(des.id)))
		}
	}
	slices.Sort(l)
	return slices.Compact(l)
}

// underscored puts one '_' in place of each run of blanks, and in place of each
// character that udev does not allow in a name.
func underscored(s string) string {
	s = strings.Join(strings.Fields(s), "_")
	return strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', strings.ContainsRune("#+-.:=@_", r):
			return r
		}
		return '_'
	}, s)
}

// HasName reports whether item is a name of the disk. That may be its kernel
// name, a path below /dev, a link that udev would give it, its serial or its
// World Wide Name.
func (d Disk) HasName(item string) bool {
	if d.HasKernelName(item) {
		return true
	}
	item = strings.TrimPrefix(strings.TrimPrefix(item, "/dev/"), "disk/")
	if slices.Contains(d.Links, item) || slices.Contains(d.Links, "by-id/"+item) || slices.Contains(d.Links, "by-path/"+item) {
		return true
	}
	for _, id := range []string{d.Serial, d.WWN} {
		if id != "" && (item == id || item == underscored(id)) {
			return true
		}
	}
	return false
}

// HasKernelName reports whether item is a kernel name of the disk or such a name
// below /dev.
func (d Disk) HasKernelName(item string) bool {
	item = strings.TrimPrefix(item, "/dev/")
	is := func(name string) bool { return item == name || item == strings.ReplaceAll(name, "!", "/") }
	return is(d.Name) || slices.ContainsFunc(d.Others, is)
}
