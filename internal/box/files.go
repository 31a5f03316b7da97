package box

// Names of files in a box's folder that more than one package knows.
const (
	// LogFile is the box's log. The log of all boxes has the same name. It is
	// beside the boxes' folders.
	LogFile = "maintenance.log"
	// DisksFile is the list of the disks to use, which an admin writes.
	DisksFile = "disk-devices.lst"
	// InfoText, InfoJSON and InfoZip are the three forms of the inventory.
	InfoText = "testbox-info.txt"
	InfoJSON = "testbox-info.json"
	InfoZip  = "testbox-info.zip"
	// FirmwareFile is what the latest start of the maintenance system noted of the box's
	// firmware (efi.Note).
	FirmwareFile = "testbox-firmware.json"
	// InfoBefore is the latest inventory that was different from the one that is there.
	InfoBefore = "testbox-info.before.json"
)
