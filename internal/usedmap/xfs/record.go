package xfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var errNotClean = errors.New("it was not cleanly unmounted")

// recordHeader is struct xlog_rec_header.
type recordHeader struct {
	Magic, Cycle, Version, Length uint32
	LSN, TailLSN                  uint64
	CRC, Previous, Operations     uint32
	CycleData                     [logCycleSize / basicBlock]uint32
	Format                        uint32
	UUID                          [16]byte
	Size                          uint32
}

const (
	recordCRC = 32                            // h_crc
	extHeader = 4 + logCycleSize/basicBlock*4 // struct xlog_rec_ext_header
)

// headerBlocks is how many blocks the header of the record has
// (xlog_logrec_hblks).
func (h *recordHeader) headerBlocks(v2 bool) int64 {
	if v2 && h.Version&2 != 0 && h.Size > logCycleSize {
		return (int64(h.Size) + logCycleSize - 1) / logCycleSize
	}
	return 1
}

// blocks is how many blocks the record has, with its header.
func (h *recordHeader) blocks(v2 bool) int64 {
	return h.headerBlocks(v2) + (int64(h.Length)+basicBlock-1)/basicBlock
}

// unmounted fails unless the record before the head is an unmount and nothing
// else.
func (j *journal) unmounted(head int64) error {
	back, h, err := j.last(head, min(j.record+logCycleSize/basicBlock, j.size))
	if err != nil {
		return err
	}
	at := (head - back + j.size) % j.size
	headers, n := h.headerBlocks(j.logV2()), h.blocks(j.logV2())
	if h.Operations != 1 || n != back || n <= headers {
		return errNotClean
	}
	b, err := j.read(at, n)
	if err != nil {
		return err
	}
	// struct xlog_op_header. The first word of each block is stored in the
	// record header.
	op := b[headers*basicBlock:]
	switch {
	case op[8] != logClient || op[9]&logUnmount == 0:
		return errNotClean
	case h.Format != logFormatLE || binary.LittleEndian.Uint16(op[12:]) != logUnmountType:
		return fmt.Errorf("it was written by another kind of machine (format %d)", h.Format)
	case h.Version != 1 && h.Version != 2, h.LSN != uint64(h.Cycle)<<32|uint64(at):
		return fmt.Errorf("its last record belongs elsewhere")
	}
	return h.checkSum(b, headers)
}

// checkSum checks h_crc (xlog_cksum). The sum is over the header up to its last
// field, the further header blocks that the data needs, and the data. mkfs and
// kernels before 3.8 write 0. On i386 the header is shorter by 4 bytes of
// padding.
func (h *recordHeader) checkSum(b []byte, headers int64) error {
	want := binary.LittleEndian.Uint32(b[recordCRC:])
	if want == 0 {
		return nil
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	data := b[headers*basicBlock:][:h.Length]
	for _, size := range []int64{328, 324} {
		sum := checksum(b[:size], recordCRC)
		for i := int64(1); i*logCycleSize < int64(h.Length); i++ {
			sum = crc32.Update(sum, table, b[i*basicBlock:][:extHeader])
		}
		if crc32.Update(sum, table, data) == want {
			return nil
		}
	}
	return fmt.Errorf("the checksum of its last record is wrong")
}
