package copier

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// cached is a disk that must not be read where something was written since the
// last flush.
type cached struct {
	faults.Target
	sync   sync.Mutex // held by Sync
	mu     sync.Mutex // guards the fields below
	dirty  []faults.Op
	reads  int        // of the body
	during int        // how many of them came before the last write of the body
	wait   *faults.Op // this write waits until the body was read
	read   chan struct{}
}

func newCached(d *faults.Disk) *cached { return &cached{Target: d, read: make(chan struct{})} }

func (c *cached) body(off, n int64) bool { return off >= bootArea && off+n <= c.Size()-bootArea }

func (c *cached) ReadAt(b []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.dirty {
		if o.Off < off+int64(len(b)) && off < o.End() {
			return 0, errors.New("it is read before it was flushed")
		}
	}
	if c.body(off, int64(len(b))) {
		if c.reads++; c.reads == 1 {
			close(c.read)
		}
	}
	return c.Target.ReadAt(b, off)
}

func (c *cached) WriteAt(b []byte, off int64) (int, error) {
	n := int64(len(b))
	if w := c.wait; w != nil && off < w.End() && w.Off < off+n {
		select {
		case <-c.read:
		case <-time.After(time.Minute):
			return 0, errors.New("nothing was read back while this write waited")
		}
	}
	c.wrote(off, n)
	return c.Target.WriteAt(b, off)
}

func (c *cached) ZeroAt(off, n int64) error {
	c.wrote(off, n)
	return c.Target.ZeroAt(off, n)
}

func (c *cached) wrote(off, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = append(c.dirty, faults.Op{Off: off, N: n})
	if c.body(off, n) {
		c.during = c.reads
	}
}

func (c *cached) Sync() error {
	c.sync.Lock()
	defer c.sync.Unlock()
	c.mu.Lock()
	done := len(c.dirty)
	c.mu.Unlock()
	err := c.Target.Sync()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = c.dirty[done:]
	return err
}

// TestReadBackFollows: the read-back runs beside the writing, never before a
// flush; and behind the writing where the disk turns, or where a read would
// first wait for all writes.
func TestReadBackFollows(t *testing.T) {
	const size = 40*mib + 512
	disk := conform.Disks(size)["noise"]
	s, f := mustSave(t, disk), mustBackup(t, disk)
	for name, job := range map[string]func(Target) Job{
		"store": func(d Target) Job { return s.job(t, "sda", d) },
		"share": func(d Target) Job { return f.job("sda", d) },
	} {
		c := newCached(faults.NewDisk(old(size)))
		c.wait = &faults.Op{Off: size - 2*mib, N: mib}
		rs, err := Restore(t.Context(), []Job{job(c)}, RestoreOptions{Full: true, flush: 2 * mib})
		if err != nil || c.during == 0 || rs[0].Verified != size {
			t.Errorf("%s: %+v, %v; %d of the body's %d reads came before its last write", name, rs, err, c.during, c.reads)
		}
		c = newCached(faults.NewDisk(old(size)))
		turning := job(c)
		turning.Rotational = true
		_, err = Restore(t.Context(), []Job{turning}, RestoreOptions{Full: true, flush: 2 * mib})
		if err != nil || c.during > 0 || c.reads == 0 {
			t.Errorf("%s, turning: %v; %d of the body's %d reads came before its last write", name, err, c.during, c.reads)
		}
		c = newCached(faults.NewDisk(old(size)))
		behind := job(c)
		behind.Cached = true
		_, err = Restore(t.Context(), []Job{behind}, RestoreOptions{Full: true, flush: 2 * mib})
		if err != nil || c.during > 0 || c.reads == 0 {
			t.Errorf("%s, through a cache: %v; %d of the body's %d reads came before its last write", name, err, c.during, c.reads)
		}
	}
}

// wrapped is a disk that has less room than it says: its later part lies over the
// earlier one. What it has at an earlier place is overwritten as soon as that was
// read once. One later place is not written before the first such read.
type wrapped struct {
	faults.Target
	room  int64
	mu    sync.Mutex // guards read
	read  []image.Range
	first chan struct{} // closed when read is not empty any more
}

func (w *wrapped) ReadAt(b []byte, off int64) (int, error) {
	r := image.Range{Off: off, Len: int64(len(b))}
	if off < bootArea || r.End() > w.Size()-w.room {
		return w.Target.ReadAt(b, off)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.read, func(o image.Range) bool { return o.Clip(r.Off, r.End()).Len > 0 }) {
		off += w.room
	}
	if w.read = append(w.read, r); len(w.read) == 1 {
		close(w.first)
	}
	return w.Target.ReadAt(b, off)
}

func (w *wrapped) WriteAt(b []byte, off int64) (int, error) {
	if late := w.Size() - 2*bootArea; off <= late && late < off+int64(len(b)) {
		select {
		case <-w.first:
		case <-time.After(time.Minute):
			return 0, errors.New("the earlier part is not read back")
		}
	}
	return w.Target.WriteAt(b, off)
}

