package boxapi_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// guest is a box that has opened an image.
type guest struct {
	*wire.Joined
	token string
	room  *remote.Room
	key   wire.Fingerprint
	end   func() error
}

// roomRig is a server with rooms, and what it was told.
type roomRig struct {
	*rig
	mu   sync.Mutex // guards the fields below
	set  boxapi.RoomSetting
	news []boxapi.RoomNews
}

func newRoomRig(t *testing.T) *roomRig {
	r := &roomRig{set: boxapi.RoomSetting{On: true, Unit: 8 << 20, Upload: 5}}
	r.rig = newRig(t, nil, func(c *boxapi.Config) {
		c.Room = func(string) boxapi.RoomSetting { r.mu.Lock(); defer r.mu.Unlock(); return r.set }
		c.RoomNews = func(n boxapi.RoomNews) { r.mu.Lock(); defer r.mu.Unlock(); r.news = append(r.news, n) }
	})
	return r
}

// told returns what was said since the last call.
func (r *roomRig) told() []boxapi.RoomNews {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.news = nil }()
	return r.news
}

// opens opens an image, and does not join.
func (r *roomRig) opens(t *testing.T, rec *image.Record, n byte) *guest {
	t.Helper()
	grant := all
	grant.Box = fmt.Sprintf("10.0.1.%d", n)
	g := &guest{token: r.let(grant), key: wire.Fingerprint{n}}
	im, err := r.clientOf(g.token, nil).OpenImage(t.Context(), rec, "sda")
	must(t, err)
	g.room, err = remote.RoomOf(im)
	must(t, err)
	g.end = sync.OnceValue(im.Close)
	t.Cleanup(func() { g.end() })
	return g
}

func (g *guest) join(t *testing.T) {
	t.Helper()
	j, err := g.room.Join(t.Context(), wire.Join{Port: 7000 + int(g.key[0]), Key: g.key})
	must(t, err)
	g.Joined = j
}

func (g *guest) ask(t *testing.T, q room.Ask) *wire.RoomAnswer {
	t.Helper()
	q.Serves = true
	a, err := g.room.Ask(t.Context(), q)
	must(t, err)
	return a
}

// guests are boxes that have joined, and have each asked once.
func (r *roomRig) guests(t *testing.T, rec *image.Record, n int) (all []*guest) {
	t.Helper()
	for i := range n {
		g := r.opens(t, rec, byte(i+1))
		g.join(t)
		all = append(all, g)
	}
	for _, g := range all {
		g.ask(t, room.Ask{})
	}
	return all
}

// TestRoom: boxes that have the same image open hear of each other, with tickets that the other
// one takes, and a unit is given out once.
func TestRoom(t *testing.T) {
	r := newRoomRig(t)
	rec, other := r.backup(t, theBox, "mixed"), r.backup(t, "10.0.0.8", "noise")
	boxes := r.guests(t, rec, 2)
	stranger := r.opens(t, other, 9)
	stranger.join(t)
	first, second := boxes[0], boxes[1]
	if !first.On || first.Unit != 8<<20 || first.Upload != 5 || first.Start != 0 ||
		first.Secret == second.Secret || first.Member == second.Member {
		t.Errorf("joined: %+v", first.Joined)
	}
	u := room.Unit{Page: 0, At: 3}
	a := first.ask(t, room.Ask{Want: []room.Unit{u}})
	if !slices.Equal(a.Take, []room.Unit{u}) || a.Boxes != 2 || a.Again < 1 {
		t.Errorf("the first box hears %+v", a)
	}
	if a := second.ask(t, room.Ask{Want: []room.Unit{u}}); len(a.Take) > 0 {
		t.Errorf("the second one takes %v too", a.Take)
	}
	again := r.opens(t, rec, 3)
	again.join(t)
	a = again.ask(t, room.Ask{})
	if !a.Fresh || len(a.Peers) != 2 {
		t.Fatalf("the third one hears %+v", a)
	}
	for _, p := range a.Peers {
		of := boxes[slices.IndexFunc(boxes, func(g *guest) bool { return g.Member == p.Member })]
		if p.Key != of.key || p.Address != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 7000+uint16(of.key[0])) || !p.Near {
			t.Errorf("it hears of %+v", p)
		}
		ticket, err := wire.ParseTicket(p.Ticket)
		must(t, err)
		now, from := time.Now(), netip.MustParseAddr("127.0.0.1")
		if ticket.Root != rec.Disks[0].Root || of.Secret.Check(ticket, now.Add(wire.TicketFor-time.Minute), from, again.key) != nil {
			t.Errorf("its ticket for %d is not good", p.Member)
		}
		if of.Secret.Check(ticket, now.Add(wire.TicketFor+time.Minute), from, again.key) == nil ||
			of.Secret.Check(ticket, now, from, first.key) == nil || again.Secret.Check(ticket, now, from, again.key) == nil {
			t.Errorf("its ticket for %d is good for others, or for too long", p.Member)
		}
	}
	if a := stranger.ask(t, room.Ask{Want: []room.Unit{u}}); len(a.Peers) > 0 || a.Boxes != 1 || len(a.Take) != 1 {
		t.Errorf("a box with another image hears %+v", a)
	}
}

