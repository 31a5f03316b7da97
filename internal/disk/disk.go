// Package disk knows the disks of a box. It lists them and says what each is
// known by. For that it reads sysfs alone, because the ram form has no udev. It
// also opens, protects, reads and writes disks. Package match says which image
// belongs on which disk.
package disk

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/image"
)

// Disk is a whole disk as the kernel shows it now.
type Disk struct {
	// Name is the kernel's name ("sda", "cciss!c0d0"). A disk may have another
	// one after the next boot.
	Name string
	image.Identity
	Removable bool // the medium can be taken out
	// Transport says how the disk is attached. It is "ata", "sas", "scsi",
	// "fc", "iscsi", "usb", "nvme", "nvme-tcp" (or another fabric), "virtio",
	// "hyperv", "mmc", "sd", "xen", "rbd", "virtual" (loop, dm, md, ...), or ""
	// if that is not known.
	Transport string
	Parts     []string // kernel names of its partitions
	Links     []string // names below by-id/ and by-path/ that udev would give it
	// Multipath is the id of a device of dm-multipath that stands on the disk, and
	// "" if there is none. All paths to one disk have the same.
	Multipath string
	// Others has the kernel names of further paths to the same disk. List does not
	// know them. Package match finds them out.
	Others []string
}

func (d Disk) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s", d.Name, d.Identity)
	if d.Transport != "" {
		fmt.Fprintf(&b, ", %s", d.Transport)
	}
	return b.String() + ")"
}
