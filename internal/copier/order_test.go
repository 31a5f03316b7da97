package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/parttab"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap"
)

// late is an image of which the passes after the comparison begin with another
// region.
type late struct {
	StoredImage
	from   int          // the region
	back   int          // region of one of the two passes that are left, if larger than 0
	opened atomic.Int32 // passes since Gather
	fails  error
	told   Gathering
	coming []coming
	begun  int      // calls of Gather
	ended  int      // calls of end
	f      *fetched // forgets when Gather is called what was fetched; nil if nobody asks
}

type coming struct {
	place   chunk.Place
	brought bool
}

func (l *late) Open(ctx context.Context) (image.Reader, error) {
	if l.begun > 0 && l.back > 0 {
		if l.opened.Add(1) > 2 { // behind the list and one of the two passes
			return l.Image.ReaderFrom(ctx, l.back), nil
		}
	}
	return l.StoredImage.Open(ctx)
}

func (l *late) Gather(ctx context.Context, g Gathering) (func(), error) {
	l.begun++
	l.told = g
	if l.fails != nil {
		return nil, l.fails
	}
	l.From = l.from
	list, err := g.Coming(ctx)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	for {
		p, brought, err := list.Next()
		if err == io.EOF {
			if l.f != nil {
				clear(l.f.places)
			}
			return func() { l.ended++ }, nil
		} else if err != nil {
			return nil, err
		}
		if a, ok := p.Stored.(*arrived); ok {
			p.Stored = a.Stored
		}
		at, ok := chunk.PlaceOf(p.Stored)
		if !ok {
			return nil, errors.New("a piece has no place")
		}
		l.coming = append(l.coming, coming{at, brought})
	}
}

// arriving is a late image that compares its pieces when they come. What change
// does to a piece comes after that.
type arriving struct {
	*late
	change func(at chunk.Place, data []byte)
	forget func(at chunk.Place) bool
}

// arrived is a piece of an arriving image.
type arrived struct {
	image.Stored
	im  *arriving
	n   int64
	sum xxh3.Uint128
}

func (a *arriving) Open(ctx context.Context) (image.Reader, error) {
	r, err := a.late.Open(ctx)
	return arrivingReader{r, a}, err
}

func (a *arriving) Arrives() bool { return true }

func (a *arriving) Arrived(s image.Stored) (sum xxh3.Uint128, ok bool) {
	at, _ := chunk.PlaceOf(s.(*arrived).Stored)
	if a.forget != nil && a.forget(at) {
		return sum, false
	}
	return s.(*arrived).sum, true
}

type arrivingReader struct {
	image.Reader
	im *arriving
}

func (r arrivingReader) Next() (image.Piece, error) {
	p, err := r.Reader.Next()
	if p.Stored != nil {
		p.Stored = &arrived{Stored: p.Stored, im: r.im, n: p.Len}
	}
	return p, err
}

func unwrap(pieces []image.Stored) (out []image.Stored) {
	for _, p := range pieces {
		out = append(out, p.(*arrived).Stored)
	}
	return out
}

func (s *arrived) Check(pieces []image.Stored) error { return s.Stored.Check(unwrap(pieces)) }

func (s *arrived) Bring(pieces []image.Stored, into func(i int) ([]byte, bool)) error {
	dst := make([][]byte, len(pieces))
	err := s.Stored.Bring(unwrap(pieces), func(i int) ([]byte, bool) {
		dst[i], _ = into(i)
		return dst[i], true
	})
	for i, p := range pieces {
		if a := p.(*arrived); err == nil {
			a.sum = SumOf(dst[i][:a.n])
			if at, _ := chunk.PlaceOf(a.Stored); s.im.change != nil {
				s.im.change(at, dst[i][:a.n])
			}
		}
	}
	return err
}

// lateKinds are the two kinds of late images.
var lateKinds = map[string]func(*late) Image{
	"late":     func(l *late) Image { return l },
	"arriving": func(l *late) Image { return &arriving{late: l} },
}

// fetched notes which chunks are fetched.
type fetched struct {
	chunk.Getter
	mu     sync.Mutex // guards places
	places map[chunk.Place]int
}

func (f *fetched) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	if at.Key().Kind == object.Chunk {
		f.mu.Lock()
		f.places[at]++
		f.mu.Unlock()
	}
	return f.Getter.Get(ctx, at, buf)
}

