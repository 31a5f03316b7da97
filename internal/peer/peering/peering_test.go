package peering_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

func sums(receipts []image.Receipt) (server, peers int64) {
	for _, r := range receipts {
		server += r.FromServer
		peers += r.FromPeers
	}
	return server, peers
}

// boxes makes boxes with empty disks.
func (l *lab) boxes(n int, memory int64) (boxes []*testBox) {
	for range n {
		boxes = append(boxes, l.box(memory))
	}
	return boxes
}

// TestRoom: boxes that restore the same image at once get most of it from each other, and
// each disk is exact.
func TestRoom(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3, 8*mib)
	l.port.rate = 3 * mib
	boxes := l.boxes(4, 16*mib)
	server, peers := sums(all(t, boxes))
	t.Logf("%d bytes came from the server, %d from other boxes", server, peers)
	if peers == 0 { // how much depends on how busy this machine is
		t.Error("nothing came from other boxes")
	}
	for i, b := range boxes {
		if !strings.Contains(b.said(), "boxes restore this image at the moment") || !strings.Contains(b.said(), "came from other boxes") {
			t.Errorf("box %d says only %s", i, b.said())
		}
	}
}

// TestAlone: a box that is alone reads each chunk once from the server, and says nothing of rooms.
func TestAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t, 2, 8*mib)
	b := l.box(16 * mib)
	receipts := all(t, []*testBox{b})
	if r := receipts[0]; r.FromPeers != 0 || r.FromServer < 4*mib || r.FromServer > 2*8*mib {
		t.Errorf("%d bytes came from the server, and %d from other boxes", r.FromServer, r.FromPeers)
	}
	if strings.Contains(b.said(), "boxes") {
		t.Errorf("a box that is alone says %s", b.said())
	}
}

// TestOff: a box that may not join reads as if there were no rooms.
func TestOff(t *testing.T) {
	l := newLab(t, 2, 4*mib)
	l.off = true
	b := l.box(16 * mib)
	receipts := all(t, []*testBox{b})
	if r := receipts[0]; r.FromPeers != 0 || r.FromServer != 0 || *b.node.State() != (wire.RoomState{}) {
		t.Errorf("the receipt has %d and %d bytes, the state is %+v", r.FromServer, r.FromPeers, b.node.State())
	}
	l.off = false
	b = l.box(1)
	b.node.Close() // so there is no port
	all(t, []*testBox{b})
	if !strings.Contains(b.said(), "everything is read from the server") {
		t.Errorf("a box that cannot open a port says %s", b.said())
	}
}

// TestLate: a box that comes when others are done gets the image from their disks, since
// their memory is small. One whose disk has been changed meanwhile sends nothing of that.
func TestLate(t *testing.T) {
	testenv.Long(t, "9 seconds")
	t.Parallel()
	l := newLab(t, 3, 16*mib)
	first, second := l.box(2*mib), l.box(16*mib)
	defer first.stays()()
	f, err := os.OpenFile(first.path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("an accident"), 3*mib)
	must(t, err)
	l.port.rate = 2 * mib // the server alone would take a minute
	server, peers := sums(all(t, []*testBox{second}))
	_, err = f.WriteAt(halfText(16*mib, 0)[3*mib:][:11], 3*mib)
	must(t, errors.Join(err, f.Close()))
	t.Logf("%d bytes came from the server, %d from the other box", server, peers)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.news) > 0 {
		t.Errorf("the server hears of the other box: %v", l.news)
	}
	if peers < server || server == 0 {
		t.Errorf("%d bytes came from the server, and %d from the other box", server, peers)
	}
}

// TestDelta: boxes that lack only little, each something else, get it from the disks of each other.
func TestDelta(t *testing.T) {
	testenv.Long(t, "9 seconds")
	t.Parallel()
	l := newLab(t, 3, 24*mib)
	l.port.rate = mib
	boxes := l.boxes(4, 16*mib)
	src, err := os.ReadFile(l.source)
	must(t, err)
	for i, b := range boxes {
		f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
		must(t, err)
		for r := range int64(3) {
			at := r * chunk.RegionSize
			_, err := f.WriteAt(src[at:][:24*mib], at)
			must(t, err)
			for n := range int64(3) {
				_, err = f.WriteAt(make([]byte, mib/2), at+mib*(5*int64(i)+2+n))
				must(t, err)
			}
		}
		must(t, f.Close())
	}
	server, peers := sums(all(t, boxes))
	t.Logf("%d bytes came from the server, %d from other boxes", server, peers)
	if peers < server {
		t.Errorf("%d bytes came from the server, and %d from other boxes", server, peers)
	}
}

