package wire

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
)

func joined() *Joined {
	return &Joined{On: true, Member: 3, Start: 2, Secret: RoomSecret{1}, Unit: 8 << 20, Upload: 1e6}
}

func ask() *room.Ask {
	return &room.Ask{
		At: room.Unit{Page: 3, At: 7}, Taking: []room.Unit{{Page: 3, At: 8}}, Want: []room.Unit{{Page: 3, At: 9}, {Page: 4}},
		Urgent: true, Deaf: true, Serves: true, Free: 2, From: []room.Count{{Member: 1, Units: 4}},
		Bad: []room.Report{{Member: 2, Fault: room.Slow}},
	}
}

func roomAnswer() *RoomAnswer {
	ticket := RoomSecret{1}.Ticket(object.Name{2}, time.Unix(1e9, 0), netip.MustParseAddr("10.0.0.7"), Fingerprint{3})
	return &RoomAnswer{Fresh: true, Take: []room.Unit{{Page: 1, At: 2}}, Again: 250, Boxes: 2, Peers: []RoomPeer{{
		Peer: room.Peer{Member: 2, Near: true}, Address: netip.MustParseAddrPort("10.0.0.8:7000"), Key: Fingerprint{4}, Ticket: ticket.String(),
	}}}
}

// fullAsk and fullAnswer are as long as they can be.
func fullAsk() *room.Ask {
	q := ask()
	q.Want, q.Taking, q.From, q.Bad = nil, nil, nil, nil
	for range room.MaxWant {
		u := room.Unit{Page: 1<<32 - 1, At: MaxUnits - 1}
		q.Want, q.Taking = append(q.Want, u), append(q.Taking, u)
	}
	for range room.MaxReports {
		q.From = append(q.From, room.Count{Member: 1<<32 - 1, Units: 1 << 62})
		q.Bad = append(q.Bad, room.Report{Member: 1<<32 - 1, Fault: room.Garbage})
	}
	return q
}

func fullAnswer() *RoomAnswer {
	a := roomAnswer()
	p := a.Peers[0]
	p.Address = netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
	a.Peers, a.Take = slices.Repeat([]RoomPeer{p}, room.MaxPeers), slices.Repeat(a.Take, room.AloneSlots)
	return a
}

// TestRoomMessages: messages about a room come back as they were, also the longest ones.
func TestRoomMessages(t *testing.T) {
	j := &Join{Port: 7000, Key: Fingerprint{9}}
	got, err := ParseJoin(Marshal(j))
	if must(t, err); *got != *j {
		t.Errorf("%+v became %+v", j, got)
	}
	for _, j := range []*Joined{joined(), {}} {
		got, err := ParseJoined(Marshal(j), 3)
		if must(t, err); *got != *j {
			t.Errorf("%+v became %+v", j, got)
		}
	}
	for _, q := range []*room.Ask{ask(), {}, fullAsk()} {
		got, err := ParseAsk(Marshal(q))
		if must(t, err); !reflect.DeepEqual(got, q) {
			t.Errorf("%+v became %+v", q, got)
		}
	}
	for _, a := range []*RoomAnswer{roomAnswer(), {Boxes: 1}, {Boxes: 1, Fresh: true}, fullAnswer()} {
		got, err := ParseRoomAnswer(Marshal(a))
		if must(t, err); !reflect.DeepEqual(got, a) {
			t.Errorf("%+v became %+v", a, got)
		}
	}
}

