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

// Saved is an image that Save brought into a store. It counts only after the
// caller has committed a record that names it.
type Saved struct {
	Root object.Name
	// Disk has Root, Data, Zero, Unused, Stored and Bad. The caller sets the
	// other fields.
	Disk image.RecordedDisk
	// Receipt has Read, Zero, Unused, Bad and Root, and the stages "read",
	// "hash", "compress" and "store", which ran at the same time.
	Receipt   image.Receipt
	New       int64 // bytes of Disk.Data that the store did not have (Disk.Stored is their stored size)
	Chunks    int   // chunks of the image
	NewChunks int   // chunks that the store did not have
}

// Bound says which step limits the speed: "reading", "hashing", "compressing" or
// "storing". If the disk or the store is the limit, the goroutines that read or
// store are busy nearly all the time. Otherwise the limit is the processor, and
// Bound names the larger of its two uses.
func (s *Saved) Bound() string {
	busy := map[string]float64{}
	for _, st := range s.Receipt.Stages {
		busy[st.Name] = st.Busy
	}
	waits := max(busy["read"], busy["store"])
	switch {
	case waits >= busyShare && waits == busy["read"]:
		return "reading"
	case waits >= busyShare:
		return "storing"
	case busy["hash"] > busy["compress"]:
		return "hashing"
	}
	return "compressing"
}

// Save reads the used bytes of a disk and brings them into a store. They count
// only after the caller has committed a record with Saved.Disk. If m is nil, the
// whole disk is used. Unreadable sectors become zeros and are listed in Disk.Bad,
// and the caller must report them. If the disk is failing, Save ends as soon as
// this is known, and the error matches ErrFailing. The stage in Progress is "read",
// and counts the used bytes.
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
	used    int64 // bytes that all windows have
	read    int64 // how many of them are read so far
	bad     badList
	saved   Saved
}

// checkMap refuses a disk that cannot be imaged, and a map that does not fit the
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

// run moves slots through two rings. In the first ring windows are read and
// classified. A cutter makes chunks from them. In the second ring the chunks get
// their names, and those that the store lacks are compressed and sent.
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
	send.ctx = ctx // inner was cancelled when the group ended
	if err := send.putRoot(chunk.Root{Size: s.size, SectorSize: s.opt.SectorSize, Layout: layout}); err != nil {
		return err
	}
	s.stage("read", s.read, read.share(s.start), read.work.total())
	s.stage("hash", cut.figures.data, hash.share(s.start), 0)
	s.stage("compress", s.saved.New, compress.share(s.start), 0)
	s.stage("store", s.saved.Disk.Stored, store.share(s.start), 0)
	return s.account(cut.figures)
}

func (s *save) stage(name string, bytes int64, busy float64, active time.Duration) {
	s.saved.Receipt.Stages = append(s.saved.Receipt.Stages,
		image.Stage{Name: name, Bytes: bytes, Elapsed: time.Since(s.start), Busy: busy, Active: active})
}

// account fills in the figures. It fails if any byte was left out.
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

// windowSlot is a window of the disk, with its bytes.
type windowSlot struct {
	raw []byte // the disk's bytes from win.off on
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

// begin is called for the windows in order. It counts their bytes and bad sectors.
func (s *save) begin(in *windowSlot) error {
	s.read += total(in.win.runs)
	s.opt.Progress("read", s.read, s.used)
	return s.bad.add(in.bad)
}
