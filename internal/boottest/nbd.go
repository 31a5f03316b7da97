package boottest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// export serves a disk by the protocol of network block devices over a socket pair
// (doc/proto.md of github.com/NetworkBlockDevice/nbd). QEMU is its only client, so it
// opens no file of this machine. What the guest writes goes to a file without a name,
// whose size is bounded, and is gone with this process.
type export struct {
	base io.ReaderAt
	size int64
	room *room

	mu     sync.Mutex      // guards the fields below
	slots  map[int64]int64 // block -> place in the file
	read   int64           // bytes beyond the first sectors
	wrote  int64
	full   bool
	broken error // what of the backup could not be read
}

// room is the space for what the disks of one test are overwritten with.
type room struct {
	file *os.File
	mu   sync.Mutex
	used int64
	most int64
}

func (r *room) take() (at int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used+blockSize > r.most {
		return 0, false
	}
	r.used += blockSize
	return r.used - blockSize, true
}

const (
	blockSize  = 4096
	firstBytes = 4096     // what the firmware reads of each disk before it starts anything
	maxRequest = 32 << 20 // bytes, the protocol's own limit
)

// The numbers of the protocol.
const (
	nbdMagic, nbdOption, nbdReply     = 0x4e42444d41474943, 0x49484156454f5054, 0x3e889045565a9
	nbdRequest, nbdSimple             = 0x25609513, 0x67446698
	optExport, optAbort, optInfo      = 1, 2, 6
	optGo                             = 7
	repAck, repInfo, repUnsup         = 1, 3, 1<<31 | 1
	cmdRead, cmdWrite, cmdDisc, cmdFl = 0, 1, 2, 3
	flagsHas                          = 1 | 1<<2 // it has flags, and knows flush
	errIO, errInval, errSpace         = 5, 22, 28
)

// serve answers one client until it goes.
func (e *export) serve(c net.Conn) error {
	defer c.Close()
	if err := e.greet(c); err != nil {
		return err
	}
	var h [28]byte
	for {
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h[:]) != nbdRequest {
			return errors.New("no request of the protocol")
		}
		kind := binary.BigEndian.Uint16(h[6:])
		off, n := int64(binary.BigEndian.Uint64(h[16:])), int64(binary.BigEndian.Uint32(h[24:]))
		if kind == cmdDisc {
			return nil
		}
		if (kind == cmdRead || kind == cmdWrite) && n > maxRequest {
			return fmt.Errorf("a request for %d bytes", n)
		}
		var data []byte
		if kind == cmdRead || kind == cmdWrite {
			data = make([]byte, n)
		}
		if kind == cmdWrite {
			if _, err := io.ReadFull(c, data); err != nil {
				return err
			}
		}
		var code uint32
		switch within := off >= 0 && off <= e.size-n; {
		case kind == cmdFl:
		case kind == cmdRead && within:
			code = e.readAt(data, off)
		case kind == cmdWrite && within:
			code = e.writeAt(data, off)
		default:
			code = errInval
		}
		out := binary.BigEndian.AppendUint32(nil, nbdSimple)
		out = binary.BigEndian.AppendUint32(out, code)
		out = append(out, h[8:16]...)
		if kind == cmdRead && code == 0 {
			out = append(out, data...)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
}

// greet does the handshake, which ends with the size of the disk.
func (e *export) greet(c net.Conn) error {
	hello := binary.BigEndian.AppendUint64(nil, nbdMagic)
	hello = binary.BigEndian.AppendUint64(hello, nbdOption)
	if _, err := c.Write(append(hello, 0, 3)); err != nil { // fixed newstyle, no zeroes
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(c, flags[:]); err != nil {
		return err
	}
	for {
		var h [16]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return err
		}
		option, n := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
		if binary.BigEndian.Uint64(h[:]) != nbdOption || n > 64<<10 {
			return errors.New("no option of the protocol")
		}
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			out := binary.BigEndian.AppendUint64(nil, nbdReply)
			out = binary.BigEndian.AppendUint32(out, option)
			out = binary.BigEndian.AppendUint32(out, kind)
			out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
			_, err := c.Write(append(out, data...))
			return err
		}
		switch option {
		case optExport:
			out := binary.BigEndian.AppendUint64(nil, uint64(e.size))
			_, err := c.Write(binary.BigEndian.AppendUint16(out, flagsHas))
			return err
		case optInfo, optGo:
			info := binary.BigEndian.AppendUint16(nil, 0)
			info = binary.BigEndian.AppendUint64(info, uint64(e.size))
			info = binary.BigEndian.AppendUint16(info, flagsHas)
			if err := errors.Join(reply(repInfo, info), reply(repAck, nil)); err != nil || option == optGo {
				return err
			}
		case optAbort:
			return reply(repAck, nil)
		default:
			if err := reply(repUnsup, nil); err != nil {
				return err
			}
		}
	}
}

func (e *export) readAt(p []byte, off int64) (code uint32) {
	e.mu.Lock()
	if beyond := off + int64(len(p)) - firstBytes; beyond > 0 {
		e.read += min(beyond, int64(len(p)))
	}
	e.mu.Unlock()
	if err := e.fill(p, off); err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.broken = err
		return errIO
	}
	return 0
}

// fill reads what the guest sees.
func (e *export) fill(p []byte, off int64) error {
	if n, err := e.base.ReadAt(p, off); n < len(p) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for b := off / blockSize; b*blockSize < off+int64(len(p)) && len(e.slots) > 0; b++ {
		slot, is := e.slots[b]
		if !is {
			continue
		}
		from, to := max(off, b*blockSize), min(off+int64(len(p)), (b+1)*blockSize)
		if _, err := e.room.file.ReadAt(p[from-off:to-off], slot+from-b*blockSize); err != nil {
			return err
		}
	}
	return nil
}

func (e *export) writeAt(p []byte, off int64) (code uint32) {
	for b := off / blockSize; b*blockSize < off+int64(len(p)); b++ {
		from, to := max(off, b*blockSize), min(off+int64(len(p)), (b+1)*blockSize)
		block := make([]byte, min(blockSize, e.size-b*blockSize))
		if int64(len(block)) != to-from {
			if err := e.fill(block, b*blockSize); err != nil {
				return errIO
			}
		}
		copy(block[from-b*blockSize:], p[from-off:to-off])
		e.mu.Lock()
		slot, is := e.slots[b]
		if !is {
			if slot, is = e.room.take(); is {
				e.slots[b] = slot
			} else {
				e.full = true
			}
		}
		e.mu.Unlock()
		if !is {
			return errSpace
		}
		if _, err := e.room.file.WriteAt(block, slot); err != nil {
			e.mu.Lock()
			e.full = true
			e.mu.Unlock()
			return errSpace
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wrote += int64(len(p))
	return 0
}
