package xfs

import (
	"encoding/binary"
	"fmt"

	"testbox-imaging/internal/usedmap/volume"
)

// The log is a ring of basic blocks of 512 bytes. A record is a header, in
// version 2 with further header blocks, and data. The first word of every block
// is the number of the cycle in which it was written. In a header that is the
// second word, behind the magic number. So the cycles are like this:
//
//	cycle:  8 8 8 8 8 8 7 7 7 7 7 7 7 7      or at first  1 1 1 1 0 0 0 0
//	                    ^ head: the next record goes here
//
// Up to eight records are written at once, and may reach the disk in any order
// or only in part. So the head is searched as xlog_find_head does in Linux,
// fs/xfs/xfs_log_recover.c. The log is clean in the sense of
// xlog_check_unmount_rec there: a record with the unmount as its only operation
// is directly before the head.
const (
	logMagic       = 0xfeedbabe // XLOG_HEADER_MAGIC_NUM
	logCycleSize   = 32 << 10   // XLOG_HEADER_CYCLE_SIZE, the data for one header block
	logInFlight    = 8          // XLOG_MAX_ICLOGS
	logFormatLE    = 1          // XLOG_FMT_LINUX_LE
	logClient      = 0xaa       // XFS_LOG
	logUnmount     = 0x20       // XLOG_UNMOUNT_TRANS
	logUnmountType = 0x556e     // XLOG_UNMOUNT_TYPE
)

// journal is the log.
type journal struct {
	*superblock
	v    *volume.Volume
	size int64 // basic blocks
	// record is the most blocks of one record. flight is the most blocks that
	// are written at once (XLOG_REC_SHIFT, XLOG_TOTAL_REC_SHIFT).
	record, flight int64
}

// checkLog fails if the log has changes that the file system lacks.
func (s *superblock) checkLog(v *volume.Volume) error {
	no, at := s.locate(s.LogStart)
	part := v.Part(s.groupOffset(no)+int64(at)*int64(s.BlockSize), int64(s.LogBlocks)*int64(s.BlockSize))
	if err := newJournal(s, part).check(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// newJournal is the log whose bytes are v.
func newJournal(s *superblock, v *volume.Volume) *journal {
	j := &journal{superblock: s, v: v, size: v.Size() / basicBlock, record: logCycleSize / basicBlock}
	if s.logV2() {
		j.record = maxLogUnit / basicBlock
	}
	j.flight = min(logInFlight*j.record, j.size)
	return j
}

func (j *journal) check() error {
	head, err := j.head()
	if err != nil {
		return err
	}
	return j.unmounted(head)
}

// read reads n blocks of the ring, at most one or two megabytes. The first
// block follows the last one.
func (j *journal) read(at, n int64) ([]byte, error) {
	at = (at%j.size + j.size) % j.size
	if at+n <= j.size {
		return j.v.Bytes(at*basicBlock, int(n*basicBlock))
	}
	b, err := j.v.Bytes(at*basicBlock, int((j.size-at)*basicBlock))
	if err != nil {
		return nil, err
	}
	rest, err := j.v.Bytes(0, int((at+n-j.size)*basicBlock))
	return append(b, rest...), err
}

func cycleOf(b []byte) uint32 {
	if c := binary.BigEndian.Uint32(b); c != logMagic {
		return c
	}
	return binary.BigEndian.Uint32(b[4:])
}

func (j *journal) cycle(at int64) (uint32, error) {
	b, err := j.read(at, 1)
	if err != nil {
		return 0, err
	}
	return cycleOf(b), nil
}

// firstOf is the first of n blocks from at on that has the cycle, or -1.
func (j *journal) firstOf(at, n int64, cycle uint32) (int64, error) {
	if n <= 0 {
		return -1, nil
	}
	b, err := j.read(at, n)
	if err != nil {
		return 0, err
	}
	for i := range n {
		if cycleOf(b[i*basicBlock:]) == cycle {
			return at + i, nil
		}
	}
	return -1, nil
}

// search finds where the cycle begins, by bisection (xlog_find_cycle_start).
// Block to must have the cycle, and block from must not.
func (j *journal) search(from, to int64, cycle uint32) (int64, error) {
	for to-from > 1 {
		mid := (from + to) / 2
		c, err := j.cycle(mid)
		if err != nil {
			return 0, err
		}
		if c == cycle {
			to = mid
		} else {
			from = mid
		}
	}
	return to, nil
}

// head finds the block where the next record would be written.
func (j *journal) head() (int64, error) {
	first, err := j.cycle(0)
	if err != nil {
		return 0, err
	}
	last, err := j.cycle(j.size - 1)
	if err != nil {
		return 0, err
	}
	switch {
	case first == 0: // impossible, since mkfs and xfs_repair leave a record there
		return 0, fmt.Errorf("it is zero")
	case last == 0:
		return j.headBeforeZeros()
	case first == last:
		return j.settle(j.size, last-1)
	}
	head, err := j.search(0, j.size-1, last)
	if err != nil {
		return 0, err
	}
	return j.settle(head, last)
}

// headBeforeZeros is head for a log that was never full (xlog_find_zeroed).
func (j *journal) headBeforeZeros() (int64, error) {
	head, err := j.search(0, j.size-1, 0)
	if err != nil {
		return 0, err
	}
	scan := min(j.flight, head)
	hole, err := j.firstOf(head-scan, scan, 0)
	if err != nil {
		return 0, err
	}
	if hole >= 0 {
		head = hole
	}
	return j.whole(head, min(j.flight, head))
}

// settle corrects a head that was found by bisection. Records that were written
// at once may have left gaps before it. Among the blocks before the head that
// may have been written at once, it looks for the first one that is still of
// the cycle stop. If they go round the end of the ring, it first looks there
// for one of the cycle before stop. Such a block is the head.
func (j *journal) settle(head int64, stop uint32) (int64, error) {
	around := max(0, j.flight-head)
	hole, err := j.firstOf(j.size-around, around, stop-1)
	if err == nil && hole < 0 {
		from := max(0, head-j.flight)
		hole, err = j.firstOf(from, head-from, stop)
	}
	if err != nil {
		return 0, err
	}
	if hole >= 0 {
		head = hole
	}
	return j.whole(head, min(j.record, j.size))
}

// whole moves the head before the last record if that was not written to its
// end (xlog_find_verify_log_record). The record begins at most scan blocks
// before the head.
func (j *journal) whole(head, scan int64) (int64, error) {
	back, h, err := j.last(head, scan)
	if err != nil {
		return 0, err
	}
	if back != h.blocks(j.logV2()) {
		head -= back
	}
	return (head + j.size) % j.size, nil
}

// last finds the header of the last record that begins at most scan blocks
// before head. back is how many blocks before the head it begins.
func (j *journal) last(head, scan int64) (back int64, h *recordHeader, err error) {
	b, err := j.read(head-scan, scan)
	if err != nil {
		return 0, nil, err
	}
	for back = 1; back <= scan; back++ {
		at := b[(scan-back)*basicBlock:]
		if binary.BigEndian.Uint32(at) != logMagic {
			continue
		}
		h = &recordHeader{}
		if err := (block{j.superblock, at}).decode(h); err != nil {
			return 0, nil, err
		}
		if h.UUID != j.UUID {
			return 0, nil, fmt.Errorf("it belongs to another file system")
		}
		return back, h, nil
	}
	return 0, nil, fmt.Errorf("its last record is not found")
}