// tells is a sparse disk that tells its holes.
type tells struct{ *sparse }

func (d tells) NextData(off int64) (from, to int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.size
	for block, b := range d.blocks {
		if at := block * 4096; at+4096 > off && at < first && !image.IsZero(b[:]) {
			first = at
		}
	}
	if first == d.size {
		return d.size, d.size
	}
	return max(off, first), min(first+4096, d.size)
}

func (d *sparse) clone(size int64) *sparse {
	out := newSparse(size)
	for i, b := range d.blocks {
		c := *b
		out.blocks[i] = &c
	}
	return out
}

// differs gives the first block in which two disks differ, or -1.
func (d *sparse) differs(o *sparse) int64 {
	first := int64(-1)
	for _, pair := range [][2]*sparse{{d, o}, {o, d}} {
		for i, b := range pair[0].blocks {
			other := pair[1].blocks[i]
			if other == nil {
				other = new([4096]byte)
			}
			if *b != *other && (first < 0 || i < first) {
				first = i
			}
		}
	}
	return first
}

// noiseAt writes noise. The same seed gives the same noise.
func (d *sparse) noiseAt(r image.Range, seed byte) {
	b := make([]byte, r.Len)
	rand.NewChaCha8([32]byte{seed, byte(r.Off >> 12), byte(r.Off >> 20), byte(r.Off >> 28)}).Read(b)
	d.WriteAt(b, r.Off)
}

// drawRegions draws a disk of some regions in which only little is used, most of it
// about the borders of regions, and the map of that.
func drawRegions(rt *rapid.T) (*sparse, *usedmap.Map, []image.Range) {
	regions := rapid.Int64Range(2, 4).Draw(rt, "regions")
	size := (regions-1)*chunk.RegionSize + rapid.SampledFrom([]int64{512, 3*mib + 512, 40 * mib, chunk.RegionSize}).Draw(rt, "rest")
	disk := newSparse(size)
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
	var used []image.Range
	add := func(off, n int64) image.Range {
		off = max(0, off&^4095)
		r := image.Range{Off: off, Len: n&^4095 + 4096}.Clip(0, size)
		if r.Len > 0 {
			used = append(used, r)
		}
		return r
	}
	for i := range regions + 1 {
		for range 3 {
			at := i*chunk.RegionSize + int64(rnd.IntN(5*mib)) - 2*mib
			if rnd.IntN(3) == 0 {
				at = i*chunk.RegionSize + int64(rnd.IntN(chunk.RegionSize))
			}
			r := add(at, int64(rnd.IntN(1<<(12+rnd.IntN(9)))))
			for at := r.Off; at < r.End(); { // noise and zeros in turn
				n := min(r.End()-at, int64(1+rnd.IntN(300_000)))
				if rnd.IntN(3) > 0 {
					disk.noiseAt(image.Range{Off: at, Len: n}, 1)
				}
				at += n
			}
		}
	}
	if rnd.IntN(2) == 0 {
		add(int64(rnd.IntN(int(size))), int64(rnd.IntN(400*mib))) // zeros over the borders, but for what is there
	}
	used = union(used)
	m := mapOf(int(size), without([]image.Range{{Len: size}}, used)...)
	for i, b := range disk.blocks { // nothing is where nothing is used, so that the disk can be compared as a whole
		if at := i * 4096; !slices.ContainsFunc(used, func(r image.Range) bool { return r.Off <= at && at < r.End() }) {
			*b = [4096]byte{}
		}
	}
	return disk, m, used
}

// union joins ranges that may overlap.
func union(list []image.Range) (out []image.Range) {
	slices.SortFunc(list, func(a, b image.Range) int { return int(a.Off - b.Off) })
	for _, r := range list {
		if n := len(out) - 1; n >= 0 && r.Off <= out[n].End() {
			out[n].Len = max(out[n].End(), r.End()) - out[n].Off
		} else {
			out = append(out, r)
		}
	}
	return out
}

// withoutTimes is a receipt without what depends on the clock.
func withoutTimes(r image.Receipt) image.Receipt {
	r.Stages = slices.Clone(r.Stages)
	for i := range r.Stages {
		r.Stages[i].Elapsed, r.Stages[i].Active, r.Stages[i].Busy = 0, 0, 0
	}
	return r
}

