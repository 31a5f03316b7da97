package xfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
	"testbox-imaging/internal/usedmap/volume"
)

// ring is a log that is written as Linux writes it.
type ring struct {
	superblock
	b             []byte
	head          int64
	cycle         uint32
	wrote         int64
	headers, unit int64
}

func newRing(t *rapid.T) *ring {
	r := &ring{cycle: 1, headers: 1, unit: 1}
	r.Version = 4
	size := rapid.Int64Range(512, 3000).Draw(t, "size")
	switch rapid.IntRange(0, 2).Draw(t, "version") {
	case 1:
		r.Version |= versionLogV2
	case 2:
		r.Version = 5
	}
	if r.logV2() {
		r.headers = rapid.SampledFrom([]int64{1, 2, 8}).Draw(t, "headers")
		r.unit = rapid.SampledFrom([]int64{1, 8, 64}).Draw(t, "unit")
		size = rapid.Int64Range(1200, 20000).Draw(t, "size of version 2") / r.unit * r.unit
	}
	r.UUID = [16]byte{7: 7}
	r.b = make([]byte, size*basicBlock)
	return r
}

func (r *ring) size() int64 { return int64(len(r.b)) / basicBlock }

// room is the most data blocks of a record.
func (r *ring) room() int64 { return min(max(r.headers*64, 32), r.size()/8) }

// record is one record as the blocks that go to the disk, from the head on;
// the head moves behind it.
func (r *ring) record(data, ops int64, flags byte) (at int64, out []byte) {
	total := (r.headers + data + r.unit - 1) / r.unit * r.unit
	data = total - r.headers
	out = make([]byte, total*basicBlock)
	h := recordHeader{Magic: logMagic, Cycle: r.cycle, Version: 1, Length: uint32(data * basicBlock),
		LSN: uint64(r.cycle)<<32 | uint64(r.head), Operations: uint32(ops), Format: logFormatLE, UUID: r.UUID}
	if r.logV2() {
		h.Version, h.Size = 2, uint32(r.headers*logCycleSize)
	}
	binary.Encode(out, binary.BigEndian, h)
	op := out[r.headers*basicBlock:]
	op[8], op[9] = logClient, flags
	binary.LittleEndian.PutUint16(op[12:], logUnmountType)
	for i := range total { // the part behind the ring's end is of the next cycle
		c := r.cycle
		if r.head+i >= r.size() {
			c++
		}
		word := out[i*basicBlock:]
		if i == 0 {
			word = word[4:]
		}
		binary.BigEndian.PutUint32(word, c)
	}
	at, r.head = r.head, r.head+total
	r.wrote += total
	if r.head >= r.size() {
		r.head -= r.size()
		if r.cycle++; r.cycle == logMagic {
			r.cycle++
		}
	}
	return at, out
}

// put brings a block of a record to the disk.
func (r *ring) put(at, i int64, out []byte) {
	copy(r.b[(at+i)%r.size()*basicBlock:], out[i*basicBlock:(i+1)*basicBlock])
}

func (r *ring) write(at int64, out []byte) {
	for i := range int64(len(out)) / basicBlock {
		r.put(at, i, out)
	}
}

func (r *ring) check() error {
	v := volume.New(context.Background(), bytes.NewReader(r.b), int64(len(r.b)), 512, nil)
	return newJournal(&r.superblock, v).check()
}

// A log that ends in an unmount is clean wherever it ends, and one that ends in
// anything else, or is written in part behind the unmount, is not.
func TestLogIsCleanOnlyAfterUnmount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(t)
		for range rapid.IntRange(0, 60).Draw(t, "records") {
			r.write(r.record(rapid.Int64Range(1, r.room()).Draw(t, "blocks"), 7, 1))
		}
		r.write(r.record(1, 1, logUnmount))
		if err := r.check(); err != nil {
			t.Fatalf("after an unmount: %v", err)
		}
		// Then records that reach the disk in any order and part, but the
		// first block of the first.
		for n := range rapid.IntRange(1, logInFlight).Draw(t, "in flight") {
			at, out := r.record(rapid.Int64Range(1, r.room()/2).Draw(t, "blocks"), 7, 1)
			for i := range int64(len(out)) / basicBlock {
				if n == 0 || rapid.Bool().Draw(t, "kept") {
					r.put(at, i, out)
				}
			}
		}
		if err := r.check(); err == nil {
			t.Fatal("clean, with a record behind the unmount")
		}
	})
}

