package maintenance

// drivers are the kernel modules in the maintenance system, apart from those
// that they need. A box can only be maintained if one of them drives its
// network card, and one its disk controller. If a kernel does not have a
// module, the module is left out, and a note says so.
var drivers = []string{
	// Network cards: virtual machines.
	"virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve", "pcnet32", "8139cp", "8139too", "ne2k_pci",
	// Intel, with virtual functions.
	"e100", "e1000", "e1000e", "igb", "igbvf", "igc", "ixgbe", "ixgbevf", "i40e", "iavf", "ice",
	// Realtek, Broadcom, QLogic, Mellanox.
	"r8169", "tg3", "b44", "bnx2", "bnx2x", "bnxt_en", "qede", "mlx4_en", "mlx5_core",
	// Emulex, Aquantia, Atheros, Marvell, NVIDIA.
	"be2net", "atlantic", "alx", "atl1c", "atl1e", "sky2", "skge", "forcedeth",

	// Disks: virtual machines.
	"virtio_blk", "virtio_scsi", "vmw_pvscsi", "hv_storvsc", "xen_blkfront", "mptspi", "mptsas",
	// ATA and NVMe.
	"ahci", "ata_piix", "ata_generic", "pata_amd", "pata_atiixp", "pata_jmicron", "pata_marvell",
	"sata_mv", "sata_nv", "sata_sil", "sata_sil24", "sata_svw", "sata_via", "nvme", "vmd",
	// SAS and RAID controllers.
	"megaraid_sas", "megaraid_mbox", "mpt3sas", "mpi3mr", "hpsa", "smartpqi", "aacraid", "arcmsr", "isci", "mvsas", "3w_9xxx", "3w_sas",
	// USB, so that USB disks are recognized as such, and memory cards.
	"usb_storage", "uas", "xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "mmc_block", "sdhci_pci", "sdhci_acpi",
	"sd_mod",

	// The buses of devices in virtual machines, and their source of random
	// numbers.
	"virtio_pci", "virtio_mmio", "hv_vmbus", "pci_hyperv", "virtio_rng",

	// Watchdogs. lpc_ich and i2c_i801 create the device of iTCO_wdt.
	"i6300esb", "iTCO_wdt", "lpc_ich", "i2c_i801", "sp5100_tco", "hpwdt", "wdat_wdt", "softdog",

	// The file systems of systems that hooks change after a restore, and what gives a part
	// of a disk a device of its own.
	"loop", "ext4", "xfs", "btrfs",

	// The file system of the areas, and that of UEFI variables.
	"nfs", "nfsv3", "nfsv4", "efivarfs",
}

// loadAlways are modules that no device asks for by its modalias.
var loadAlways = []string{"nfs", "nfsv3", "nfsv4"}

// phys are drivers of Ethernet PHYs. The kernel asks modprobe for them when the
// card's driver starts. The ram form has no modprobe, so they are loaded before
// the card's driver. For a card's driver that names its PHY driver itself
// (r8169), this adds nothing.
var phys = map[string][]string{
	"r8169":     {"realtek"},
	"tg3":       {"broadcom"},
	"b44":       {"broadcom"},
	"forcedeth": {"realtek"},
}

// firmwarePackages have the firmware that the drivers name. Only the files with
// these names are used.
var firmwarePackages = []string{"firmware-realtek", "firmware-bnx2", "firmware-bnx2x", "firmware-qlogic", "firmware-linux-free",
	"firmware-misc-nonfree"}
