// Package convert reads and writes disks in the forms of other programs. It reads
// and writes qcow2, reads zstd streams, and writes raw bytes with holes.
package convert

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"testbox-imaging/internal/image"
)

// Source is a disk to be written in another form.
type Source interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Sink is a file to write to. Bytes that are not written read as zeros.
type Sink interface {
	io.WriterAt
	Truncate(size int64) error
}

// Progress is told how many bytes of the disk are done.
type Progress func(done, total int64)

// grain is the unit in which zeros are left out as holes, in bytes. It is a cluster
// of qcow2.
const grain = 64 << 10

// WriteRaw writes the raw bytes of a disk, with holes for zeros.
func WriteRaw(ctx context.Context, src Source, dst Sink, told Progress) error {
	if err := dst.Truncate(src.Size()); err != nil {
		return err
	}
	return clusters(ctx, src, told, func(b []byte, off int64) error {
		_, err := dst.WriteAt(b, off)
		return err
	})
}

// clusters reads a disk in order. It calls do for each part of grain bytes that is
// not zero. The last part may be shorter.
func clusters(ctx context.Context, src Source, told Progress, do func(b []byte, off int64) error) error {
	size := src.Size()
	buf := make([]byte, image.PieceSize)
	for at := int64(0); at < size; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), size-at)]
		if n, err := src.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("read at byte %d: %w", at, or(err, io.ErrUnexpectedEOF))
		}
		for i := 0; i < len(b); i += grain {
			part := b[i:min(i+grain, len(b))]
			if image.IsZero(part) {
				continue
			}
			if err := do(part, at+int64(i)); err != nil {
				return err
			}
		}
		if told != nil {
			told(at+int64(len(b)), size)
		}
	}
	return nil
}

func or(a, b error) error {
	if a != nil && a != io.EOF {
		return a
	}
	return b
}

// The form of qcow2 is described in QEMU's docs/interop/qcow2.txt. All numbers are
// big-endian. The files that are written here have version 3 and clusters of 64
// KiB. They are neither compressed nor encrypted, and have no snapshots.
const (
	qcowMagic     = "QFI\xfb"
	clusterBits   = 16
	cluster       = 1 << clusterBits
	l2Entries     = cluster / 8
	refBlock      = cluster / 2         // refcounts of 16 bits in a block
	maxQcowSize   = int64(1) << 52      // bytes
	entryCopied   = uint64(1) << 63     // the cluster's refcount is 1
	l2Covers      = l2Entries * cluster // bytes of the disk
	headerLen     = 104
	refcountOrder = 4
)

// WriteQcow2 writes a disk as a qcow2 file. Clusters that are zero are left out.
func WriteQcow2(ctx context.Context, src Source, dst Sink, told Progress) error {
	size := src.Size()
	if size < 1 || size > maxQcowSize || size%512 != 0 {
		return fmt.Errorf("a disk of %d bytes does not fit into qcow2: it wants whole sectors of 512 bytes", size)
	}
	q := &qcowWriter{dst: dst, next: cluster, l1: make([]uint64, (size+l2Covers-1)/l2Covers), table: -1}
	if err := clusters(ctx, src, told, q.put); err != nil {
		return err
	}
	return q.finish(size)
}

type qcowWriter struct {
	dst   Sink
	next  int64    // place in the file of the next cluster, behind the header's
	l1    []uint64 // places of the level-2 tables
	l2    [l2Entries]uint64
	table int64 // index in l1 of the table in l2, or -1 if there is none
	buf   [cluster]byte
}

// put writes a cluster of the disk.
func (q *qcowWriter) put(b []byte, off int64) error {
	if table := off / l2Covers; table != q.table {
		if err := q.flush(); err != nil {
			return err
		}
		q.table = table
	}
	q.l2[off%l2Covers/cluster] = uint64(q.next) | entryCopied
	if len(b) < cluster {
		b = q.buf[:copy(q.buf[:], b)]
		clear(q.buf[len(b):])
		b = q.buf[:]
	}
	return q.write(b)
}

// write writes whole clusters.
func (q *qcowWriter) write(b []byte) error {
	_, err := q.dst.WriteAt(b, q.next)
	q.next += int64(len(b))
	return err
}

// flush writes the level-2 table in l2, which is complete.
func (q *qcowWriter) flush() error {
	if q.table < 0 {
		return nil
	}
	q.l1[q.table] = uint64(q.next) | entryCopied
	err := q.write(words(q.l2[:]))
	clear(q.l2[:])
	return err
}

// words gives numbers in the form of the file, filled up to whole clusters.
func words(v []uint64) []byte {
	b := make([]byte, 0, (len(v)*8+cluster-1)/cluster*cluster)
	for _, n := range v {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b[:cap(b)]
}

// finish writes the level-1 table, the refcounts and the header, which are known
// only at the end.
func (q *qcowWriter) finish(size int64) error {
	if err := q.flush(); err != nil {
		return err
	}
	l1 := q.next
	if err := q.write(words(q.l1)); err != nil {
		return err
	}
	refs, refClusters, err := q.refcounts()
	if err != nil {
		return err
	}
	h := make([]byte, 0, headerLen+8)
	h = append(h, qcowMagic...)
	h = binary.BigEndian.AppendUint32(h, 3)
	h = append(h, make([]byte, 12)...) // no backing file
	h = binary.BigEndian.AppendUint32(h, clusterBits)
	h = binary.BigEndian.AppendUint64(h, uint64(size))
	h = binary.BigEndian.AppendUint32(h, 0) // not encrypted
	h = binary.BigEndian.AppendUint32(h, uint32(len(q.l1)))
	h = binary.BigEndian.AppendUint64(h, uint64(l1))
	h = binary.BigEndian.AppendUint64(h, uint64(refs))
	h = binary.BigEndian.AppendUint32(h, uint32(refClusters))
	h = append(h, make([]byte, 12+24)...) // no snapshots, no features
	h = binary.BigEndian.AppendUint32(h, refcountOrder)
	h = binary.BigEndian.AppendUint32(h, headerLen)
	h = append(h, make([]byte, 8)...) // no header extensions
	_, err = q.dst.WriteAt(h, 0)
	return err
}

// refcounts writes the refcounts. The refcount of each cluster is 1, even of the
// clusters that have the refcounts.
func (q *qcowWriter) refcounts() (table int64, tableClusters int64, err error) {
	used := q.next / cluster
	blocks := int64(1)
	for {
		tableClusters = (blocks*8 + cluster - 1) / cluster
		all := used + blocks + tableClusters
		need := (all + refBlock - 1) / refBlock
		if need <= blocks {
			break
		}
		blocks = need
	}
	left := used + blocks + tableClusters
	places := make([]uint64, blocks)
	for i := range places {
		places[i] = uint64(q.next)
		clear(q.buf[:])
		for j := range min(left, refBlock) {
			q.buf[2*j+1] = 1
		}
		left -= min(left, refBlock)
		if err := q.write(q.buf[:]); err != nil {
			return 0, 0, err
		}
	}
	table = q.next
	return table, tableClusters, q.write(words(places))
}
