package disk

import (
	"path"
	"regexp"
	"strings"
)

var (
	pciAddr  = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	scsiAddr = regexp.MustCompile(`^\d+:\d+:\d+:\d+$`)
	ataPort  = regexp.MustCompile(`^ata\d+$`)
	usbDev   = regexp.MustCompile(`^\d+-[0-9.]+$`)
	usbIface = regexp.MustCompile(`^\d+-([0-9.]+:\d+\.\d+)$`)
	vmbusDev = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	nvmeCtrl = regexp.MustCompile(`^nvme\d+$`)
	virtioNo = regexp.MustCompile(`^virtio\d+$`)
)

// transport tells how the disk is attached by the folders above the disk's, and
// by its name where sysfs has plain folders. The order of the cases matters. A
// SATA disk behind a SAS expander is "sas", and a disk in a USB case is "usb".
func (n *node) transport() string {
	up := strings.Split(n.dir, "/")
	has := func(match func(string) bool) bool {
		for _, c := range up[:len(up)-1] {
			if match(c) {
				return true
			}
		}
		return false
	}
	prefix := func(p string) func(string) bool {
		return func(c string) bool { return strings.HasPrefix(c, p) }
	}
	switch {
	case strings.HasPrefix(n.name, "nvme"):
		return n.nvmeTransport()
	case strings.HasPrefix(n.dir, "devices/virtual/"):
		return "virtual"
	case has(usbDev.MatchString):
		return "usb"
	case has(prefix("rport-")):
		return "fc"
	case has(prefix("session")):
		return "iscsi"
	case has(prefix("end_device-")):
		return "sas"
	case has(ataPort.MatchString):
		return "ata"
	case has(vmbusDev.MatchString), has(prefix("vmbus_")):
		return "hyperv"
	case strings.HasPrefix(n.name, "mmcblk"):
		return n.mmcTransport()
	case strings.HasPrefix(n.name, "xvd"):
		return "xen"
	case strings.HasPrefix(n.name, "rbd"):
		return "rbd"
	case has(scsiAddr.MatchString):
		return "scsi"
	case has(virtioNo.MatchString), strings.HasPrefix(n.name, "vd"):
		return "virtio"
	}
	return ""
}

// nvmeTransport is "nvme", or "nvme-tcp" and so on for a disk over a fabric.
// The controllers of a multipath disk stand below its subsystem.
func (n *node) nvmeTransport() string {
	dir := n.deviceDir()
	for _, name := range append([]string{dir}, n.controllers(dir)...) {
		if t := clean(n.read(path.Join(name, "transport"), maxAttr)); t != "" && t != "pcie" {
			return "nvme-" + t
		}
	}
	return "nvme"
}

// mmcTransport is "sd" for a card that can be pulled, "mmc" for an eMMC. In sysfs
// the device of an eMMC's boot area is its main disk, which has no attribute
// type, so a boot area is "mmc" too.
func (n *node) mmcTransport() string {
	if t := n.attr("device/type"); t == "SD" || t == "SDcombo" {
		return "sd"
	}
	return "mmc"
}