func TestLogWithTornUnmount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(t)
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			r.write(r.record(rapid.Int64Range(1, r.room()).Draw(t, "blocks"), 7, 1))
		}
		at, out := r.record(1, 1, logUnmount)
		lost := rapid.Int64Range(0, int64(len(out))/basicBlock-1).Draw(t, "lost")
		for i := range int64(len(out)) / basicBlock {
			if i != lost {
				r.put(at, i, out)
			}
		}
		if err := r.check(); err == nil {
			t.Fatal("clean, without a block of the unmount")
		}
	})
}

func TestLogNotAsWritten(t *testing.T) {
	fresh := func(change func(r *ring)) error {
		r := &ring{cycle: 3, headers: 1, unit: 1, b: make([]byte, 2048*basicBlock)}
		r.Version, r.UUID = 5, [16]byte{1}
		r.write(r.record(20, 3, 1))
		r.write(r.record(1, 1, logUnmount))
		change(r)
		return r.check()
	}
	if err := fresh(func(*ring) {}); err != nil {
		t.Fatal(err)
	}
	if err := fresh(func(r *ring) { r.write(r.record(1, 1, 1)) }); !errors.Is(err, errNotClean) {
		t.Error(err)
	}
	// What was begun behind it and is not whole is no record: a kernel takes
	// it away.
	if err := fresh(func(r *ring) { at, out := r.record(20, 3, 1); r.put(at, 0, out) }); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*ring){
		"zero":              func(r *ring) { clear(r.b) },
		"start is zero":     func(r *ring) { clear(r.b[:basicBlock]) },
		"other UUID":        func(r *ring) { r.UUID[0]++ },
		"big-endian":        func(r *ring) { r.b[21*basicBlock+299+4]++ },
		"not at its place":  func(r *ring) { r.b[21*basicBlock+23]++ },
		"other version":     func(r *ring) { r.b[21*basicBlock+11] = 4 },
		"two operations":    func(r *ring) { r.b[21*basicBlock+43]++ },
		"no unmount":        func(r *ring) { r.b[22*basicBlock+9] = 0 },
		"other client":      func(r *ring) { r.b[22*basicBlock+8]++ },
		"other type":        func(r *ring) { r.b[22*basicBlock+12]++ },
		"wrong checksum":    func(r *ring) { r.b[21*basicBlock+recordCRC]++ },
		"no data":           func(r *ring) { binary.BigEndian.PutUint32(r.b[21*basicBlock+12:], 0) },
		"a record too long": func(r *ring) { binary.BigEndian.PutUint32(r.b[21*basicBlock+12:], 1<<32-1) },
		"no header":         func(r *ring) { clear(r.b[21*basicBlock : 21*basicBlock+4]) },
	} {
		if err := fresh(change); err == nil {
			t.Errorf("%s: clean", name)
		}
	}
}

// A record that lacks a block before the end of the ring is none, and neither
// is one behind it at the ring's start, though whole.
func TestLogWithHoleBeforeItsEnd(t *testing.T) {
	r := &ring{cycle: 1, headers: 1, unit: 1, b: make([]byte, 1000*basicBlock)}
	r.Version = 4
	for r.cycle < 3 || r.head < 985-64 {
		r.write(r.record(20, 3, 1))
	}
	r.write(r.record(985-3-r.head, 3, 1))
	r.write(r.record(1, 1, logUnmount))
	at, out := r.record(999-r.head, 3, 1)
	for i := range int64(len(out)) / basicBlock {
		if i != 5 {
			r.put(at, i, out)
		}
	}
	r.write(r.record(20, 3, 1))
	if err := r.check(); err != nil {
		t.Error(err)
	}
	r.put(at, 5, out)
	if err := r.check(); !errors.Is(err, errNotClean) {
		t.Error(err)
	}
}
