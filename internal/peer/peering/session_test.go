package peering

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

// fakeRoom is a room in which the box is alone.
type fakeRoom struct{}

func (fakeRoom) Join(context.Context, wire.Join) (*wire.Joined, error) {
	return &wire.Joined{On: true, Member: 1, Secret: wire.RoomSecret{1}, Unit: 256 << 10}, nil
}

func (fakeRoom) Ask(_ context.Context, q room.Ask) (*wire.RoomAnswer, error) {
	return &wire.RoomAnswer{Take: q.Want[:min(len(q.Want), room.AloneSlots)], Again: 10, Boxes: 1}, nil
}

func (fakeRoom) Leave(context.Context) error { return nil }

// stuckDisk writes nothing before it is let go.
type stuckDisk struct {
	*faults.Disk
	begun, free chan struct{}
}

func (d *stuckDisk) WriteAt(b []byte, off int64) (int, error) {
	select {
	case d.begun <- struct{}{}:
	default:
	}
	<-d.free
	return d.Disk.WriteAt(b, off)
}

// testImage is a MemStore with an image.
type testImage struct {
	conform.MemStore
	content []byte
	root    object.Name
}

func newTestImage(t *testing.T) *testImage {
	im := &testImage{content: make([]byte, 24<<20)}
	for i := 0; i < len(im.content); i += 512 {
		binary.LittleEndian.PutUint64(im.content[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	im.root = conform.SaveImage(t, &im.MemStore, im.content)
	return im
}

// restores restores an image that get reads, by a node that is closed at the end.
func restores(t *testing.T, get chunk.Getter, root object.Name, r Room, d copier.Target) (*Node, *chunk.Image, <-chan error) {
	t.Helper()
	im, err := chunk.OpenImage(t.Context(), get, root)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNode(Config{Memory: 32 << 20, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	shared := n.Image(im, r)
	done := make(chan error, 1)
	go func() {
		_, err := copier.Restore(t.Context(), []copier.Job{{Name: "sda", Image: shared, Target: d, SectorSize: 512}}, copier.RestoreOptions{})
		shared.Close()
		done <- err
	}()
	return n, im, done
}

// TestHas: what a box says it has, it has, and each chunk is the right one. Of a unit that it does
// not say it has, it may have some chunks.
func TestHas(t *testing.T) {
	t.Parallel()
	st := newTestImage(t)
	d := &stuckDisk{faults.NewDisk(make([]byte, len(st.content))), make(chan struct{}, 1), make(chan struct{})}
	n, im, done := restores(t, st.Getter(st.root), st.root, fakeRoom{}, d)
	<-d.begun
	page, err := im.Page(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	check := func() (units int) {
		have := n.Have(st.root, im.Root.Pages[0])
		r := newRegion(&layout{refs: page.Chunks}, im.Root.Pages[0], 256<<10)
		for i, ref := range page.Chunks {
			id, err := r.unitOf(i)
			if err != nil {
				t.Fatal(err)
			}
			o, err := n.Chunk(t.Context(), st.root, im.Root.Pages[0], uint32(i), nil)
			switch has := bit(have, int(id.At)); {
			case has && err != nil, err != nil && !errors.Is(err, chunk.ErrMissing):
				t.Errorf("chunk %d of %v, which is here: %v", i, id, err)
			case err == nil:
				raw, err := o.Decode(nil)
				if err != nil || o.Name != ref.Name || len(raw) != ref.Len {
					t.Errorf("chunk %d is another one: %v", i, err)
				}
				if has && r.ends[id.At] == i+1 {
					units++
				}
			}
		}
		return units
	}
	for end := time.Now().Add(time.Minute); check() < 16; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("only %d units are here", check())
		}
	}
	close(d.free)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(d.Bytes(), st.content) {
		t.Error("the disk has other bytes")
	}
}

// wrong is a getter that gives other bytes than a chunk has, under the right name. Those of the first and
// last MiB are right, since the comparison before the writing reads them.
type wrong struct{ chunk.Getter }

func (w wrong) Get(ctx context.Context, at chunk.Place, buf []byte) (object.Object, error) {
	o, err := w.Getter.Get(ctx, at, buf)
	if o.Kind == object.Chunk && err == nil && at.Chunk > 100 && at.Chunk < 120 {
		o.Codec, o.Data = object.Raw, make([]byte, o.RawLen)
		o.Data[len(o.Data)/2] = 1
	}
	return o, err
}

// mute is a room in which nobody says anything.
type mute struct{ fakeRoom }

func (mute) Ask(ctx context.Context, _ room.Ask) (*wire.RoomAnswer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestWrongBytes: whatever way bytes come, they are compared with the name, since the read-back
// compares the disk only with what came.
func TestWrongBytes(t *testing.T) {
	for name, r := range map[string]Room{"the room": fakeRoom{}, "the server": mute{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "the server" {
				testenv.Long(t, "ten seconds")
			}
			st := newTestImage(t)
			n, im, done := restores(t, wrong{st.Getter(st.root)}, st.root, r, faults.NewDisk(make([]byte, len(st.content))))
			if p, err := im.Page(t.Context(), 0); err != nil || len(p.Chunks) < 200 {
				t.Fatal(len(p.Chunks), err)
			}
			if err := <-done; !errors.Is(err, object.ErrDamaged) {
				t.Errorf("the restore ends with %v", err)
			}
			if n.State() == nil || n.State().FromServer == 0 {
				t.Error("nothing came in the room")
			}
		})
	}
}

// TestCut: every box cuts a page in the same way, and never into more units than messages
// have room for.
func TestCut(t *testing.T) {
	refs := make([]chunk.Ref, 5000)
	for i := range refs {
		refs[i].Len = 50 << 10
	}
	for _, unit := range []int{1, 256 << 10, 8 << 20, 1 << 30} {
		ends := cut(refs, unit)
		if len(ends) > wire.MaxUnits || ends[len(ends)-1] != len(refs) || !slices.IsSorted(ends) {
			t.Errorf("units of %d bytes: %d units, the last ends at %d", unit, len(ends), ends[len(ends)-1])
		}
		from := 0
		for _, end := range ends {
			if end <= from || end-from > wire.MaxObjects {
				t.Fatalf("units of %d bytes: one has the chunks from %d to %d", unit, from, end)
			}
			from = end
		}
		r := newRegion(&layout{refs: refs, region: 3}, object.Name{1}, unit)
		for i := range refs {
			id, err := r.unitOf(i)
			from, to := r.chunks(id)
			if err != nil || i < from || i >= to || id.Page != 3 {
				t.Fatalf("chunk %d is in %v with %d to %d, %v", i, id, from, to, err)
			}
		}
		for _, i := range []int{-1, len(refs)} {
			if id, err := r.unitOf(i); err == nil {
				t.Errorf("chunk %d is in %v", i, id)
			}
		}
	}
	if ends := cut(nil, 1); len(ends) != 0 {
		t.Errorf("no chunks are %d units", len(ends))
	}
}

// TestMemory: a quarter of what is free, if that is enough.
func TestMemory(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal: 9 kB\nMemAvailable:  1048576 kB\n": 256 << 20, "MemAvailable: 99999999 kB\n": 512 << 20,
		"MemAvailable: 200000 kB\n": 0, "MemAvailable: -1 kB": 0, "MemAvailable: 99999999999999999999 kB": 0,
		"MemAvailable: 9999999999999999 kB": 0, "MemAvailable:": 0, "": 0,
	} {
		if got := memoryOf(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
	if Memory() == 0 {
		t.Error("this machine has no memory")
	}
}

// TestOldTickets: when a box joins again, others are let in with the tickets that they have,
// until the next few joins.
func TestOldTickets(t *testing.T) {
	n, err := NewNode(Config{Memory: 32 << 20, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	s := &session{node: n, ask: &anew{}, unit: 256 << 10, joinedAs: wire.Joined{On: true, Secret: wire.RoomSecret{1}}}
	n.open[object.Name{7}] = s
	if len(n.secrets(object.Name{8})) != 0 {
		t.Error("an image that is not served has secrets")
	}
	for i := range byte(2 * maxBefore) {
		got := n.secrets(object.Name{7})
		if len(got) != min(int(i), maxBefore)+1 || got[0][0] != i+1 || got[len(got)-1][0] != i+1-min(i, maxBefore) {
			t.Errorf("after %d joins more: %v", i, got)
		}
		if err := s.joinAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.unit *= 2
	if err := s.joinAgain(t.Context()); err == nil {
		t.Error("a box joins others that cut the image otherwise")
	}
}

// anew is a room that gives another secret at each join.
type anew struct {
	fakeRoom
	n byte
}

func (a *anew) Join(context.Context, wire.Join) (*wire.Joined, error) {
	a.n++
	return &wire.Joined{On: true, Member: 1, Secret: wire.RoomSecret{a.n + 1}, Unit: 256 << 10}, nil
}

// TestNames: a box keeps its number here when the server gives it another one, and a number
// that the server gives to another box means that one from then on.
func TestNames(t *testing.T) {
	peerOf := func(m room.Member, key byte) wire.RoomPeer {
		return wire.RoomPeer{Peer: room.Peer{Member: m}, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, key}), 1),
			Key: wire.Fingerprint{key}, Ticket: "x"}
	}
	var n names
	a := n.in(&wire.RoomAnswer{Fresh: true, Peers: []wire.RoomPeer{peerOf(7, 1), peerOf(8, 2)}, Again: 10})
	one, two := a.Peers[0].Member, a.Peers[1].Member
	if one == two || one == room.Server || a.Again != 10*time.Millisecond || n.of(one).Key != (wire.Fingerprint{1}) {
		t.Fatalf("%+v", a)
	}
	q := room.Ask{From: []room.Count{{Member: one, Units: 3}}}
	q.Bad = []room.Report{{Member: two, Fault: room.Garbage}, {Member: 99, Fault: room.Slow}}
	if out := n.out(q); out.From[0].Member != 7 || len(out.Bad) != 1 || out.Bad[0].Member != 8 || q.From[0].Member != one {
		t.Errorf("the server is told %+v of %+v", out, q)
	}
	a = n.in(&wire.RoomAnswer{Fresh: true, Peers: []wire.RoomPeer{peerOf(8, 1), peerOf(7, 3)}})
	if a.Peers[0].Member != one || a.Peers[1].Member == two || a.Peers[1].Member == one {
		t.Errorf("after a restart of the server: %+v", a)
	}
	if out := n.out(q); out.From[0].Member != 8 || len(out.Bad) != 0 {
		t.Errorf("of a box that is gone the server is told %+v", out)
	}
	if n.of(0).Ticket != "" || n.of(99).Ticket != "" {
		t.Error("boxes that nobody told of have tickets")
	}
}