// TestOrders: a restore that begins with any region writes what one writes that
// begins with the first, and its receipt says the same. What it fetches is what it
// was told to come.
func TestOrders(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk, m, used := drawRegions(rt)
		s := saveOf(t, disk, m, SourceOptions{})
		size := disk.size
		if rapid.Bool().Draw(rt, "larger") {
			size += rapid.SampledFrom([]int64{512, 5 * mib}).Draw(rt, "by")
		}
		before := newSparse(size)
		if rapid.Bool().Draw(rt, "near") {
			before = disk.clone(size)
		}
		for range rapid.IntRange(0, 4).Draw(rt, "changes") {
			r := used[rapid.IntRange(0, len(used)-1).Draw(rt, "range")]
			before.noiseAt(image.Range{Off: r.Off + r.Len/2, Len: min(r.Len-r.Len/2, 9000)}, 2)
		}
		opt := RestoreOptions{
			Full:   rapid.IntRange(0, 3).Draw(rt, "full") == 0,
			Verify: ReadBack(rapid.IntRange(0, 2).Draw(rt, "verify")),
			flush:  rapid.SampledFrom([]int64{0, 1, mib}).Draw(rt, "flush"),
		}
		holes := rapid.Bool().Draw(rt, "tells holes")
		if holes && rapid.IntRange(0, 3).Draw(rt, "unused") == 0 { // else all the zeros would be read
			opt.Unused = UnusedZero
		}
		rotational := rapid.IntRange(0, 4).Draw(rt, "rotational") == 0
		run := func(im Image) (*sparse, image.Receipt, Job) {
			target := before.clone(size)
			job := Job{Name: "sda", Image: im, Target: target, Rotational: rotational}
			if holes {
				job.Target = tells{target}
			}
			job.Fit = func([]byte, []byte, int64, int64) ([]parttab.Edit, error) {
				return []parttab.Edit{{Off: 512, Data: []byte("moved")}, {Off: size - 512, Data: bytes.Repeat([]byte{3}, 512)}}, nil
			}
			rs, err := Restore(t.Context(), []Job{job}, opt)
			if err != nil {
				rt.Fatal(err)
			}
			return target, withoutTimes(rs[0]), job
		}
		want, receipt, job := run(StoredImage{Image: s.im})
		v, err := Verify(t.Context(), job, Options{}, nil)
		if err != nil || opt.Unused == UnusedKeep && (v.Verified != v.Read || len(v.Differ) > 0) {
			rt.Fatalf("verify: %+v, %v", v, err)
		}
		from := rapid.IntRange(0, len(s.im.Root.Pages)-1).Draw(rt, "from")

		f := &fetched{Getter: s.st.Getter(s.Root), places: map[chunk.Place]int{}}
		l := &late{StoredImage: StoredImage{Image: s.im.With(f)}, from: from, f: f}
		got, r, job := run(lateKinds[rapid.SampledFrom([]string{"late", "arriving"}).Draw(rt, "kind")](l))
		if at := got.differs(want); at >= 0 || !reflect.DeepEqual(r, receipt) {
			rt.Fatalf("from region %d on: block %d differs, receipt\n%+v, want\n%+v", from, at, r, receipt)
		}
		wrote := r.Written > 0
		if wrote != (l.begun == 1) || wrote != (l.ended == 1) || wrote && (l.told.Target != job.Target || l.told.Rotational != rotational) {
			rt.Fatalf("it gathered %d times and ended %d times; it was told of %+v", l.begun, l.ended, l.told)
		}
		checkComing(rt, l, f)

		got, r, job = run(StoredImage{Image: s.im, From: from})
		if at := got.differs(want); at >= 0 || !reflect.DeepEqual(r, receipt) {
			rt.Fatalf("compared from region %d on too: block %d differs, receipt\n%+v, want\n%+v", from, at, r, receipt)
		}
		other, err := Verify(t.Context(), job, Options{}, nil)
		if err != nil || !reflect.DeepEqual(withoutTimes(other), withoutTimes(v)) {
			rt.Fatalf("verify from region %d on: %+v, want %+v, %v", from, other, v, err)
		}
	})
}

