// Package parttab reads the partition tables of a disk, as far as imaging
// whole disks needs them, and moves a GPT's backup to the end of a larger
// disk. It is strict: a table that is not exactly as the UEFI specification
// (2.10, chapter 5) has it is an error, and is left alone. It imports nothing
// of this project.
package parttab

// Edit is bytes that a disk gets instead of the image's.
type Edit struct {
	Off  int64 // bytes from the disk's start, a multiple of the sector size
	Data []byte
}
