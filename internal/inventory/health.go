package inventory

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The values of Health.Status.
const (
	healthGood    = "good"
	healthFailing = "failing"
	healthUnknown = "unknown"
)

// askDisk asks a disk for its health. It can hang as long as the kernel's error
// handling needs, or for ever.
func askDisk(path string, kind healthKind) (Health, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Health{}, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if kind == healthNVMe {
		return askNVMe(fd)
	}
	return askATA(fd)
}

// nvmeAdminCmd is struct nvme_admin_cmd of <linux/nvme_ioctl.h>.
type nvmeAdminCmd struct {
	opcode, flags   uint8
	_               uint16
	nsid            uint32
	_, _            uint32 // cdw2, cdw3
	_               uint64 // metadata
	addr            unsafe.Pointer
	_               uint32 // length of metadata
	dataLen         uint32
	cdw10           uint32
	_               [5]uint32 // cdw11 to cdw15
	timeoutMS, _res uint32
}

// The number of the NVMe ioctl, and the fields of Get Log Page of the NVM
// Express base specification.
const (
	nvmeIoctlAdminCmd = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_admin_cmd)
	nvmeGetLogPage    = 0x02
	nvmeLogHealth     = 0x02
	nvmeAllNamespaces = 0xffffffff
	nvmeHealthLen     = 512
)

// commandTimeout is how long the kernel waits for one command, in milliseconds.
// A spinning disk needs 10 to 15 s to wake up.
const commandTimeout = 15000

func askNVMe(fd int) (Health, error) {
	page := make([]byte, nvmeHealthLen)
	cmd := &nvmeAdminCmd{
		opcode: nvmeGetLogPage, nsid: nvmeAllNamespaces,
		addr: unsafe.Pointer(&page[0]), dataLen: nvmeHealthLen,
		cdw10:     nvmeLogHealth | (nvmeHealthLen/4-1)<<16,
		timeoutMS: commandTimeout,
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nvmeIoctlAdminCmd, uintptr(unsafe.Pointer(cmd)))
	runtime.KeepAlive(page)
	switch {
	case errno != 0:
		return Health{}, fmt.Errorf("NVMe health log: %w", errno)
	case status != 0:
		return Health{}, fmt.Errorf("NVMe health log: the disk answers with status %#x", status)
	}
	return parseNVMeHealth(page)
}

// sgIOHeader is struct sg_io_hdr of <scsi/sg.h>.
type sgIOHeader struct {
	interfaceID    int32
	direction      int32
	cmdLen         uint8
	maxSense       uint8
	_              uint16 // number of segments
	dataLen        uint32
	data           unsafe.Pointer
	cmd            unsafe.Pointer
	sense          unsafe.Pointer
	timeoutMS      uint32
	_              uint32 // flags
	_              int32  // pack id
	_              uintptr
	status         uint8
	_, _, senseLen uint8
	host, driver   uint16
	_              int32 // residual
	_, _           uint32
}

const (
	sgIO      = 0x2285 // the ioctl SG_IO
	sgNone    = -1
	sgFromDev = -3
)

// ATA commands (ACS-4) and the ATA PASS-THROUGH (16) command that carries them
// (SAT-4).
const (
	scsiATAPassThrough16 = 0x85
	ataSMART             = 0xb0
	smartReadData        = 0xd0
	smartReadThresholds  = 0xd1
	smartReturnStatus    = 0xda
	smartMid, smartHigh  = 0x4f, 0xc2 // fixed values that every SMART command must have

	protocolNonData = 3 << 1
	protocolPIOIn   = 4 << 1
	flagCheckCond   = 1 << 5 // return the registers as sense data
	flagInBlocks    = 0x0e   // from the device, in blocks, their number in the sector count
)

// smartCommand sends one SMART command. If data is not nil, 512 bytes are read
// into it.
func smartCommand(fd int, feature byte, data []byte) (sense []byte, err error) {
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[2] = scsiATAPassThrough16, protocolNonData, flagCheckCond
	cdb[4], cdb[10], cdb[12], cdb[14] = feature, smartMid, smartHigh, ataSMART
	sense = make([]byte, 64)
	h := &sgIOHeader{
		interfaceID: 'S', direction: sgNone, cmdLen: uint8(len(cdb)), maxSense: uint8(len(sense)),
		cmd: unsafe.Pointer(&cdb[0]), sense: unsafe.Pointer(&sense[0]), timeoutMS: commandTimeout,
	}
	if data != nil {
		cdb[1], cdb[2], cdb[6] = protocolPIOIn, flagInBlocks, 1
		h.direction, h.dataLen, h.data = sgFromDev, uint32(len(data)), unsafe.Pointer(&data[0])
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), sgIO, uintptr(unsafe.Pointer(h)))
	runtime.KeepAlive(cdb)
	runtime.KeepAlive(sense)
	runtime.KeepAlive(data)
	switch {
	case errno != 0:
		return nil, fmt.Errorf("SMART: %w", errno)
	case h.host != 0:
		return nil, fmt.Errorf("SMART: the controller answers with status %#x", h.host)
	case data != nil && h.status != 0:
		return nil, fmt.Errorf("SMART: the disk refuses it (status %#x)", h.status)
	}
	return sense[:min(int(h.senseLen), len(sense))], nil
}

func askATA(fd int) (Health, error) {
	data, thresholds := make([]byte, 512), make([]byte, 512)
	if _, err := smartCommand(fd, smartReadData, data); err != nil {
		return Health{}, err
	}
	if _, err := smartCommand(fd, smartReadThresholds, thresholds); err != nil {
		thresholds = nil // newer standards have no thresholds
	}
	attributes, err := parseSMART(data, thresholds)
	if err != nil {
		return Health{}, err
	}
	sense, err := smartCommand(fd, smartReturnStatus, nil)
	if err != nil {
		sense = nil
	}
	return ataHealth(attributes, sense), nil
}
