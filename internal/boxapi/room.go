package boxapi

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// RoomSetting says how a box takes part in a room.
type RoomSetting struct {
	On     bool
	Unit   int    // bytes of a unit, before compression
	Upload int64  // bytes that the box may send in a second; 0 means no limit
	Zone   string // where in the network the box is; "" if nobody knows
}

// RoomNews is what one box says of another one of its room.
type RoomNews struct {
	By, Of  string // tokens
	Fault   room.Fault
	Dropped bool // nobody is told of it any more; By is "" then
}

// rooms has the boxes that restore the same images. It has a mutex of its own, since what is
// decided here takes longer than what the server's mutex is held for. Who has this one takes
// no other.
type rooms struct {
	mu   sync.Mutex // guards all below
	open map[object.Name]*openRoom
}

// openRoom is the room of one image.
type openRoom struct {
	root   object.Name
	swarm  *room.Swarm
	guests map[room.Member]*guest
}

// guest is a box in a room. It belongs to an image that a client has open.
type guest struct {
	of     *openRoom
	member room.Member
	token  string
	box    string // by which it is known, whatever token it has
	at     netip.AddrPort
	key    wire.Fingerprint
	secret wire.RoomSecret
}

// join lets a box join the room of an image with so many regions.
func (r *rooms) join(now time.Time, root object.Name, regions int, g *guest, zone string) (start int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.open[root]
	if o == nil {
		o = &openRoom{root: root, swarm: room.NewSwarm(regions, mathrand.Uint64()), guests: map[room.Member]*guest{}}
		r.open[root] = o
	}
	g.of = o
	g.member, start = o.swarm.Join(now, g.box, zone)
	o.guests[g.member] = g
	o.prune()
	return start
}

// prune forgets guests that were silent for too long.
func (o *openRoom) prune() {
	if len(o.guests) == o.swarm.Members() {
		return
	}
	for m := range o.guests {
		if !o.swarm.Has(m) {
			delete(o.guests, m)
		}
	}
}

// leave removes a box. g may be nil.
func (r *rooms) leave(g *guest) {
	if g == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g.of.swarm.Leave(g.member)
	g.of.prune()
	if len(g.of.guests) == 0 && r.open[g.of.root] == g.of {
		delete(r.open, g.of.root)
	}
}

// ask answers a question of a box. ok is false if it is not in the room any more.
func (r *rooms) ask(now time.Time, g *guest, q *room.Ask) (answer wire.RoomAnswer, news []RoomNews, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := g.of
	a, ok := o.swarm.Ask(now, g.member, *q)
	o.prune()
	if !ok {
		return answer, nil, false
	}
	for _, b := range q.Bad {
		if of := o.guests[b.Member]; of != nil && of != g {
			news = append(news, RoomNews{By: g.token, Of: of.token, Fault: b.Fault})
		}
	}
	for _, d := range o.swarm.Dropped() {
		if of := o.guests[d.Member]; of != nil {
			news = append(news, RoomNews{Of: of.token, Fault: d.Fault, Dropped: true})
		}
	}
	answer = wire.RoomAnswer{Fresh: a.Fresh, Take: a.Take, Again: int(a.Again.Milliseconds()), Boxes: o.swarm.Members()}
	until := now.Add(wire.TicketFor)
	for _, p := range a.Peers {
		if of := o.guests[p.Member]; of != nil {
			ticket := of.secret.Ticket(o.root, until, g.at.Addr(), g.key)
			answer.Peers = append(answer.Peers, wire.RoomPeer{Peer: p, Address: of.at, Key: of.key, Ticket: ticket.String()})
		}
	}
	return answer, news, true
}

// roomImage returns the image that a request about a room names.
func (q *request) roomImage() (im *openedImage, done func(), err error) {
	n, err := q.number("image")
	if err != nil {
		return nil, nil, err
	}
	return q.s.image(q.client, n)
}

// readRoom reads a request about a room, and finds the image that it names. What is parsed
// may take factor times the memory of the body. done gives both back.
func readRoom[T any](ctx context.Context, q *request, most, factor int64, parse func([]byte) (T, error)) (
	v T, im *openedImage, done func(), err error,
) {
	body, release, err := q.small(ctx, most, factor)
	if err != nil {
		return v, nil, nil, err
	}
	if v, err = parse(body); err != nil {
		release()
		return v, nil, nil, errRefused(err)
	}
	im, leave, err := q.roomImage()
	if err != nil {
		release()
		return v, nil, nil, err
	}
	return v, im, func() { leave(); release() }, nil
}

// joinRoom lets a box join the others that restore an image. Who joins again has lost its
// place, as after a break of the network, and gets a new one.
func (s *Server) joinRoom(ctx context.Context, q *request) error {
	j, im, done, err := readRoom(ctx, q, wire.MaxJoin, 2, wire.ParseJoin)
	if err != nil {
		return err
	}
	defer done()
	set := s.cfg.Room(q.token)
	if !set.On {
		return q.answer(http.StatusOK, jsonType, wire.Marshal(wire.Joined{}))
	}
	g := &guest{token: q.token, box: q.grant.Box, at: netip.AddrPortFrom(q.from(), uint16(j.Port)), key: j.Key}
	rand.Read(g.secret[:])
	start := s.rooms.join(time.Now(), im.image.Name, len(im.image.Root.Pages), g, set.Zone)
	s.mu.Lock()
	before, ended := im.guest, im.ended
	im.guest = g
	s.mu.Unlock()
	s.rooms.leave(before)
	if ended {
		s.rooms.leave(g)
		return &wire.Problem{Code: wire.CodeNotOpen, Text: "the image was closed meanwhile"}
	}
	return q.answer(http.StatusOK, jsonType, wire.Marshal(wire.Joined{
		On: true, Member: g.member, Start: start, Secret: g.secret, Unit: set.Unit, Upload: set.Upload,
	}))
}

// askRoom tells a box of peers, and what it is to fetch from the server.
func (s *Server) askRoom(ctx context.Context, q *request) error {
	asked, im, done, err := readRoom(ctx, q, wire.MaxRoom, 4, wire.ParseAsk)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	g := im.guest
	s.mu.Unlock()
	away := &wire.Problem{Code: wire.CodeNotOpen, Text: "this box is not in the room of the image"}
	if g == nil {
		return away
	}
	a, news, ok := s.rooms.ask(time.Now(), g, asked)
	if !ok {
		return away
	}
	for _, n := range news {
		s.cfg.RoomNews(n)
	}
	return q.answer(http.StatusOK, jsonType, wire.Marshal(a))
}

// leaveRoom is the end of a box's part in a room.
func (s *Server) leaveRoom(ctx context.Context, q *request) error {
	im, done, err := q.roomImage()
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	g := im.guest
	im.guest = nil
	s.mu.Unlock()
	s.rooms.leave(g)
	return q.answer(http.StatusNoContent, "", nil)
}
