package disk

import "io/fs"

// Lab is the sysfs of a box with disks of all kinds.
func Lab() fs.FS { return lab().fs() }