// TestLessRoom: a disk that has less room than it says loses what was written
// first, which is noticed although it was read back before.
func TestLessRoom(t *testing.T) {
	for size, room := range map[int]int64{90 * mib: 48 * mib, 20 * mib: 15 * mib} {
		disk := conform.Disks(size)["noise"]
		s, f := mustSave(t, disk), mustBackup(t, disk)
		for name, job := range map[string]func(Target) Job{
			"store": func(d Target) Job { return s.job(t, "sda", d) },
			"share": func(d Target) Job { return f.job("sda", d) },
		} {
			w := &wrapped{Target: faults.NewDisk(old(size)), room: room, first: make(chan struct{})}
			_, err := Restore(t.Context(), []Job{job(w)}, RestoreOptions{Full: true, flush: mib})
			if err == nil || !strings.Contains(err.Error(), "less room than it says") {
				t.Errorf("%s, %d bytes of %d: %v", name, room, size, err)
			}
		}
	}
}

func TestSpotsAreBounded(t *testing.T) {
	l := newSpots()
	l.every = mib
	for i := range int64(5 * maxSpots) {
		l.add([]image.Range{{Off: i * mib, Len: mib}}, nil)
	}
	if len(l.list) >= maxSpots || len(l.list) < maxSpots/2 {
		t.Fatalf("there are %d spots", len(l.list))
	}
	for i, s := range l.list[1:] {
		if d := s.ranges[0].Off - l.list[i].ranges[0].Off; d > 16*mib || d <= 0 {
			t.Fatalf("spot %d is %d bytes behind the one before", i+1, d)
		}
	}
}

// trusting is an image in which nothing is found to be damaged before it is
// unpacked.
type trusting struct{ chunk.Getter }

func (trusting) Check(context.Context, chunk.Place, []byte) error { return nil }

// TestWrongObjects: objects that are whole, but are not what their name says, end
// a restore, and the error says that the store is at fault.
func TestWrongObjects(t *testing.T) {
	disk := conform.Disks(6*mib + 512)["noise"]
	for i := range len(mustSave(t, disk).st.Keys(object.Chunk)) {
		for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
			s := mustSave(t, disk)
			key := s.st.Keys(object.Chunk)[i]
			o, err := s.st.Get(t.Context(), key, nil)
			must(t, err)
			raw, err := o.Decode(nil)
			must(t, err)
			raw[len(raw)/2] ^= 1
			s.st.Set(object.Encode(key, raw, nil))
			im, err := chunk.OpenImage(t.Context(), trusting{s.st.Getter(s.Root)}, s.Root)
			must(t, err)
			b := bench{want: [][]byte{disk}, before: [][]byte{old(len(disk))}, disks: []*faults.Disk{faults.NewDisk(old(len(disk)))}}
			_, err = Restore(t.Context(), []Job{storedJob("sda", im, b.disks[0])}, RestoreOptions{Verify: verify, flush: mib})
			if !errors.Is(err, object.ErrDamaged) {
				t.Errorf("%v is not what its name says, verify %d: %v", key, verify, err)
			}
			b.check(t, key, err)
		}
	}
}

// TestNeighboursGoTogether: the disk is written and read in few long operations,
// although the chunks of a store are short.
func TestNeighboursGoTogether(t *testing.T) {
	disk := conform.Disks(20 * mib)["noise"]
	for end := 40 << 10; end < len(disk); end += 40 << 10 { // as if a file ended there
		clear(disk[end-100 : end])
	}
	s := mustSave(t, disk)
	d, _ := s.restoreTo(t, old(len(disk)), RestoreOptions{Full: true})
	for _, kind := range []string{"write", "read"} {
		ops := slices.DeleteFunc(d.Log(), func(o faults.Op) bool { return o.Kind != kind })
		if len(ops) > 30 || s.Chunks < 400 {
			t.Errorf("%d chunks were restored by %d operations: %v", s.Chunks, len(ops), ops)
		}
	}
	if !bytes.Equal(d.Bytes(), disk) {
		t.Error("not restored")
	}
}

// asked is a disk that says that all of it is zeros when it is asked first. One
// place is not written before that.
type asked struct {
	faults.Target
	wait  int64 // that place
	once  sync.Once
	first chan struct{} // closed then
}

func (d *asked) NextData(off int64) (from, to int64) {
	from = off
	d.once.Do(func() {
		from = d.Size()
		close(d.first)
	})
	return from, d.Size()
}

func (d *asked) ZeroAt(off, n int64) error {
	if off == d.wait {
		select {
		case <-d.first:
		case <-time.After(time.Minute):
			return errors.New("nobody asked for zeros")
		}
	}
	return d.Target.ZeroAt(off, n)
}

// TestHolesOfToday: a hole of the disk proves nothing about zeros that are
// written to it later.
func TestHolesOfToday(t *testing.T) {
	const size = 8 * mib
	const end = 100 // zeros at a block's end, so that no chunk goes on behind the zeros
	s := mustSave(t, withHoles(size, []image.Range{{Off: 2*mib - end, Len: mib + end}, {Off: 4*mib - end, Len: mib + end}}))
	altering := &faults.Altering{Target: faults.NewDisk(make([]byte, size)), At: 4*mib + 7, Nth: 1}
	d := &asked{Target: altering, wait: 4 * mib, first: make(chan struct{})}
	rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, RestoreOptions{Full: true, flush: 1})
	if err == nil || !strings.Contains(err.Error(), "read back otherwise") {
		t.Errorf("a byte among zeros is wrong: %+v, %v", rs, err)
	}
}