// TestRoomEnds: who leaves, closes the image, or loses its token is out, and the others get what
// it was given.
func TestRoomEnds(t *testing.T) {
	r := newRoomRig(t)
	rec := r.backup(t, theBox, "mixed")
	for what, leave := range map[string]func(*guest) error{
		"leave":  func(g *guest) error { return g.room.Leave(t.Context()) },
		"close":  func(g *guest) error { return g.end() },
		"forget": func(g *guest) error { r.api.Forget(g.token); return nil },
		"rejoin": func(g *guest) error { g.join(t); return nil },
	} {
		boxes := r.guests(t, rec, 2)
		u := room.Unit{Page: 0, At: 1}
		if a := boxes[0].ask(t, room.Ask{Want: []room.Unit{u}}); len(a.Take) != 1 {
			t.Fatalf("%s: it takes %v", what, a.Take)
		}
		must(t, leave(boxes[0]))
		if a := boxes[1].ask(t, room.Ask{Want: []room.Unit{u}}); len(a.Take) != 1 || what != "rejoin" && a.Boxes != 1 {
			t.Errorf("%s: then the other one hears %+v", what, a)
		}
		_, err := boxes[0].room.Ask(t.Context(), room.Ask{})
		if (what == "rejoin") != (err == nil) {
			t.Errorf("%s: then it hears %v", what, err)
		}
		if what == "leave" || what == "forget" {
			wantErr(t, what, err, wire.ErrNotOpen)
			boxes[0].join(t)
			boxes[0].ask(t, room.Ask{})
		}
		boxes[0].end()
		boxes[1].end()
	}
}

// TestRoomRestart: after a restart of the server boxes join again, and go on where they are.
func TestRoomRestart(t *testing.T) {
	r := newRoomRig(t)
	boxes := r.guests(t, r.backup(t, theBox, "mixed"), 2)
	r.kill()
	if _, err := boxes[0].room.Ask(t.Context(), room.Ask{}); err == nil || errors.Is(err, wire.ErrNotOpen) {
		t.Errorf("a server that is away answers %v", err)
	}
	r.start()
	for _, g := range boxes {
		_, err := g.room.Ask(t.Context(), room.Ask{})
		wantErr(t, "a server that was started again", err, wire.ErrNotOpen)
		g.join(t)
	}
	boxes[1].ask(t, room.Ask{})
	if a := boxes[0].ask(t, room.Ask{}); a.Boxes != 2 || len(a.Peers) != 1 {
		t.Errorf("then it hears %+v", a)
	}
}

// TestRoomNews: what boxes say of each other is told, and who is dropped.
func TestRoomNews(t *testing.T) {
	r := newRoomRig(t)
	boxes := r.guests(t, r.backup(t, theBox, "mixed"), 4)
	bad := func(of *guest, f room.Fault) room.Ask {
		return room.Ask{Bad: []room.Report{{Member: of.Member, Fault: f}}}
	}
	boxes[1].ask(t, bad(boxes[0], room.Slow))
	boxes[1].ask(t, bad(boxes[0], room.Garbage))
	boxes[1].ask(t, bad(boxes[1], room.Garbage))
	evil := boxes[0].token
	want := []boxapi.RoomNews{{By: boxes[1].token, Of: evil, Fault: room.Slow}, {By: boxes[1].token, Of: evil, Fault: room.Garbage}}
	if got := r.told(); !slices.Equal(got, want) {
		t.Errorf("told: %+v", got)
	}
	boxes[2].ask(t, bad(boxes[0], room.Garbage))
	want = []boxapi.RoomNews{{By: boxes[2].token, Of: evil, Fault: room.Garbage}, {Of: evil, Fault: room.Garbage, Dropped: true}}
	if got := r.told(); !slices.Equal(got, want) {
		t.Errorf("told: %+v", got)
	}
	late := r.opens(t, r.records()[0], 9)
	late.join(t)
	if a := late.ask(t, room.Ask{}); slices.ContainsFunc(a.Peers, func(p wire.RoomPeer) bool { return p.Member == boxes[0].Member }) {
		t.Error("boxes are told of who was dropped")
	}
}

