package convert

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Qcow2 reads the disk that is in a qcow2 file.
type Qcow2 struct {
	r    io.ReaderAt
	file int64 // size of the file, in bytes
	size int64 // size of the disk, in bytes
	bits uint  // a cluster has 1<<bits bytes
	zstd bool  // compressed clusters are zstd, not deflate
	l1   []uint64

	mu     sync.Mutex // guards the fields below
	table  int64      // place in the file of the table in l2, or 0 if l2 has none
	l2     []uint64   // the level-2 table that was read last
	packed uint64     // entry of the cluster in plain, or 0 if plain has none
	plain  []byte     // the compressed cluster that was unpacked last
}

// Places of fields in the header, in bytes.
const (
	atBacking   = 8
	atBits      = 20
	atSize      = 24
	atCrypt     = 32
	atL1Size    = 36
	atL1        = 40
	atSnapshots = 60
	atFeatures  = 72
	atOrder     = 96
	atLen       = 100
	atPacking   = 104
)

// These are the incompatible features that are known. featDirty only says that
// refcounts may be wrong, and refcounts are not read here.
const (
	featDirty   = 1 << 0
	featCorrupt = 1 << 1
	featPacking = 1 << 3
)

// maxL1 bounds the number of entries in the level-1 table. They have 32 MiB, the
// same limit as in QEMU.
const maxL1 = 4 << 20

// OpenQcow2 opens a qcow2 file of size bytes. It refuses files with features that
// it does not know, such as backing files, encryption, external data and extended
// entries.
func OpenQcow2(r io.ReaderAt, size int64) (*Qcow2, error) {
	q, err := openQcow2(r, size)
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	return q, nil
}

func openQcow2(r io.ReaderAt, size int64) (*Qcow2, error) {
	h := make([]byte, 112)
	if n, err := r.ReadAt(h, 0); n < 72 {
		return nil, or(err, errors.New("the file is too short"))
	}
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	if string(h[:4]) != qcowMagic || version != 2 && version != 3 {
		return nil, errors.New("this is no qcow2 of version 2 or 3")
	}
	q := &Qcow2{r: r, file: size, size: int64(be.Uint64(h[atSize:])), bits: uint(be.Uint32(h[atBits:]))}
	switch {
	case be.Uint64(h[atBacking:]) != 0:
		return nil, errors.New("it has a backing file; `qemu-img convert -O qcow2` makes it whole")
	case be.Uint32(h[atCrypt:]) != 0:
		return nil, errors.New("it is encrypted; `qemu-img convert` with its key makes a plain one")
	case q.bits < 9 || q.bits > 21 || q.size < 1 || q.size > maxQcowSize:
		return nil, fmt.Errorf("it has %d bytes in clusters of 2^%d", q.size, q.bits)
	}
	if version == 3 {
		if err := q.features(h); err != nil {
			return nil, err
		}
	}
	return q, q.readL1(int64(be.Uint32(h[atL1Size:])), int64(be.Uint64(h[atL1:])))
}

func (q *Qcow2) features(h []byte) error {
	f := binary.BigEndian.Uint64(h[atFeatures:])
	switch {
	case f&featCorrupt != 0:
		return errors.New("it is marked as damaged; `qemu-img check -r all` may repair it")
	case f&^(featDirty|featPacking) != 0:
		return fmt.Errorf("it has features (%#x) that this program does not know; `qemu-img convert -O qcow2` makes one without", f)
	case f&featPacking != 0 && binary.BigEndian.Uint32(h[atLen:]) <= atPacking:
		return errors.New("its header is too short")
	}
	if f&featPacking != 0 {
		switch h[atPacking] {
		case 0:
		case 1:
			q.zstd = true
		default:
			return fmt.Errorf("it is compressed in a way (%d) that this program does not know", h[atPacking])
		}
	}
	return nil
}

func (q *Qcow2) cluster() int64 { return 1 << q.bits }

// covers is how many bytes of the disk a level-2 table describes.
func (q *Qcow2) covers() int64 { return q.cluster() * q.cluster() / 8 }

func (q *Qcow2) readL1(n, off int64) error {
	need := (q.size + q.covers() - 1) / q.covers()
	if n < need || need > maxL1 {
		return fmt.Errorf("its table has %d entries for %d", n, need)
	}
	if off < 0 || off > q.file || need*8 > q.file-off {
		return errors.New("its table is outside of the file")
	}
	b := make([]byte, need*8)
	if err := q.fill(b, off); err != nil {
		return err
	}
	q.l1 = numbers(b)
	return nil
}

