package copier

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/usedmap"
)

// Saved is an image that is in a store, but for the record that makes it one.
type Saved struct {
	Root object.Name
	// Disk has Root, Data, Zero, Unused, Stored and Bad; the rest is the
	// caller's to know.
	Disk image.RecordedDisk
	// Receipt has Read, Zero, Unused, Bad, Root and the stages "read", "hash",
	// "compress" and "store", which ran beside each other.
	Receipt   image.Receipt
	New       int64 // bytes of Disk.Data that the store did not have; Disk.Stored is what they came to
	Chunks    int   // that the image has
	NewChunks int   // that the store did not have
}

// Bound says what a faster backup would need: "reading", "hashing",
// "compressing" or "storing". Readers and writers of the store wait all the
// time if that is what is slow; the processor is shared by what else is done.
func (s *Saved) Bound() string {
	busy := map[string]float64{}
	for _, st := range s.Receipt.Stages {
		busy[st.Name] = st.Busy
	}
	const always = 0.8
	waits := max(busy["read"], busy["store"])
	switch {
	case waits >= always && waits == busy["read"]:
		return "reading"
	case waits >= always:
		return "storing"
	case busy["hash"] > busy["compress"]:
		return "hashing"
	}
	return "compressing"
}

// Save reads what is used of a disk and brings it into a store. Nothing of it
// counts before the caller commits a record with its Disk. If m is nil, all of
// the disk is used. Unreadable sectors become zeros and are in Disk.Bad; the
// caller must say so. Of a disk that is failing, the error matches ErrFailing, as
// soon as that is known. The stage in Progress is "read", of the bytes that are used.
func Save(ctx context.Context, src Source, st chunk.Session, m *usedmap.Map, opt SourceOptions) (Saved, error) {
	opt = opt.withDefaults()
	s := &save{src: src, opt: opt, size: src.Size(), start: time.Now()}
	err := checkMap(s.size, opt.SectorSize, m)
	if err != nil {
		return Saved{}, err
	}
	s.windows = newWindows(s.size, m)
	s.windows.holes = holesOf(src)
	s.used = s.windows.bytes()
	if s.bad, err = newBadList(src, s.used, opt); err != nil {
		return Saved{}, err
	}
	var layout []byte
	if m != nil {
		layout = m.StoredLayout()
	}
	err = s.run(ctx, st, layout)
	return s.saved, err
}

type save struct {
	src     Source
	opt     SourceOptions
	size    int64
	start   time.Time
	windows *windows
	used    int64 // bytes in all windows
	read    int64 // of these
	bad     badList
	saved   Saved
}

// checkMap refuses a disk that no image can be made of, and a map of another
// disk.
func checkMap(size int64, sector int, m *usedmap.Map) error {
	switch {
	case size <= 0 || size > chunk.MaxDisk || !image.ValidSectorSize(sector) || size%int64(sector) != 0:
		return fmt.Errorf("a disk of %d bytes in sectors of %d cannot be imaged", size, sector)
	case m == nil:
		return nil
	case m.Size != size:
		return fmt.Errorf("the disk has %d bytes, its used map is of %d", size, m.Size)
	}
	at := int64(0)
	for _, p := range m.Parts {
		if p.Off() != at || p.Len() <= 0 {
			return fmt.Errorf("the used map's parts leave something out at byte %d", at)
		}
		at += p.Len()
	}
	end := int64(0)
	for _, r := range m.Free {
		if r.Off < end || r.Len <= 0 || r.Len > size-r.Off {
			return fmt.Errorf("the used map's free ranges are out of order or off the disk at byte %d", r.Off)
		}
		end = r.End()
	}
	if at != size {
		return fmt.Errorf("the used map's parts have %d of %d bytes", at, size)
	}
	return nil
}

// run is two rings: windows are read and looked at, and what they hold is cut
// into chunks, which are named and, if the store lacks them, compressed and
// sent.
func (s *save) run(ctx context.Context, st chunk.Session, layout []byte) error {
	g, inner := errgroup.WithContext(ctx)
	read, classify := each(readers, s.readWindow), each(s.opt.Workers, s.classify)
	windows := newWindowRing(readers+s.opt.Workers+2, s.opt.Options).start(inner, g, s.produce, read, classify)
	cut := newCutter(s.size, windows, s.begin)

	send := newSender(inner, st, &s.saved)
	hash, compress, store := each(s.opt.Workers, send.name), each(s.opt.Workers, send.encode), each(putters, send.put)
	ask := &stage[*chunkSlot]{workers: 1, batch: askAtOnce, do: send.ask}
	chunks := newChunkRing(3*s.opt.Workers+putters).start(inner, g, cut.produce, hash, ask, compress, store)
	g.Go(func() error { return chunks.each(send.collect) })
	if err := g.Wait(); err != nil {
		return err
	}
	send.ctx = ctx // inner ended with the group
	if err := send.putRoot(chunk.Root{Size: s.size, SectorSize: s.opt.SectorSize, Layout: layout}); err != nil {
		return err
	}
	s.stage("read", s.read, read.share(s.start))
	s.stage("hash", cut.figures.data, hash.share(s.start))
	s.stage("compress", s.saved.New, compress.share(s.start))
	s.stage("store", s.saved.Disk.Stored, store.share(s.start))
	return s.account(cut.figures)
}

func (s *save) stage(name string, bytes int64, busy float64) {
	s.saved.Receipt.Stages = append(s.saved.Receipt.Stages, image.Stage{Name: name, Bytes: bytes, Elapsed: time.Since(s.start), Busy: busy})
}

// account fills in the figures, and proves that nothing was left out.
func (s *save) account(f figures) error {
	d, r := &s.saved.Disk, &s.saved.Receipt
	d.Root, d.Data, d.Zero, d.Unused, d.Bad = s.saved.Root, f.data, f.zero, f.unused, s.bad.ranges
	r.Root, r.Read, r.Zero, r.Unused, r.Bad = d.Root.String(), s.read, f.zero, f.unused, s.bad.ranges
	if s.read != s.used || f.data+f.zero != s.used || s.used+f.unused != s.size {
		return fmt.Errorf("of the disk's %d bytes, %d in use, %d were read, %d are data, %d zero and %d unused",
			s.size, s.used, s.read, f.data, f.zero, f.unused)
	}
	return nil
}

// windowSlot is a window of a disk that is read.
type windowSlot struct {
	raw []byte // the disk's bytes from the window's first on
	win window
	bad []image.Range
}

func newWindowRing(slots int, opt Options) *ring[*windowSlot] {
	buffer := buffers(slots, pieceSize, opt.alloc)
	return newRing(slots, func() *windowSlot { return &windowSlot{raw: buffer()} })
}

func (s *windowSlot) reset() { *s = windowSlot{raw: s.raw, win: s.win.empty(), bad: s.bad[:0]} }

func (s *save) produce(out *windowSlot) error {
	if !s.windows.next(&out.win) {
		return io.EOF
	}
	return nil
}

func (s *save) readWindow(in *windowSlot) error {
	salvager := s.opt.salvager(s.src)
	for _, r := range in.win.reads {
		bad, err := salvager.read(in.raw[r.Off-in.win.off:][:r.Len], r.Off)
		if err != nil {
			return err
		}
		in.bad = within(in.bad, bad, in.win.runs)
	}
	return nil
}

func (s *save) classify(in *windowSlot) error {
	in.win.classify(in.raw)
	return nil
}

// begin takes the windows in order.
func (s *save) begin(in *windowSlot) error {
	s.read += total(in.win.runs)
	s.opt.Progress("read", s.read, s.used)
	return s.bad.add(in.bad)
}
