package match

import (
	"strings"

	"testbox-imaging/internal/disk"
)

// tangible reports whether the disk is hardware with a medium. Messages about
// the box's disks list only these.
func tangible(d disk.Disk) bool {
	return d.Size > 0 && d.Transport != "virtual" && family(d.Name) == ""
}

// networks has the transports whose disks are somewhere else and may be shared.
var networks = map[string]string{
	"iscsi": "an iSCSI disk", "fc": "a Fibre Channel disk", "rbd": "a network disk",
	"nvme-tcp": "an NVMe disk over a network", "nvme-rdma": "an NVMe disk over a network",
	"nvme-fc": "an NVMe disk over a network", "nvme-loop": "an NVMe disk over a network",
}

// families has the prefixes of kernel names that are never disks of the box's
// own.
var families = []struct{ prefix, what string }{
	{"loop", "a loop device"}, {"ram", "a ram disk"}, {"zram", "a ram disk"}, {"dm-", "a device-mapper device"},
	{"md", "a software RAID"}, {"sr", "an optical drive"}, {"fd", "a floppy drive"}, {"nbd", "a network block device"},
	{"rbd", "a network disk"}, {"drbd", "a network disk"}, {"mtdblock", "a flash chip"},
}

// Auto reports whether a disk is chosen when the admin named none. If not, the
// text says what the disk is, such as "a USB disk" in "sdb is not chosen by
// itself: a USB disk".
func Auto(d disk.Disk) (bool, string) {
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

// family says what a kernel name is if it belongs to one of families, else "".
// Only digits, '_', 'd' and 'p' may follow the prefix, as in md_d0p1, so that
// "mdx" is not of the family "md".
func family(name string) string {
	for _, f := range families {
		if n, ok := strings.CutPrefix(name, f.prefix); ok && strings.TrimRight(n, "0123456789_dp") == "" {
			return f.what
		}
	}
	return ""
}

// isMMCArea reports whether name is a hardware area beside an eMMC's user area,
// such as mmcblk0boot0, mmcblk0boot1, mmcblk0rpmb and mmcblk0gp0.
func isMMCArea(name string) bool {
	n, ok := strings.CutPrefix(name, "mmcblk")
	return ok && strings.Trim(n, "0123456789") != ""
}
