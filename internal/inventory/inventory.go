// Package inventory collects what a testbox is made of. That is processors,
// memory, firmware tables, PCI devices, network cards, disks with their health,
// and the kernel log. It makes a text of it for people, JSON for programs, and
// a zip of the raw tables. Nothing here ever fails an action. What cannot be
// read within its limits of time and size becomes an entry in Problems.
package inventory

import (
	"time"

	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
)

// Format is the number of the JSON form that this code writes. Fields may be
// added under the same number. If a meaning changes, the form gets a new
// number.
const Format = 1

// Inventory is what was found in a box. Its JSON form is testbox-info.json.
// Empty fields are unknown. All texts are safe to print, without control
// characters and broken UTF-8.
type Inventory struct {
	Format      int       `json:"format"`         // Format
	Address     string    `json:"address"`        // dotted
	Hex         string    `json:"hexAddress"`     // upper-case hexadecimal, the boot file's name
	Host        string    `json:"host"`           // host name or "unknown"
	Time        time.Time `json:"time"`           // UTC
	Maintenance string    `json:"maintenance"`    // version of the maintenance system
	UUID        string    `json:"uuid,omitempty"` // from MachineUUID, "" if unknown
	Kernel      string    `json:"kernel,omitempty"`
	Firmware    Firmware  `json:"firmware"`
	DMI         DMI       `json:"dmi"`
	CPU         CPU       `json:"cpu"`
	Memory      int64     `json:"memoryBytes,omitempty"` // as the kernel sees it
	PCI         []PCI     `json:"pci,omitempty"`
	Network     []NIC     `json:"network,omitempty"`
	Disks       []Disk    `json:"disks,omitempty"`
	Problems    []string  `json:"problems,omitempty"`  // what could not be read, and why
	KernelLog   []string  `json:"kernelLog,omitempty"` // lines, oldest first

	raw     []rawFile // what Zip packs
	skipped []string  // what Zip leaves out, and why
}

// Firmware says how the box starts.
type Firmware struct {
	Kind        string      `json:"kind"`                  // "BIOS" or "UEFI"
	Bits        int         `json:"bits,omitempty"`        // UEFI: 32 or 64
	SecureBoot  string      `json:"secureBoot,omitempty"`  // UEFI: "on", "off", "on, setup mode", "off, setup mode"
	BootCurrent string      `json:"bootCurrent,omitempty"` // UEFI: number of the entry that started this boot, such as "0003"
	BootNext    string      `json:"bootNext,omitempty"`    // UEFI: number of the entry for the next boot only
	BootOrder   []BootEntry `json:"bootOrder,omitempty"`   // UEFI: in the order in which the firmware tries them
	// State is all that is recorded with a backup, and NetworkFirst what became of the
	// boot order. They are nil if the agent has not looked.
	State        *efi.State        `json:"state,omitempty"`
	NetworkFirst *efi.NetworkFirst `json:"networkFirst,omitempty"`
}

// BootEntry is a boot entry of UEFI firmware.
type BootEntry struct {
	Number string `json:"number"` // four upper-case hexadecimal digits
	Name   string `json:"name"`
	Active bool   `json:"active"`
}

// CPU is what the kernel says of the processors.
type CPU struct {
	Model     string   `json:"model,omitempty"`
	Sockets   int      `json:"sockets,omitempty"`
	Cores     int      `json:"cores,omitempty"` // of all sockets
	Threads   int      `json:"threads"`         // processors that the kernel runs
	Microcode string   `json:"microcode,omitempty"`
	Flags     []string `json:"flags,omitempty"`
}

// PCI is a PCI function. A name is empty if pci.ids does not have it.
type PCI struct {
	Address   string `json:"address"` // such as "0000:00:1f.2"
	Class     string `json:"class"`   // base class, sub-class and interface, such as "010601"
	Vendor    string `json:"vendor"`  // four hexadecimal digits, as in Device, SubVendor and SubDevice
	Device    string `json:"device"`
	SubVendor string `json:"subVendor,omitempty"`
	SubDevice string `json:"subDevice,omitempty"`
	Revision  string `json:"revision,omitempty"` // two hexadecimal digits
	Driver    string `json:"driver,omitempty"`
	Link      string `json:"link,omitempty"` // such as "8.0 GT/s PCIe x4"

	ClassName     string `json:"className,omitempty"`
	VendorName    string `json:"vendorName,omitempty"`
	DeviceName    string `json:"deviceName,omitempty"`
	SubsystemName string `json:"subsystemName,omitempty"`
}

// NIC is a network card. Programs that look for boot files which shadow this
// box read MAC. PXELINUX asks for the file "01-" and the MAC with dashes before
// it asks for the one named after the address.
type NIC struct {
	Name   string `json:"name"`             // kernel name, "eth0"
	MAC    string `json:"mac"`              // lower case with colons, "52:54:00:12:34:56"
	Driver string `json:"driver,omitempty"` // of the kernel
	PCI    string `json:"pci,omitempty"`    // address of the PCI function, "0000:00:03.0"
	Up     bool   `json:"up"`               // it has a link
	Speed  int    `json:"speedMbit,omitempty"`
}

// Disk is a disk and what is on it, as far as the kernel says.
type Disk struct {
	Name string `json:"name"` // kernel name, "sda"
	image.Identity
	Transport  string      `json:"transport,omitempty"` // "ata", "nvme", "usb", ...
	Removable  bool        `json:"removable,omitempty"`
	Rotational *bool       `json:"rotational,omitempty"`
	Firmware   string      `json:"firmware,omitempty"` // revision of the disk's own firmware
	Links      []string    `json:"links,omitempty"`    // by-id and by-path names
	Partitions []Partition `json:"partitions,omitempty"`
	Health     Health      `json:"health"`
}

// Partition is a partition as the kernel sees it.
type Partition struct {
	Name  string `json:"name"`  // kernel name, "sda1"
	Start int64  `json:"start"` // bytes from the disk's start
	Size  int64  `json:"size"`  // bytes
}

// Health is what a disk says of itself by SMART or by the NVMe health log.
type Health struct {
	Status     string      `json:"status"`         // "good", "failing" or "unknown"
	Note       string      `json:"note,omitempty"` // why it is failing or unknown
	Attributes []Attribute `json:"attributes,omitempty"`
}

// Failing reports whether the disk says that it is failing.
func (h Health) Failing() bool { return h.Status == healthFailing }

// Attribute is one value of a disk's health. Value, Worst and Threshold are
// SMART's normalised values. All three are zero for NVMe.
type Attribute struct {
	ID        int    `json:"id,omitempty"` // SMART attribute number; 0 for NVMe
	Name      string `json:"name"`
	Value     int    `json:"value,omitempty"`
	Worst     int    `json:"worst,omitempty"`
	Threshold int    `json:"threshold,omitempty"`
	Raw       string `json:"raw"`
	Failing   bool   `json:"failing,omitempty"` // the value is at or below a threshold that predicts a failure
}