// TestRoomHostile: what nobody says is not taken.
func TestRoomHostile(t *testing.T) {
	for name, change := range map[string]func(*Join){
		"port": func(j *Join) { j.Port = 65536 }, "no port": func(j *Join) { j.Port = 0 }, "key": func(j *Join) { j.Key = Fingerprint{} },
	} {
		j := &Join{Port: 1, Key: Fingerprint{1}}
		if change(j); !refused(ParseJoin(Marshal(j))) {
			t.Errorf("join: %s is taken", name)
		}
	}
	for name, change := range map[string]func(*Joined){
		"off": func(j *Joined) { j.On = false }, "member": func(j *Joined) { j.Member = 0 }, "start": func(j *Joined) { j.Start = 3 },
		"early": func(j *Joined) { j.Start = -1 }, "secret": func(j *Joined) { j.Secret = RoomSecret{} },
		"unit": func(j *Joined) { j.Unit = 1 << 30 }, "no unit": func(j *Joined) { j.Unit = 0 }, "upload": func(j *Joined) { j.Upload = -1 },
	} {
		j := joined()
		change(j)
		if _, err := ParseJoined(Marshal(j), 3); err == nil {
			t.Errorf("joined: %s is taken", name)
		}
	}
	for name, change := range map[string]func(*room.Ask){
		"want": func(q *room.Ask) { q.Want = make([]room.Unit, room.MaxWant+1) }, "unit": func(q *room.Ask) { q.Want[0].At = MaxUnits },
		"at": func(q *room.Ask) { q.At.At = MaxUnits }, "taking": func(q *room.Ask) { q.Taking[0].At = MaxUnits },
		"free": func(q *room.Ask) { q.Free = -1 }, "more": func(q *room.Ask) { q.Free = room.Uploads + 1 },
		"from": func(q *room.Ask) { q.From[0].Units = -1 }, "server": func(q *room.Ask) { q.From[0].Member = 0 },
		"fault": func(q *room.Ask) { q.Bad[0].Fault = "x" }, "busy": func(q *room.Ask) { q.Bad[0].Fault = room.Busy },
		"many": func(q *room.Ask) { q.Bad = slices.Repeat(q.Bad, room.MaxReports+1) },
	} {
		q := ask()
		if change(q); !refused(ParseAsk(Marshal(q))) {
			t.Errorf("ask: %s is taken", name)
		}
	}
	for name, change := range map[string]func(*RoomAnswer){
		"peers": func(a *RoomAnswer) { a.Peers = slices.Repeat(a.Peers, room.MaxPeers+1) }, "old": func(a *RoomAnswer) { a.Fresh = false },
		"take": func(a *RoomAnswer) { a.Take = slices.Repeat(a.Take, room.AloneSlots+1) }, "again": func(a *RoomAnswer) { a.Again = -1 },
		"late": func(a *RoomAnswer) { a.Again = 1 << 40 }, "boxes": func(a *RoomAnswer) { a.Boxes = 0 },
		"ticket": func(a *RoomAnswer) { a.Peers[0].Ticket = "x" }, "member": func(a *RoomAnswer) { a.Peers[0].Member = 0 },
		"key":  func(a *RoomAnswer) { a.Peers[0].Key = Fingerprint{} },
		"port": func(a *RoomAnswer) { a.Peers[0].Address = netip.MustParseAddrPort("1.2.3.4:0") },
		"zone": func(a *RoomAnswer) { a.Peers[0].Address = netip.MustParseAddrPort("[fe80::1%x]:1") },
	} {
		a := roomAnswer()
		if change(a); !refused(ParseRoomAnswer(Marshal(a))) {
			t.Errorf("answer: %s is taken", name)
		}
	}
	for _, text := range []string{
		`{"at":"1.2","x":1}`, `{"at":"1.2"}x`, `{"at":"01.2"}`, `{"at":"1"}`, `{"at":"-1.2"}`, `{"at":"1.2.3"}`, `{"at":"+1.2"}`,
	} {
		if !refused(ParseAsk([]byte(text))) {
			t.Errorf("%s is taken", text)
		}
	}
}

func refused[A any](_ *A, err error) bool { return err != nil }

