package inventory

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
)

// FirmwareVersion returns who made the firmware, which version it is and of which date,
// as SMBIOS says. What cannot be read in time is "".
func FirmwareVersion(ctx context.Context, sys fs.FS) (vendor, version, date string) {
	t := tree{sys, "/sys", &guard{ctx: ctx, limit: defaultLimits.file}}
	const dir = "class/dmi/id/bios_"
	return t.attr(dir + "vendor"), t.attr(dir + "version"), t.attr(dir + "date")
}

// The Identify command of the NVM Express base specification, and what it asks for.
const (
	nvmeIdentify        = 0x06
	nvmeIdentifySpace   = 0x00 // a namespace
	nvmeIdentifyActive  = 0x02 // the numbers of all active namespaces
	nvmeIdentifyLen     = 4096
	maxNamespaceNumbers = nvmeIdentifyLen / 4
)

// Namespaces asks the NVMe disks of the list which namespaces they have, and which
// formats these can have. Disks that do not answer are left out, and the errors say
// which they are.
func Namespaces(ctx context.Context, dev string, disks []disk.Disk) ([]efi.Namespace, []error) {
	return namespaces(ctx, defaultLimits, disks, func(d disk.Disk, what uint32, nsid uint32) ([]byte, error) {
		return askIdentify(filepath.Join(dev, strings.ReplaceAll(d.Name, "!", "/")), what, nsid)
	})
}

func namespaces(ctx context.Context, l limits, disks []disk.Disk,
	ask func(d disk.Disk, what, nsid uint32) ([]byte, error)) (list []efi.Namespace, problems []error) {
	g := &guard{ctx: ctx, limit: l.disk}
	for _, d := range disks {
		if d.Transport != "nvme" || d.NamespaceID <= 0 {
			continue
		}
		if len(list) == efi.MaxNamespaces {
			return list, append(problems, fmt.Errorf("there are more than %d NVMe namespaces", efi.MaxNamespaces))
		}
		n := efi.Namespace{Disk: clean(d.Name), Serial: clean(d.Serial), ID: uint32(d.NamespaceID)}
		page, err := timed(g, func() ([]byte, error) { return ask(d, nvmeIdentifySpace, n.ID) })
		if err == nil {
			err = parseNamespace(page, &n)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("disk %s does not say which formats its namespace can have: %w", d.Name, err))
			continue
		}
		page, err = timed(g, func() ([]byte, error) { return ask(d, nvmeIdentifyActive, 0) })
		if err == nil {
			n.Active, err = parseActive(page)
		}
		if err != nil { // controllers of before version 1.1 cannot say it
			problems = append(problems, fmt.Errorf("disk %s does not say which namespaces it has: %w", d.Name, err))
		}
		list = append(list, n)
	}
	return list, problems
}

// askIdentify sends an Identify command.
func askIdentify(path string, what, nsid uint32) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	page := make([]byte, nvmeIdentifyLen)
	cmd := &nvmeAdminCmd{opcode: nvmeIdentify, nsid: nsid, addr: unsafe.Pointer(&page[0]), dataLen: nvmeIdentifyLen, cdw10: what,
		timeoutMS: commandTimeout}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nvmeIoctlAdminCmd, uintptr(unsafe.Pointer(cmd)))
	runtime.KeepAlive(page)
	switch {
	case errno != 0:
		return nil, fmt.Errorf("NVMe identify: %w", errno)
	case status != 0:
		return nil, fmt.Errorf("NVMe identify: the disk answers with status %#x", status)
	}
	return page, nil
}

// parseNamespace reads the Identify Namespace data structure of the NVM command set
// specification. NSZE has the blocks. NLBAF has the number of formats less one, and
// FLBAS the index of the one in use. Each format has the bytes of metadata, the
// logarithm of the block's size, and how well it performs.
func parseNamespace(p []byte, n *efi.Namespace) error {
	const (
		formats   = 25
		inUse     = 26
		first     = 128
		maxFormat = 64
		log512    = 9
		log64K    = 16
	)
	if len(p) != nvmeIdentifyLen {
		return fmt.Errorf("the answer has %d bytes instead of %d", len(p), nvmeIdentifyLen)
	}
	n.Blocks = binary.LittleEndian.Uint64(p)
	count := int(p[formats]) + 1
	if count > maxFormat {
		return fmt.Errorf("it has %d formats, and may have %d", count, maxFormat)
	}
	for i := range count {
		f := p[first+4*i:]
		if f[2] < log512 || f[2] > log64K { // 0 is a format that the namespace cannot have
			n.Formats = append(n.Formats, efi.LBAFormat{})
			continue
		}
		n.Formats = append(n.Formats, efi.LBAFormat{
			Block: 1 << f[2], Metadata: int(binary.LittleEndian.Uint16(f)), Performance: int(f[3] & 3),
		})
	}
	n.Format = int(p[inUse]&0x0f) | int(p[inUse]>>5&3)<<4
	if n.Format >= count || n.Formats[n.Format].Block == 0 {
		return fmt.Errorf("it has the format %d of %d, which cannot be", n.Format, count)
	}
	return nil
}

// parseActive reads the list of active namespaces, which ends with a zero.
func parseActive(p []byte) (list []uint32, err error) {
	if len(p) != nvmeIdentifyLen {
		return nil, fmt.Errorf("the answer has %d bytes instead of %d", len(p), nvmeIdentifyLen)
	}
	for i := range maxNamespaceNumbers {
		id := binary.LittleEndian.Uint32(p[4*i:])
		if id == 0 {
			break
		}
		list = append(list, id)
	}
	return list, nil
}