// checkComing compares what was told to come with what was fetched.
func checkComing(rt *rapid.T, l *late, f *fetched) {
	if l.begun == 0 {
		return
	}
	var want []chunk.Place
	r := l.Image.ReaderFrom(context.Background(), l.from)
	for p, err := r.Next(); err == nil; p, err = r.Next() {
		if at, ok := chunk.PlaceOf(p.Stored); ok {
			want = append(want, at)
		}
	}
	brought := map[chunk.Place]int{}
	for i, c := range l.coming {
		if i >= len(want) || c.place != want[i] {
			rt.Fatalf("piece %d that comes is %v", i, c.place)
		}
		if c.brought {
			brought[c.place] = 1
		}
	}
	if len(l.coming) != len(want) || !reflect.DeepEqual(brought, f.places) {
		rt.Fatalf("%d of %d pieces are told, %d of them come, %d were fetched", len(l.coming), len(want), len(brought), len(f.places))
	}
}

// threeRegions is an image with some noise at both ends of each of its regions.
func threeRegions(t testing.TB) (*sparse, stored) {
	disk := newSparse(2*chunk.RegionSize + 6*mib)
	used := []image.Range{{Len: 3 * mib}}
	for _, at := range []int64{chunk.RegionSize, 2 * chunk.RegionSize} {
		used = append(used, image.Range{Off: at - 2*mib, Len: 4 * mib})
	}
	used = append(used, image.Range{Off: disk.size - 3*mib, Len: 3 * mib})
	for _, r := range used {
		disk.noiseAt(r, 1)
	}
	return disk, saveOf(t, disk, mapOf(int(disk.size), without([]image.Range{{Len: disk.size}}, used)...), SourceOptions{})
}

// inBody are the pieces of data that lie in the body, in the order from a region on.
func inBody(t testing.TB, im *chunk.Image, from int) (list []image.Piece) {
	r := im.ReaderFrom(t.Context(), from)
	for {
		p, err := r.Next()
		if err == io.EOF {
			return list
		}
		must(t, err)
		if p.Content == image.Data && p.Ranges[0].Off >= bootArea && p.Ranges[len(p.Ranges)-1].End() <= im.Root.Size-bootArea {
			list = append(list, p)
		}
	}
}

// TestLossInEveryOrder: a write that is lost is found, wherever the order begins and
// wherever on the disk it is.
func TestLossInEveryOrder(t *testing.T) {
	for kind, of := range lateKinds {
		t.Run(kind, func(t *testing.T) { lossInEveryOrder(t, of) })
	}
}

func lossInEveryOrder(t *testing.T, of func(*late) Image) {
	_, s := threeRegions(t)
	for from := range s.im.Root.Pages {
		pieces := inBody(t, s.im, from)
		for region := range s.im.Root.Pages {
			i := slices.IndexFunc(pieces, func(p image.Piece) bool { return regionOf(p.Ranges[0].Off) == region })
			for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
				a := &faults.Altering{Target: newSparse(s.im.Root.Size), At: pieces[i].Ranges[0].Off + 1, Nth: 1}
				job := Job{Name: "sda", Image: of(&late{StoredImage: StoredImage{Image: s.im}, from: from}), Target: a}
				_, err := Restore(t.Context(), []Job{job}, RestoreOptions{Verify: verify, flush: 1})
				if (err == nil) != (verify == VerifyNone) || a.Hits() == 0 || err != nil && !strings.Contains(err.Error(), "read back otherwise") {
					t.Errorf("from region %d on, lost in region %d, verify %d: %v", from, region, verify, err)
				}
			}
		}
	}
}

// TestWrongObjectInEveryOrder: a chunk that is not what its name says is found, and
// the store is blamed.
func TestWrongObjectInEveryOrder(t *testing.T) {
	_, s := threeRegions(t)
	for from := range s.im.Root.Pages {
		pieces := inBody(t, s.im, from)
		for _, p := range []image.Piece{pieces[0], pieces[len(pieces)/2], pieces[len(pieces)-1]} {
			at, _ := chunk.PlaceOf(p.Stored)
			o, err := s.st.Get(t.Context(), at.Key(), nil)
			must(t, err)
			o.Data = bytes.Clone(o.Data)
			raw, err := o.Decode(nil)
			must(t, err)
			raw[len(raw)/2] ^= 1
			s.st.Set(object.Encode(at.Key(), raw, nil))
			for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
				job := Job{Name: "sda", Target: newSparse(s.im.Root.Size)}
				l := &late{StoredImage: StoredImage{Image: s.im.With(trusting{s.st.Getter(s.Root)})}, from: from}
				job.Image = l
				_, err := Restore(t.Context(), []Job{job}, RestoreOptions{Verify: verify, flush: mib})
				if !errors.Is(err, object.ErrDamaged) || l.ended != 1 {
					t.Errorf("from region %d on, %v, verify %d: %v; ended %d times", from, at, verify, err, l.ended)
				}
			}
			s.st.Set(o)
		}
	}
}