// TestTicket: a ticket lets in whom it was made for, until it is too old, and nobody else.
func TestTicket(t *testing.T) {
	secret, key, root := RoomSecret{1}, Fingerprint{2}, object.Name{3}
	from, until := netip.MustParseAddr("10.0.0.7"), time.Unix(2e9, 5)
	text := secret.Ticket(root, until, from, key).String()
	if !ValidToken(text) {
		t.Fatalf("%q is no token", text)
	}
	ticket, err := ParseTicket(text)
	must(t, err)
	until = ticket.Expires
	mapped := netip.AddrFrom16(from.As16())
	for _, c := range []struct {
		name   string
		secret RoomSecret
		now    time.Time
		from   netip.Addr
		key    Fingerprint
		ok     bool
	}{
		{"sound", secret, until, from, key, true},
		{"the same address, mapped", secret, until, mapped, key, true},
		{"too old", secret, until.Add(time.Second), from, key, false},
		{"another secret", RoomSecret{}, until, from, key, false},
		{"another address", secret, until, from.Next(), key, false},
		{"another key", secret, until, from, Fingerprint{}, false},
	} {
		if err := c.secret.Check(ticket, c.now, c.from, c.key); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	later := ticket
	later.Expires = until.Add(time.Hour)
	other := ticket
	other.Root[0]++
	for _, changed := range []Ticket{later, other} {
		if secret.Check(changed, until, from, key) == nil {
			t.Error("a ticket that was changed is good")
		}
	}
	for _, s := range []string{"", text[1:], text + "A", strings.Repeat("_", len(text)), text[:len(text)-1] + "="} {
		if _, err := ParseTicket(s); err == nil {
			t.Errorf("%q is a ticket", s)
		}
	}
}

func FuzzJoin(f *testing.F) {
	f.Add(Marshal(&Join{Port: 7000, Key: Fingerprint{9}}))
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, ParseJoin) })
}

func FuzzJoined(f *testing.F) {
	f.Add(Marshal(joined()))
	f.Add([]byte(`{"on":false}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, func(b []byte) (*Joined, error) { return ParseJoined(b, 3) })
	})
}

func FuzzAsk(f *testing.F) {
	f.Add(Marshal(ask()))
	f.Fuzz(func(t *testing.T, b []byte) {
		q := again(t, b, ParseAsk)
		if q == nil {
			return
		}
		s := room.NewSwarm(4, 1)
		m, _ := s.Join(time.Unix(1, 0), "a", "")
		s.Join(time.Unix(1, 0), "b", "")
		if a, ok := s.Ask(time.Unix(1, 0), m, *q); !ok || len(a.Take) > room.AloneSlots {
			t.Errorf("%+v is answered by %+v", q, a)
		}
	})
}

func FuzzRoomAnswer(f *testing.F) {
	f.Add(Marshal(roomAnswer()))
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, ParseRoomAnswer) })
}

// again parses a message, and what Marshal makes of it.
func again[A any](t *testing.T, b []byte, parse func([]byte) (*A, error)) *A {
	m, err := parse(b)
	if err != nil {
		return nil
	}
	more, err := parse(Marshal(m))
	if err != nil || string(must2(json.Marshal(more))) != string(must2(json.Marshal(m))) {
		t.Errorf("%+v became %+v, %v", m, more, err)
	}
	return m
}

func must2(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzTicket(f *testing.F) {
	f.Add(roomAnswer().Peers[0].Ticket)
	f.Fuzz(func(t *testing.T, s string) {
		ticket, err := ParseTicket(s)
		if err != nil {
			return
		}
		if ticket.String() != s || !ValidToken(s) {
			t.Errorf("%q became %q", s, ticket)
		}
		if (RoomSecret{7}).Check(ticket, time.Unix(0, 0), netip.MustParseAddr("10.0.0.7"), Fingerprint{3}) == nil {
			t.Errorf("%q is good", s)
		}
	})
}

func FuzzPeerQuestions(f *testing.F) {
	f.Add(AppendChunks(nil, object.Name{1}, []uint32{0, 5, 7}))
	f.Add(AppendPages(nil, []object.Name{{1}, {2}}))
	f.Add(AppendHave(AppendHave(AppendFree(nil, 3), []byte{1, 2}), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if page, at, err := ParseChunks(b); err == nil {
			if string(AppendChunks(nil, page, at)) != string(b) || len(at) > MaxPlaces || !slices.IsSorted(at) {
				t.Errorf("%x became %v of %v", b, at, page)
			}
		}
		if pages, err := ParsePages(b); err == nil && (string(AppendPages(nil, pages)) != string(b) || len(pages) > MaxPages) {
			t.Errorf("%x became %v", b, pages)
		}
		if free, have, err := ParseHave(b, 2); err == nil {
			back := AppendFree(nil, free)
			for _, h := range have {
				back = AppendHave(back, h)
			}
			if string(back) != string(b) || len(have) != 2 || len(b) > MaxHave {
				t.Errorf("%x became %x", b, have)
			}
		}
	})
}