func numbers(b []byte) []uint64 {
	out := make([]uint64, len(b)/8)
	for i := range out {
		out[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return out
}

func (q *Qcow2) fill(b []byte, off int64) error {
	if n, err := q.r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("read at byte %d of the file: %w", off, or(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// Size is the size of the disk, in bytes.
func (q *Qcow2) Size() int64 { return q.size }

// ReadAt implements io.ReaderAt of the disk.
func (q *Qcow2) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at byte %d", off)
	}
	n := 0
	for n < len(p) && off < q.size {
		part := p[n:min(int64(len(p)), int64(n)+q.cluster()-off%q.cluster(), int64(n)+q.size-off)]
		if err := q.readCluster(part, off); err != nil {
			return n, fmt.Errorf("qcow2: %w", err)
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// NextData gives the next run of the disk, at or behind off, for which the file has
// data. All bytes from off to that run are zero. If a table cannot be read, its
// clusters count as data, and reading the disk there gives the error.
func (q *Qcow2) NextData(off int64) (from, to int64) {
	for from = off; from < q.size; {
		if q.l1[from/q.covers()]&entryPlace == 0 {
			from += q.covers() - from%q.covers()
			continue
		}
		end := min(q.size, from+q.covers()-from%q.covers())
		for ; from < end; from += q.cluster() - from%q.cluster() {
			if !q.isZero(from) {
				return from, q.dataEnd(from, end)
			}
		}
	}
	return q.size, q.size
}

// dataEnd gives the end of the run of clusters with data that begins at from. It is
// at most end.
func (q *Qcow2) dataEnd(from, end int64) int64 {
	for from < end && !q.isZero(from) {
		from += q.cluster() - from%q.cluster()
	}
	return min(from, end)
}

// isZero reports whether the cluster that off lies in is known to be zero.
func (q *Qcow2) isZero(off int64) bool {
	e, err := q.entry(off)
	return err == nil && e&entryPacked == 0 && (e&entryZero != 0 || e&entryPlace == 0)
}

// Fields of table entries.
const (
	entryPlace  = 0x00fffffffffffe00
	entryPacked = uint64(1) << 62
	entryZero   = 1
)

// readCluster fills p with bytes of one cluster, from off on.
func (q *Qcow2) readCluster(p []byte, off int64) error {
	e, err := q.entry(off)
	switch {
	case err != nil:
		return err
	case e&entryPacked != 0:
		return q.readPacked(p, e, off%q.cluster())
	case e&entryZero != 0 || e&entryPlace == 0:
		clear(p)
		return nil
	}
	at := int64(e&entryPlace) + off%q.cluster()
	// The last cluster of a file may be cut short. The missing bytes are zero.
	if at >= q.file {
		return fmt.Errorf("a cluster at byte %d is outside of the file", at)
	}
	have := min(int64(len(p)), q.file-at)
	clear(p[have:])
	return q.fill(p[:have], at)
}

// entry gives the entry of a cluster in its level-2 table.
func (q *Qcow2) entry(off int64) (uint64, error) {
	place := int64(q.l1[off/q.covers()] & entryPlace)
	if place == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.table != place {
		b := make([]byte, q.cluster())
		q.table = 0
		if err := q.fill(b, place); err != nil {
			return 0, err
		}
		q.l2, q.table = numbers(b), place
	}
	return q.l2[off%q.covers()>>q.bits], nil
}

// readPacked fills p with bytes of a compressed cluster. It keeps the cluster that
// was unpacked last.
func (q *Qcow2) readPacked(p []byte, e uint64, from int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.packed != e {
		q.packed = 0
		b, err := q.unpack(e)
		if err != nil {
			return err
		}
		q.plain, q.packed = b, e
	}
	copy(p, q.plain[from:])
	return nil
}

func (q *Qcow2) unpack(e uint64) ([]byte, error) {
	x := 62 - (q.bits - 8)
	at := int64(e & (1<<x - 1))
	sectors := int64(e>>x&(1<<(q.bits-8)-1)) + 1
	if at >= q.file {
		return nil, fmt.Errorf("a compressed cluster at byte %d is outside of the file", at)
	}
	b := make([]byte, min(sectors*512-at%512, q.file-at))
	if err := q.fill(b, at); err != nil {
		return nil, err
	}
	var r io.Reader = flate.NewReader(bytes.NewReader(b))
	if q.zstd {
		d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		r = d
	}
	out := make([]byte, q.cluster())
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("a compressed cluster at byte %d cannot be unpacked: %w", at, err)
	}
	return out, nil
}