// overwritten is a disk that has less room than it says: the write of a late place
// overwrites an early one, after that was read back.
type overwritten struct {
	faults.Target
	early image.Range
	late  int64
	once  sync.Once
	read  chan struct{} // closed when the early place was read
}

func (d *overwritten) ReadAt(b []byte, off int64) (int, error) {
	n, err := d.Target.ReadAt(b, off)
	if off <= d.early.Off && d.early.End() <= off+int64(len(b)) {
		d.once.Do(func() { close(d.read) })
	}
	return n, err
}

func (d *overwritten) WriteAt(b []byte, off int64) (int, error) {
	if off <= d.late && d.late < off+int64(len(b)) {
		select {
		case <-d.read:
		case <-time.After(time.Minute):
			return 0, errors.New("the early place is not read back")
		}
		if _, err := d.Target.WriteAt([]byte("later"), d.early.Off); err != nil {
			return 0, err
		}
	}
	return d.Target.WriteAt(b, off)
}

// TestLessRoomInEveryOrder: what later bytes overwrite is noticed at the first place
// of the order, and on both sides of the disk's end.
func TestLessRoomInEveryOrder(t *testing.T) {
	for kind, of := range lateKinds {
		t.Run(kind, func(t *testing.T) { lessRoomInEveryOrder(t, of) })
	}
}

func lessRoomInEveryOrder(t *testing.T, of func(*late) Image) {
	_, s := threeRegions(t)
	for from := range s.im.Root.Pages {
		pieces := inBody(t, s.im, from)
		last := pieces[len(pieces)-1]
		victims := pieces[:1]
		if i := slices.IndexFunc(pieces, func(p image.Piece) bool { return regionOf(p.Ranges[0].Off) < from }); i > 0 {
			victims = append(victims[:1:1], pieces[i-1], pieces[i])
		}
		if len(victims) != 3 && from > 0 {
			t.Fatalf("from region %d on, the order does not wrap round", from)
		}
		for i, p := range victims {
			d := &overwritten{Target: newSparse(s.im.Root.Size), early: p.Ranges[0], late: last.Ranges[0].Off, read: make(chan struct{})}
			job := Job{Name: "sda", Image: of(&late{StoredImage: StoredImage{Image: s.im}, from: from}), Target: d}
			_, err := Restore(t.Context(), []Job{job}, RestoreOptions{Full: true, flush: 1})
			if err == nil || !strings.Contains(err.Error(), "less room than it says") {
				t.Errorf("from region %d on, place %d at %v: %v", from, i, p.Ranges, err)
			}
		}
	}
}

// TestChangedInMemory: what changes after a piece was compared is found when the disk
// is read back, be it of the head, of the tail or between them. In the larger image two
// pieces share a sum, and the last piece has one by itself.
func TestChangedInMemory(t *testing.T) {
	for _, size := range []int64{2*chunk.RegionSize + 6*mib, 9<<30 + 6*mib} {
		disk := newSparse(size)
		used := []image.Range{{Len: 3 * mib}, {Off: chunk.RegionSize - mib, Len: 2 * mib}, {Off: size - 3*mib, Len: 3 * mib}}
		if size > 9<<30 {
			used = slices.Insert(used, 2, image.Range{Off: 5 * chunk.RegionSize, Len: 4096}) // so that their number is odd
		}
		for _, r := range used {
			disk.noiseAt(r, 1)
		}
		s := saveOf(t, disk, mapOf(int(size), without([]image.Range{{Len: size}}, used)...), SourceOptions{})
		run := func(verify ReadBack, change func(at chunk.Place, data []byte)) error {
			l := &late{StoredImage: StoredImage{Image: s.im}, from: 1}
			target := newSparse(size)
			job := Job{Name: "sda", Image: &arriving{late: l, change: change}, Target: target}
			_, err := Restore(t.Context(), []Job{job}, RestoreOptions{Verify: verify, Full: true, flush: 1})
			if change == nil && target.differs(disk) >= 0 {
				t.Errorf("%d bytes, verify %d: not restored", size, verify)
			}
			return err
		}
		var places []chunk.Place
		r := s.im.ReaderFrom(t.Context(), 1)
		for p, err := r.Next(); err == nil; p, err = r.Next() {
			if at, ok := chunk.PlaceOf(p.Stored); ok {
				places = append(places, at)
			}
		}
		d := diskState{imageSize: size, job: Job{Image: &arriving{late: &late{}}}}
		if group := d.newWritten().group; size > 9<<30 && (group != 2 || len(places)%2 == 0) {
			t.Fatalf("%d pieces, in groups of %d", len(places), group)
		}
		for _, verify := range []ReadBack{VerifyAll, VerifyWritten, VerifyNone} {
			must(t, run(verify, nil))
			for i, victim := range places {
				if i%testenv.Effort(3, 1) != 0 {
					continue
				}
				err := run(verify, func(at chunk.Place, data []byte) {
					if at == victim {
						data[len(data)/2] ^= 1
					}
				})
				if verify != VerifyNone && (err == nil || !strings.Contains(err.Error(), "read back otherwise")) {
					t.Errorf("%d bytes, piece %d of %d, verify %d: %v", size, i, len(places), verify, err)
				}
			}
		}
	}
}

