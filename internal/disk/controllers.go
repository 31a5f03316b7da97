package disk

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Controller is a device that disks may be behind, and that shows none now.
type Controller struct {
	Name string // kernel name, "0000:00:06.0", "virtio1" or "nvme0"
	What string // "PCI class 010802, 8086:f1a5", "virtio disk" or "NVMe controller, resetting"
	// Driven reports whether a driver has the device and is still at work on it. If
	// not, the device has no driver, and may never get one.
	Driven bool
}

func (c Controller) String() string {
	if c.Driven {
		return fmt.Sprintf("%s (%s) is not ready yet", c.Name, c.What)
	}
	return fmt.Sprintf("%s (%s) has no driver in this maintenance system", c.Name, c.What)
}

// Unready returns the controllers of /sys that show none of their disks, sorted
// by name. They are PCI functions of the class "mass storage" and virtio disks
// without a driver, and NVMe controllers that a driver has not brought up yet.
// While there are any, a disk of the box may be missing in a list of disks.
func Unready(sys fs.FS) []Controller {
	var found []Controller
	each := func(dir string, look func(*node)) {
		entries, _ := fs.ReadDir(sys, dir)
		for _, e := range entries[:min(len(entries), maxDisks)] {
			look(&node{sys: sys, name: e.Name(), dir: resolve(sys, path.Join(dir, e.Name()))})
		}
	}
	each("bus/pci/devices", func(n *node) {
		class := n.hex("class")
		// 01 is the class of mass storage, and 0108 is NVMe (PCI Code and ID Assignment
		// Specification).
		if len(class) != 6 || class[:2] != "01" {
			return
		}
		driven := n.exists("driver")
		if driven && (class[:4] != "0108" || n.exists("nvme")) {
			return
		}
		found = append(found, Controller{n.name, fmt.Sprintf("PCI class %s, %s:%s", class, n.hex("vendor"), n.hex("device")), driven})
	})
	each("bus/virtio/devices", func(n *node) {
		kind := map[string]string{"0002": "virtio disk", "0008": "virtio SCSI controller"}[n.hex("device")]
		if kind != "" && !n.exists("driver") {
			found = append(found, Controller{n.name, kind, false})
		}
	})
	each("class/nvme", func(n *node) {
		// The states are those of nvme_ctrl_state in Linux' drivers/nvme/host/nvme.h. A
		// controller that is live, dead or on its way out will not show more disks.
		switch state := n.attr("state"); state {
		case "new", "resetting", "connecting":
			found = append(found, Controller{n.name, "NVMe controller, " + state, true})
		}
	})
	slices.SortFunc(found, func(a, b Controller) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// hex is a number of sysfs without its 0x.
func (n *node) hex(name string) string { return strings.TrimPrefix(n.attr(name), "0x") }

func (n *node) exists(name string) bool {
	_, err := fs.Lstat(n.sys, path.Join(n.dir, name))
	return err == nil
}
