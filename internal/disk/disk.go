// Package disk knows the disks of a box: which there are and by what each is
// known (from sysfs alone, because the ram form has no udev), which of them an
// action takes, which image belongs to which disk, and how a disk is opened,
// protected, read and written. docs/matching.md has the rules as tables.
package disk

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/image"
)

// Disk is a whole disk as the kernel shows it now.
type Disk struct {
	// Name is the kernel's name ("sda", "cciss!c0d0"); it moves between boots.
	Name string
	image.Identity
	Removable bool // the medium can be taken out
	// Transport is what the disk hangs on: "ata", "sas", "scsi", "fc",
	// "iscsi", "usb", "nvme", "nvme-tcp" (or another fabric), "virtio",
	// "hyperv", "mmc", "sd", "xen", "virtual" (loop, dm, md, ...), "" unknown.
	Transport string
	Parts     []string // kernel names of its partitions
	Links     []string // names below by-id/ and by-path/ that udev would give it
}

func (d Disk) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s", d.Name, d.Identity)
	if d.Transport != "" {
		fmt.Fprintf(&b, ", %s", d.Transport)
	}
	return b.String() + ")"
}

// tangible reports whether the disk is hardware with a medium: what a message
// about the box's disks should list.
func (d Disk) tangible() bool {
	return d.Size > 0 && d.Transport != "virtual" && family(d.Name) == ""
}

// networks are transports whose disks stand somewhere else and may be shared.
var networks = map[string]string{
	"iscsi": "an iSCSI disk", "fc": "a Fibre Channel disk", "rbd": "a network disk",
	"nvme-tcp": "an NVMe disk over a network", "nvme-rdma": "an NVMe disk over a network",
	"nvme-fc": "an NVMe disk over a network", "nvme-loop": "an NVMe disk over a network",
}

// families are kernel names that are never disks of the box's own.
var families = []struct{ prefix, what string }{
	{"loop", "a loop device"}, {"ram", "a ram disk"}, {"zram", "a ram disk"}, {"dm-", "a device-mapper device"},
	{"md", "a software RAID"}, {"sr", "an optical drive"}, {"fd", "a floppy drive"}, {"nbd", "a network block device"},
	{"rbd", "a network disk"}, {"drbd", "a network disk"}, {"mtdblock", "a flash chip"},
}

// Auto says whether a disk is chosen when the admin named none, and if not,
// what it is, as in "sdb is not chosen by itself: a USB disk".
func Auto(d Disk) (bool, string) {
	why := ""
	switch {
	case d.Size == 0:
		why = "it has no medium (size 0)"
	case family(d.Name) != "":
		why = family(d.Name)
	case d.Transport == "virtual":
		why = "a device made of software"
	case networks[d.Transport] != "":
		why = networks[d.Transport]
	case d.Transport == "usb":
		why = "a USB disk"
	case d.Transport == "sd":
		why = "a memory card"
	case isMMCArea(d.Name):
		why = "a boot or RPMB area of an eMMC"
	case d.Removable:
		why = "its medium is removable"
	}
	return why == "", why
}

// family says what a kernel name of one of families is; the prefix must be
// followed by its number, so that "mdx" is no "md".
func family(name string) string {
	for _, f := range families {
		if n, ok := strings.CutPrefix(name, f.prefix); ok && strings.TrimRight(n, "0123456789_dp") == "" {
			return f.what
		}
	}
	return ""
}

// isMMCArea reports whether name is a hardware area beside an eMMC's user
// area: mmcblk0boot0, mmcblk0boot1, mmcblk0rpmb, mmcblk0gp0.
func isMMCArea(name string) bool {
	n, ok := strings.CutPrefix(name, "mmcblk")
	return ok && strings.Trim(n, "0123456789") != ""
}