// TestRestart: a server that is killed and started again in the middle costs nothing but time.
func TestRestart(t *testing.T) {
	testenv.Long(t, "a quarter of a minute")
	t.Parallel()
	l := newLab(t, 3, 16*mib)
	l.port.rate = 2 * mib
	boxes := l.boxes(3, 16*mib)
	var wait sync.WaitGroup
	wait.Go(func() { all(t, boxes) })
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if s := boxes[0].node.State(); s != nil && s.FromServer+s.FromPeers > 4*mib {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing comes")
		}
	}
	l.kill()
	l.start()
	wait.Wait()
}

// TestSlowLine: what takes long since the line is slow is not asked for twice.
func TestSlowLine(t *testing.T) {
	testenv.Long(t, "a quarter of a minute")
	t.Parallel()
	l := newLab(t, 1, 4*mib)
	b := l.box(16 * mib)
	l.port.rate = 64 << 10
	r := all(t, []*testBox{b})[0]
	if strings.Contains(b.said(), "other boxes") {
		t.Errorf("a box that is alone says %s", b.said())
	}
	if r.FromServer > l.stored()*11/10 {
		t.Errorf("%d bytes came from the server, of an image of %d", r.FromServer, l.stored())
	}
}

// TestTwoDisks: a box restores two disks from the same image, while another box restores one.
func TestTwoDisks(t *testing.T) {
	t.Parallel()
	l := newLab(t, 2, 6*mib)
	l.port.rate = 2 * mib
	b, other := l.box(16*mib), l.box(16*mib)
	ask, err := remote.RoomOf(b.chunk)
	must(t, err)
	second := b.node.Image(b.chunk, ask)
	path := filepath.Join(t.TempDir(), "second")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, l.size))
	done := make(chan error, 1)
	go func() {
		first, err := disk.OpenPath(b.path, l.disk(), true)
		must(t, err)
		defer first.Close()
		dev, err := disk.OpenPath(path, l.disk(), true)
		must(t, err)
		defer dev.Close()
		jobs := []copier.Job{
			{Name: "sda", Image: b.image, Target: first, SectorSize: 512}, {Name: "sdb", Image: second, Target: dev, SectorSize: 512},
		}
		_, err = copier.Restore(t.Context(), jobs, b.opt)
		b.image.Close()
		second.Close()
		done <- err
	}()
	all(t, []*testBox{other})
	must(t, <-done)
	b.exact()
	b.path = path
	b.exact()
}

// TestGone: boxes that lose power in the middle, or are stopped, hold up nobody.
func TestGone(t *testing.T) {
	testenv.Long(t, "a quarter of a minute")
	t.Parallel()
	l := newLab(t, 3, 8*mib)
	l.port.rate = 2 * mib
	boxes := l.boxes(4, 16*mib)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := boxes[3].restore(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the box that was stopped: %v", err)
		}
	})
	wait.Go(func() {
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if s := boxes[3].node.State(); s != nil && s.FromServer+s.FromPeers > 2*mib {
				break
			}
		}
		cancel()
	})
	all(t, boxes[:3])
	wait.Wait()
}

