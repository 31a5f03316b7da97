package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/object"
)

// Sink is where a pack is written to. The pack is not visible before Commit.
type Sink interface {
	io.Writer
	Commit() error // makes the pack durable and visible
	Abort()
}

// Writer writes a pack. It is not safe for concurrent use. After an error of
// the sink, it can only be aborted.
type Writer struct {
	w     Sink
	out   *bufio.Writer // of w
	size  int64
	table []byte
	buf   []byte
	err   error // error of the sink, or the reason why the Writer is finished
}

// writeTogether is how many bytes go to the sink by one write. Most objects are short.
const writeTogether = 256 << 10

// NewWriter begins a pack. After an error it still returns the Writer, so that
// the caller can abort it.
func NewWriter(w Sink, h Header) (*Writer, error) {
	p := &Writer{w: w, out: bufio.NewWriterSize(w, writeTogether)}
	p.write(h.append(nil))
	return p, p.err
}

// Append adds an object, and returns where it is. If the object is not valid or
// the pack is full, Append returns an error and the pack does not change.
func (p *Writer) Append(o object.Object) (Entry, error) {
	if p.err != nil {
		return Entry{}, p.err
	}
	if err := o.Check(); err != nil {
		return Entry{}, fmt.Errorf("%v is refused: %w", o.Key, err)
	}
	e := Entry{Key: o.Key, Codec: o.Codec, Off: uint32(p.size), Stored: uint32(len(o.Data)), Raw: uint32(o.RawLen)}
	if e.End()+int64(len(p.table)+tableEntrySize+trailerSize) > MaxSize {
		return Entry{}, fmt.Errorf("%v does not go into a pack of %d bytes any more: seal it and begin another", o.Key, p.size)
	}
	p.buf = e.appendHeader(p.buf[:0], xxh3.Hash(o.Data))
	p.write(p.buf)
	p.write(o.Data)
	p.table = e.appendTable(p.table)
	return e, p.err
}

func (p *Writer) write(b []byte) {
	if p.err != nil {
		return
	}
	n, err := p.out.Write(b)
	p.failed(err)
	p.size += int64(n)
}

func (p *Writer) failed(err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("write a pack: %w", err)
	}
}

// Size returns how many bytes the pack has so far. The table is included only
// after Seal.
func (p *Writer) Size() int64 { return p.size }

// Len returns the number of objects in the pack.
func (p *Writer) Len() int { return len(p.table) / tableEntrySize }

// Seal ends the pack and makes it durable. After an error there is no pack, or
// one that must not be relied on.
func (p *Writer) Seal() error {
	sum := blake3.Sum256(p.table)
	end := append([]byte(nil), tableMagic...)
	end = binary.LittleEndian.AppendUint32(end, uint32(p.Len()))
	end = binary.LittleEndian.AppendUint32(end, uint32(p.size))
	end = append(end, sum[:]...)
	end = binary.LittleEndian.AppendUint64(end, 0)
	p.write(p.table)
	p.write(appendSum(end, 0))
	p.failed(p.out.Flush())
	if p.err != nil {
		return p.err
	}
	if err := p.w.Commit(); err != nil {
		p.err = fmt.Errorf("seal a pack: %w", err)
		return p.err
	}
	p.err = errors.New("the pack is sealed")
	return nil
}

// Abort drops the pack. After Seal it does nothing.
func (p *Writer) Abort() {
	p.w.Abort()
	if p.err == nil {
		p.err = errors.New("the pack was given up")
	}
}