// TestForgotten: a piece of which an image does not know what arrived ends the restore, even on
// a disk that has only zeros. Those have the hash that stands for none.
func TestForgotten(t *testing.T) {
	_, s := threeRegions(t)
	for _, p := range inBody(t, s.im, 1) {
		at, ok := chunk.PlaceOf(p.Stored)
		if !ok {
			continue
		}
		a := &arriving{late: &late{StoredImage: StoredImage{Image: s.im}, from: 1}, forget: func(a chunk.Place) bool { return a == at }}
		target := &deaf{newSparse(s.im.Root.Size), p.Ranges[0]}
		_, err := Restore(t.Context(), []Job{{Name: "sda", Image: a, Target: target}}, RestoreOptions{Full: true})
		if err == nil || !strings.Contains(err.Error(), "internal check") {
			t.Errorf("the piece at %v: %v", p.Ranges, err)
		}
	}
}

// deaf is a target that does not write what begins in a range.
type deaf struct {
	Target
	at image.Range
}

func (d *deaf) WriteAt(b []byte, off int64) (int, error) {
	if off >= d.at.Off && off < d.at.End() {
		return len(b), nil
	}
	return d.Target.WriteAt(b, off)
}

// TestGatherer: what a Gatherer says ends the restore, and it is told of each end.
func TestGatherer(t *testing.T) {
	_, s := threeRegions(t)
	refused := errors.New("refused")
	l := &late{StoredImage: StoredImage{Image: s.im}, from: 1, fails: refused}
	target := newSparse(s.im.Root.Size)
	_, err := Restore(t.Context(), []Job{{Name: "sda", Image: l, Target: target}}, RestoreOptions{})
	if !errors.Is(err, refused) || l.ended > 0 {
		t.Errorf("%v; ended %d times", err, l.ended)
	}
	if len(target.blocks) > 512 { // its first and last MiB
		t.Error("the body is written although the image could not begin")
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for what, c := range map[string]struct {
		target Target
		want   error
	}{
		"a write fails": {&faults.Hooked{Target: newSparse(s.im.Root.Size), Before: func(o faults.Op) error {
			if o.Kind == "write" {
				return refused
			}
			return nil
		}}, refused},
		"a read fails": {&faults.Hooked{Target: newSparse(s.im.Root.Size), Before: func(o faults.Op) error {
			if o.Kind == "read" && o.Off > bootArea && o.End() < s.im.Root.Size-bootArea {
				return refused
			}
			return nil
		}}, refused},
		"cancelled": {&faults.Hooked{Target: newSparse(s.im.Root.Size), Before: func(o faults.Op) error {
			if o.Kind == "write" {
				cancel()
			}
			return nil
		}}, context.Canceled},
	} {
		ctx := ctx
		if what != "cancelled" {
			ctx = t.Context()
		}
		l := &late{StoredImage: StoredImage{Image: s.im}, from: 1}
		_, err := Restore(ctx, []Job{{Name: "sda", Image: l, Target: c.target}}, RestoreOptions{Full: true, flush: 1})
		if !errors.Is(err, c.want) || l.begun != 1 || l.ended != 1 {
			t.Errorf("%s: %v; begun %d times, ended %d times", what, err, l.begun, l.ended)
		}
	}
}

// TestTwoOrders: an image that is read back from another region on than it was
// written is refused, since nobody knows then what was flushed.
func TestTwoOrders(t *testing.T) {
	_, s := threeRegions(t)
	l := &late{StoredImage: StoredImage{Image: s.im}, from: 1, back: 2}
	_, err := Restore(t.Context(), []Job{{Name: "sda", Image: l, Target: newSparse(s.im.Root.Size)}}, RestoreOptions{Full: true, flush: 1})
	if err == nil || !strings.Contains(err.Error(), "internal check failed") || l.ended != 1 {
		t.Errorf("%v; ended %d times", err, l.ended)
	}
}

// TestFirstDifferences: a receipt lists the first places on the disk that differ,
// although others come first.
func TestFirstDifferences(t *testing.T) {
	disk, s := threeRegions(t)
	other := disk.clone(disk.size)
	for _, from := range []int64{bootArea, chunk.RegionSize, disk.size - 2*mib} {
		for i := range int64(900) {
			at := from + i*1024 + 5
			b := make([]byte, 1)
			other.ReadAt(b, at)
			other.WriteAt([]byte{^b[0]}, at)
		}
	}
	var want image.Receipt
	for from := range s.im.Root.Pages {
		n := int64(0)
		job := Job{Name: "sda", Image: StoredImage{Image: s.im, From: from}, Target: other}
		got, err := Verify(t.Context(), job, Options{}, func(r image.Range) { n += r.Len })
		if got = withoutTimes(got); from == 0 {
			want = got
		}
		if err != nil || len(got.Differ) != maxDiffer || n != 3*900*512 || !reflect.DeepEqual(got, want) ||
			got.Differ[0].Off != bootArea || got.Differ[maxDiffer-1].Off != chunk.RegionSize+(maxDiffer-901)*1024 {
			t.Errorf("from region %d on: %d places with %d bytes differ, from %v to %v, %v", from, len(got.Differ), n,
				got.Differ[0], got.Differ[len(got.Differ)-1], err)
		}
	}
}

// TestShrinkInEveryOrder: a smaller disk gets the same, whatever the image begins
// with. The job that Shrink makes is no Gatherer.
func TestShrinkInEveryOrder(t *testing.T) {
	const size, smaller = 2*chunk.RegionSize + 8*mib, chunk.RegionSize + 9*mib
	disk := newSparse(size)
	table := gptDisk(t, size)
	disk.WriteAt(table[:mib], 0)
	disk.WriteAt(table[size-mib:], size-mib)
	disk.noiseAt(image.Range{Off: mib, Len: 4 * mib}, 1)
	s := saveOf(t, tells{disk}, nil, SourceOptions{})
	var want *sparse
	var receipt image.Receipt
	for from := range s.im.Root.Pages {
		target := newSparse(smaller)
		job := Job{Name: "sda", Image: StoredImage{Image: s.im, From: from}, Target: tells{target}, SectorSize: 512}
		job, err := Shrink(t.Context(), job, nil)
		must(t, err)
		if _, ok := job.Image.(Gatherer); ok {
			t.Error("the image without its end is a Gatherer")
		}
		rs, err := Restore(t.Context(), []Job{job}, RestoreOptions{})
		must(t, err)
		if from == 0 {
			want, receipt = target, withoutTimes(rs[0])
		}
		if at := target.differs(want); at >= 0 || !reflect.DeepEqual(withoutTimes(rs[0]), receipt) {
			t.Errorf("from region %d on: block %d differs, receipt %+v, want %+v", from, at, rs[0], receipt)
		}
	}
}

// TestCover compares cover with the plainest way to say what it says. Places are
// counted in eighths of a region.
func TestCover(t *testing.T) {
	const unit = chunk.RegionSize / 8
	rapid.Check(t, func(rt *rapid.T) {
		size := 1 + int64(rapid.Uint64().Draw(rt, "size")%40) // rapid draws small numbers from a range
		anywhere := rapid.Bool().Draw(rt, "anywhere")
		wrong := rapid.SampledFrom([]int{0, 0, 20, 5}).Draw(rt, "wrong")
		begin := int64(rapid.Uint64().Draw(rt, "begin")%uint64((size+7)/8)) * 8
		if wrong > 0 && rapid.Bool().Draw(rt, "not where a region begins") {
			begin = int64(rapid.Uint64().Draw(rt, "begin instead") % uint64(size))
		}
		c := cover{size: size * unit, anywhere: anywhere}
		m := coverModel{had: make([]bool, size), anywhere: anywhere}
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		for range 200 {
			if c.complete() != m.complete() {
				rt.Fatalf("complete is %v after %d of %d", c.complete(), c.to/unit, size)
			}
			piece := m.drawPiece(rnd, begin, anywhere || wrong > 0)
			if len(piece) == 0 {
				piece = []image.Range{{Off: int64(rnd.IntN(int(size))), Len: 1}} // one more than all
			}
			if wrong > 0 && rnd.IntN(wrong) == 0 {
				r := &piece[rnd.IntN(len(piece))]
				switch d := int64(rnd.IntN(5) - 2); rnd.IntN(3) {
				case 0:
					r.Off += d
				case 1:
					r.Len += d
				default:
					r.Off = int64(rnd.IntN(int(size+1))) / 8 * 8
				}
			}
			scaled := make([]image.Range, len(piece))
			for i, r := range piece {
				scaled[i] = image.Range{Off: r.Off * unit, Len: r.Len * unit}
			}
			want := m.add(piece)
			if got := c.add(scaled); got != want {
				rt.Fatalf("a piece at %v, of %d: taken %v, want %v", piece, size, got, want)
			}
			if !want {
				return
			}
		}
		if !m.complete() {
			rt.Fatal("it never ends")
		}
	})
}

// coverModel has a flag for each place.
type coverModel struct {
	had      []bool
	anywhere bool
	begun    bool
	begin    int64
}

// due is the next place of the order that no piece had, and whether it lies behind
// the disk's end.
func (m *coverModel) due() (at int64, wrapped, ok bool) {
	size := int64(len(m.had))
	for i := range size {
		if at = (m.begin + i) % size; !m.had[at] {
			return at, m.begin+i >= size, true
		}
	}
	return 0, false, false
}

func (m *coverModel) complete() bool { return !slices.Contains(m.had, false) }

func (m *coverModel) add(piece []image.Range) bool {
	if !m.begun {
		m.begun = true
		if off := piece[0].Off; m.anywhere && off > 0 && off < int64(len(m.had)) && off%8 == 0 {
			m.begin = off
		}
	}
	at, wrapped, ok := m.due()
	if !ok || piece[0].Off != at {
		return false
	}
	for _, r := range piece {
		if r.Len < 1 || r.Off < at || r.End() > int64(len(m.had)) || wrapped && r.End() > m.begin {
			return false
		}
		for i := r.Off; i < r.End(); i++ {
			if m.had[i] {
				return false
			}
			m.had[i] = true
		}
		at = r.End()
	}
	return true
}

// drawPiece draws the next piece. The first one is at begin, if it may be there or
// that is to be wrong. It is empty at the end.
func (m *coverModel) drawPiece(rnd *rand.Rand, begin int64, there bool) (piece []image.Range) {
	at, wrapped, ok := m.due()
	limit := int64(len(m.had))
	switch {
	case !m.begun && there:
		at = begin
	case !ok:
		return nil
	case wrapped:
		limit = m.begin
	}
	for at < limit {
		r := image.Range{Off: at}
		for most := int64(1 + rnd.IntN(4)); at < limit && r.Len < most && !m.had[at]; at++ {
			r.Len++
		}
		piece = append(piece, r)
		if rnd.IntN(2) == 0 {
			break
		}
		for at += int64(rnd.IntN(3)); at < limit && m.had[at]; at++ {
		}
	}
	return piece
}

// TestBits: the flags of each region are by themselves.
func TestBits(t *testing.T) {
	var b bits
	want := map[[2]int]bool{}
	rnd := rand.New(rand.NewPCG(1, 2))
	n := map[int]int{}
	for range 3000 {
		region, set := []int{0, 1, 5}[rnd.IntN(3)], rnd.IntN(2) == 0
		b.add(region, set)
		want[[2]int{region, n[region]}] = set
		n[region]++
	}
	for region := range 7 {
		for i := range n[region] + 130 {
			if b.has(region, i) != want[[2]int{region, i}] {
				t.Fatalf("flag %d of region %d is %v", i, region, b.has(region, i))
			}
		}
	}
	if fmt.Sprint(n[2], len(b)) != "0 6" {
		t.Errorf("%d regions", len(b))
	}
}