// TestRoomAccuser: one box alone has nobody dropped, however often it joins and whatever token it
// has. A box that was dropped and joins again stays dropped.
func TestRoomAccuser(t *testing.T) {
	r := newRoomRig(t)
	rec := r.backup(t, theBox, "mixed")
	boxes := r.guests(t, rec, 3)
	bad := room.Ask{Bad: []room.Report{{Member: boxes[0].Member, Fault: room.Garbage}}}
	evil := r.opens(t, rec, 3) // the same box
	evil.join(t)
	for _, g := range []*guest{boxes[2], evil, boxes[2]} {
		g.ask(t, bad)
		g.join(t)
	}
	dropped := func(n boxapi.RoomNews) bool { return n.Dropped }
	if got := r.told(); slices.ContainsFunc(got, dropped) {
		t.Errorf("told: %+v", got)
	}
	boxes[1].ask(t, bad)
	if got := r.told(); !slices.ContainsFunc(got, dropped) {
		t.Errorf("told: %+v", got)
	}
	boxes[0].key[0]++
	boxes[0].join(t)
	boxes[0].ask(t, room.Ask{})
	late := r.opens(t, rec, 9)
	late.join(t)
	if a := late.ask(t, room.Ask{}); slices.ContainsFunc(a.Peers, func(p wire.RoomPeer) bool { return p.Member == boxes[0].Member }) {
		t.Error("boxes are told of who was dropped")
	}
}

// TestRoomRefused: nobody is in the room of an image that it may not read, and where rooms are
// off, there are none.
func TestRoomRefused(t *testing.T) {
	r := newRoomRig(t)
	rec := r.backup(t, theBox, "mixed")
	boxes := r.guests(t, rec, 1)
	none := all
	none.MayRead = func(string, string, string) bool { return false }
	_, err := r.client(none).OpenImage(t.Context(), rec, "sda")
	wantErr(t, "an image of another job", err, fs.ErrNotExist)
	a := &attack{rig: r.rig, http: remote.NewHTTP(r.key)}
	defer a.http.CloseIdleConnections()
	token := r.let(none)
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		body := wire.Marshal(room.Ask{})
		if method == "PUT" {
			body = wire.Marshal(wire.Join{Port: 1, Key: wire.Fingerprint{1}})
		}
		if _, code, _ := a.send(t, token, method, wire.RoomPath(1), body); code != wire.CodeNotOpen {
			t.Errorf("%s for an image that is not open: %q", method, code)
		}
		if _, code, _ := a.send(t, "nobody", method, wire.RoomPath(1), body); code != wire.CodeToken {
			t.Errorf("%s without a token: %q", method, code)
		}
	}
	for _, body := range []string{"", "{}", `{"at":"1.1"}x`, fmt.Sprintf(`{"at":"1.%d"}`, wire.MaxUnits)} {
		if _, code, _ := a.send(t, boxes[0].token, "PUT", wire.RoomPath(1), []byte(body)); code != wire.CodeRefused {
			t.Errorf("PUT %q: %q", body, code)
		}
		if _, code, _ := a.send(t, boxes[0].token, "POST", wire.RoomPath(1), []byte(body)); code != wire.CodeRefused && body != "{}" {
			t.Errorf("POST %q: %q", body, code)
		}
	}
	r.mu.Lock()
	r.set = boxapi.RoomSetting{}
	r.mu.Unlock()
	off := r.opens(t, rec, 5)
	if off.join(t); off.On {
		t.Errorf("where rooms are off: %+v", off.Joined)
	}
	_, err = off.room.Ask(t.Context(), room.Ask{})
	wantErr(t, "where rooms are off", err, wire.ErrNotOpen)
	bare := memory(t)
	im, err := bare.client(all).OpenImage(t.Context(), bare.backup(t, theBox, "mixed"), "sda")
	must(t, err)
	defer im.Close()
	without, err := remote.RoomOf(im)
	must(t, err)
	_, err = without.Join(t.Context(), wire.Join{Port: 1, Key: wire.Fingerprint{1}})
	wantErr(t, "a server without rooms", err, wire.ErrRefused)
}