// TestDamaged: an image that is damaged at the server fails as without a room.
func TestDamaged(t *testing.T) {
	testenv.Long(t, "10 seconds")
	t.Parallel()
	l := newLab(t, 2, 8*mib)
	list, err := l.blobs.List(t.Context(), "")
	must(t, err)
	for _, b := range list {
		if !strings.Contains(b.Name, "pack") {
			continue
		}
		data, err := blob.ReadAll(t.Context(), l.blobs, b.Name, 1<<30)
		must(t, err)
		for at := mib; at < len(data)-mib; at += 97 << 10 {
			data[at] ^= 1
		}
		must(t, l.blobs.Remove(t.Context(), b.Name))
		w, err := l.blobs.Create(t.Context(), b.Name, blob.None)
		must(t, err)
		_, err = w.Write(data)
		must(t, err)
		must(t, w.Commit())
	}
	boxes := l.boxes(2, 16*mib)
	for _, b := range boxes {
		b.opt.Verify = 2 // no check beforehand, so that the damage is found when the chunks come
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var wait sync.WaitGroup
	for _, b := range boxes {
		wait.Go(func() {
			if _, err := b.restore(ctx); !errors.Is(err, object.ErrDamaged) && !errors.Is(err, chunk.ErrMissing) {
				t.Errorf("the image is damaged, and the restore says %v", err)
			}
		})
	}
	wait.Wait()
}

// hostile is a box that joins a room and does harm there.
type hostile struct {
	lies func(page object.Name, at uint32) (object.Object, error)
}

// Have implements peer.Source. It has everything.
func (h *hostile) Have(object.Name, object.Name) []byte {
	b := make([]byte, wire.MaxUnits/8)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// Chunk implements peer.Source.
func (h *hostile) Chunk(ctx context.Context, _, page object.Name, at uint32, _ []byte) (object.Object, error) {
	if h.lies == nil {
		<-ctx.Done()
		return object.Object{}, ctx.Err()
	}
	return h.lies(page, at)
}

// joins lets a hostile box join, and say that it is there, until the test ends.
func (l *lab) joins(h *hostile) {
	t := l.t
	key, print, err := peer.NewKey()
	must(t, err)
	cfg := remote.Config{HTTP: remote.NewHTTP(l.key), Base: "https://" + l.addr, Token: rand.Text()}
	c, err := remote.New(cfg)
	must(t, err)
	im, err := c.OpenImage(t.Context(), l.record, "sda")
	must(t, err)
	ask, err := remote.RoomOf(im)
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	j, err := ask.Join(t.Context(), wire.Join{Port: listener.Addr().(*net.TCPAddr).Port, Key: print})
	must(t, err)
	s := peer.NewServer(peer.ServerConfig{
		Key: key, Source: h, Now: time.Now, Secrets: func(object.Name) []wire.RoomSecret { return []wire.RoomSecret{j.Secret} },
	})
	go s.Serve(listener)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			ask.Ask(ctx, room.Ask{Serves: true, Free: room.Uploads})
			select {
			case <-ctx.Done():
			case <-time.After(room.AskSoon):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		s.Close()
		im.Close()
		cfg.HTTP.CloseIdleConnections()
	})
}

// TestHostile: whatever another box sends, or does not send, each disk is exact, and the
// server hears of it.
func TestHostile(t *testing.T) {
	testenv.Long(t, "a quarter of a minute")
	t.Parallel()
	garbage := func(object.Name, uint32) (object.Object, error) {
		raw := []byte("something else")
		return object.Object{Key: object.Key{Kind: object.Chunk, Name: object.NameOf(raw)}, RawLen: len(raw), Data: raw}, nil
	}
	lacks := func(object.Name, uint32) (object.Object, error) { return object.Object{}, chunk.ErrMissing }
	for name, c := range map[string]struct {
		h      hostile
		faults []room.Fault // any of which is right
	}{
		"garbage": {hostile{garbage}, []room.Fault{room.Garbage}},
		"lies":    {hostile{lacks}, []room.Fault{room.Lacks}},
		"stalls":  {hostile{}, []room.Fault{room.Stalls, room.Slow}}, // slow, if a second source was faster than the limit
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, 2, 8*mib)
			l.port.rate = mib
			l.joins(&c.h)
			all(t, l.boxes(3, 16*mib))
			l.mu.Lock()
			defer l.mu.Unlock()
			if !slices.ContainsFunc(l.news, func(n boxapi.RoomNews) bool { return slices.Contains(c.faults, n.Fault) }) {
				t.Errorf("the server heard only %v", l.news)
			}
		})
	}
}

// TestForeign: with a ticket for an image, nothing of another image can be had, and with no
// ticket nothing at all.
func TestForeign(t *testing.T) {
	t.Parallel()
	l := newLab(t, 2, 4*mib)
	b := l.box(16 * mib)
	defer b.stays()()
	page := b.chunk.Root.Pages[0]
	if b.node.Have(b.chunk.Name, page) == nil {
		t.Error("the box does not know its own page")
	}
	for name, of := range map[string][2]object.Name{
		"another root":    {{1}, page},
		"another page":    {b.chunk.Name, {1}},
		"the root as one": {b.chunk.Name, b.chunk.Name},
	} {
		if have := b.node.Have(of[0], of[1]); have != nil {
			t.Errorf("%s: %v is here", name, have)
		}
		if _, err := b.node.Chunk(t.Context(), of[0], of[1], 0, nil); !errors.Is(err, chunk.ErrMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.node.Chunk(t.Context(), b.chunk.Name, page, 1<<30, nil); !errors.Is(err, chunk.ErrMissing) {
		t.Errorf("a chunk that the page does not have: %v", err)
	}
}
