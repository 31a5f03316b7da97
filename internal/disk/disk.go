// Package disk knows the disks of a box: which there are and by what each is
// known (from sysfs alone, because the ram form has no udev), and how a disk is
// opened, protected, read and written. Package match says which image belongs on
// which disk.
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
