package peering

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// session is this box's part in the room of one image.
type session struct {
	node   *Node
	ask    Room
	root   object.Name
	image  *chunk.Image // as this session reads it
	plain  *pager       // the server
	g      copier.Gathering
	start  int  // region with which the box begins
	unit   int  // bytes of a unit before compression
	disk   bool // others are served from the disk
	laid   layouts
	free   memories
	ctx    context.Context // ends with the session
	cancel context.CancelFunc
	work   sync.WaitGroup

	planning context.Context // ends when nothing is fetched any more
	unplan   context.CancelFunc
	plans    sync.WaitGroup
	wakes    chan struct{} // something has happened that makes it worth looking
	server   atomic.Int64  // bytes from the server
	others   atomic.Int64  // bytes from other boxes

	reading sync.RWMutex // held for reading while the disk is read for others
	gone    bool         // the disk is not read for others any more

	mu       sync.Mutex // guards the fields below
	joinedAs wire.Joined
	before   []wire.RoomSecret // of earlier joins, the latest first
	picker   *room.Picker
	fetching bool          // the image is being written
	planned  bool          // no further units will be planned
	moved    chan struct{} // closed when something was planned
	regions  map[uint32]*region
	byPage   map[object.Name]*region
	units    map[room.Unit]*unit
	sums     map[chunk.Place]xxh3.Uint128 // of chunks that the copier takes, until it asks for them
	early    map[chunk.Place]bool         // that the copier has read from the server before they were planned
	kept     list.List                    // of *unit, all of whose chunks were taken, the oldest first
	settling []*unit                      // whose chunks are not in memory any more, and perhaps not on the disk yet
	memory   int64                        // bytes of all units
	waiting  int64                        // bytes of those that the copier has not taken
	ratio    float64                      // how long a chunk is as it is stored, in parts of its length
	taken    int64                        // bytes that the copier has taken
	flights  map[uint64]context.CancelCauseFunc

	asking   bool
	asked    time.Time
	answered time.Time // when the server answered last
	lost     bool      // the server does not answer, and that was said
	why      error     // of the last question; nil if it was answered
	boxes    int       // in the room
	met      bool      // another box was there, and that was said
	deaf     bool
	deafSaid bool
	names    names
}

// settled is how many bytes the copier takes until what it took before is on the disk. It
// has no more than 32 slots of 1 MiB, and frees one when it has written it.
const settled = 34 << 20

// firstRatio is what ratio is before something came.
const firstRatio = 0.5

func newSession(im *Image, g copier.Gathering, j *wire.Joined) *session {
	s := &session{
		node: im.node, ask: im.ask, root: im.StoredImage.Image.Name, plain: im.plain,
		g: g, start: j.Start, unit: j.Unit, disk: !g.Cached && !g.Rotational, wakes: make(chan struct{}, 1),
		joinedAs: *j, fetching: true, moved: make(chan struct{}), regions: map[uint32]*region{}, byPage: map[object.Name]*region{},
		units: map[room.Unit]*unit{}, sums: map[chunk.Place]xxh3.Uint128{}, early: map[chunk.Place]bool{},
		flights:  map[uint64]context.CancelCauseFunc{},
		answered: time.Now(), ratio: firstRatio, picker: room.NewPicker(time.Now(), room.Window(im.node.cfg.Memory), rand.Uint64()),
	}
	s.picker.Begin(room.Unit{Page: uint32(j.Start)})
	s.image = im.StoredImage.Image.With(&getter{im.plain, s})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.planning, s.unplan = context.WithCancel(s.ctx)
	return s
}

func (s *session) joined() wire.Joined {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joinedAs
}

// run begins to fetch, and to serve others.
func (s *session) run() {
	s.node.begin(s)
	s.plans.Go(s.plan)
	s.work.Go(s.loop)
}

// fetched ends the fetching. Others are served on.
func (s *session) fetched() {
	s.unplan()
	s.plans.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching, s.planned = false, true
	s.taken += settled // all that was taken is on the disk
	s.settle()
	s.broadcast()
	for n, cancel := range s.flights {
		cancel(errUnwanted)
		delete(s.flights, n)
	}
	server, others := s.server.Load(), s.others.Load()
	if s.met {
		s.node.cfg.Log("%s; %s went to other boxes", image.SourcesText(server, others), image.SizeText(s.node.sent()))
	}
}

// given notes the sum of a chunk that the copier gets.
func (s *session) given(at chunk.Place, sum xxh3.Uint128) {
	if !s.g.ReadsBack {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[at] = sum
}

// arrived returns the sum of a chunk that the copier got, once.
func (s *session) arrived(at chunk.Place) (sum xxh3.Uint128, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, ok = s.sums[at]
	delete(s.sums, at)
	return sum, ok
}

// account writes into a receipt from where the image came.
func (s *session) account(r *image.Receipt) {
	r.FromServer, r.FromPeers = s.server.Load(), s.others.Load()
}

func (s *session) state() *wire.RoomState {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node
	return &wire.RoomState{Boxes: s.boxes, FromServer: n.fromServer.Load(), FromPeers: n.fromPeers.Load(), ToPeers: n.sent(), Deaf: s.deaf}
}

// leaveLimit is how long a box waits for the server when it leaves a room. The server finds
// out by itself in some seconds too.
const leaveLimit = 2 * time.Second

// close leaves the room.
func (s *session) close() {
	s.node.end(s)
	s.cancel()
	s.mu.Lock()
	s.fetching, s.planned = false, true
	s.broadcast()
	s.mu.Unlock()
	s.reading.Lock()
	s.gone = true
	s.reading.Unlock()
	s.plans.Wait()
	s.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaveLimit)
	defer cancel()
	s.ask.Leave(ctx) // a server that is away finds out by itself
}

// broadcast wakes all that wait for something to be planned, or for room to plan more.
func (s *session) broadcast() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// wake makes the loop look.
func (s *session) wake() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// lookEvery is how often the loop looks if nothing happens. It bounds how late is noticed what
// is only a matter of time.
const lookEvery = 50 * time.Millisecond

// loop does what is to be done.
func (s *session) loop() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.wakes:
		}
		s.look()
	}
}

// look begins all that can begin.
func (s *session) look() {
	free := s.node.free()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.fetching {
		for _, f := range s.picker.Overdue(now) {
			s.giveUp(f)
		}
		for f, ok := s.picker.Next(now); ok; f, ok = s.picker.Next(now) {
			s.begin(f)
		}
		for _, m := range s.picker.Poll(now) {
			s.poll(m)
		}
		s.hear(now)
		if now.Sub(s.answered) >= waitFor && !s.lost {
			s.lost = true
			s.node.cfg.Log("the server does not say where chunks are, so they are asked of it alone (%v)", cmp.Or(s.why, errSilent))
			s.broadcast()
		}
	}
	if !s.asking && (s.fetching || now.Sub(s.asked) >= room.AskEvery) {
		if q, ok := s.picker.Ask(now, free); ok {
			s.asking, s.asked, q.Deaf = true, now, s.deaf
			s.work.Go(func() { s.question(q) })
		}
	}
}

// hear notes whether other boxes can be reached. A box that is alone with a slow server gets too little, and
// no other box is to blame.
func (s *session) hear(now time.Time) {
	if s.deaf = s.boxes > 1 && s.picker.Deaf(now); s.deaf && !s.deafSaid {
		s.deafSaid = true
		s.node.cfg.Log("other boxes do not answer, or give too little, so everything comes from the server for now; " +
			"a firewall between boxes may be why")
	}
}

// question asks the server what is to be fetched from where.
func (s *session) question(q room.Ask) {
	s.mu.Lock()
	sent := s.names.out(q)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, waitFor)
	defer cancel()
	a, err := s.ask.Ask(ctx, sent)
	if errors.Is(err, wire.ErrNotOpen) {
		err = s.joinAgain(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	defer s.wake()
	now := time.Now()
	if err == nil {
		s.answered, s.lost = now, false
	}
	if s.why = err; a == nil {
		return
	}
	for _, r := range q.Bad {
		s.node.cfg.Log("%s: %s", s.names.of(r.Member).Address.Addr(), faultText[r.Fault])
	}
	s.boxes = a.Boxes
	if a.Boxes > 1 && !s.met {
		s.met = true
		s.node.cfg.Log("%d boxes restore this image at the moment, and give it to each other", a.Boxes)
	}
	s.picker.Told(now, q, s.names.in(a))
	if a.Fresh {
		s.node.peers.Keep(s.names.listed)
	}
}

// faultText says what is wrong with another box.
var faultText = map[room.Fault]string{
	room.Garbage: "this box sends wrong bytes, and is not asked any more",
	room.Stalls:  "this box does not send what it is asked for, and is left alone for a minute",
	room.Slow:    "this box sends much slower than others, and is left alone for a minute",
	room.Lacks:   "this box does not have what it says it has, and is left alone for a minute",
}

// joinAgain joins a room that the server has lost, or that has lost this box.
func (s *session) joinAgain(ctx context.Context) error {
	s.node.mu.Lock()
	port := s.node.port
	s.node.mu.Unlock()
	j, err := s.ask.Join(ctx, wire.Join{Port: port, Key: s.node.print})
	if err != nil {
		return err
	}
	switch { // the setting has changed meanwhile
	case !j.On:
		return errors.New("boxes do not work together any more")
	case j.Unit != s.unit:
		return errors.New("others cut the image otherwise now")
	}
	s.node.limit(j.Upload)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = append([]wire.RoomSecret{s.joinedAs.Secret}, s.before[:min(len(s.before), maxBefore-1)]...)
	s.joinedAs = *j
	return nil
}

// maxBefore is how many earlier secrets count. When a server was started again, others have
// tickets of before for some seconds, until each has joined and asked again. If these were
// refused, boxes would leave each other alone for a minute. A ticket becomes too old by itself.
const maxBefore = 4

// names translates the numbers that the server gives to boxes. They are other ones when it
// has started anew, and a box must not be taken for another one that has failed. Here a box
// is known by its key.
type names struct {
	numbers map[wire.Fingerprint]room.Member
	peers   []named // by their number here, less one
	listed  []peer.To
}

type named struct {
	to     peer.To
	server room.Member // number at the server; room.Server if it told not of it lately
}

// in translates an answer.
func (n *names) in(a *wire.RoomAnswer) room.Answer {
	out := room.Answer{Fresh: a.Fresh, Take: a.Take, Again: time.Duration(a.Again) * time.Millisecond}
	if !a.Fresh {
		return out
	}
	if n.numbers == nil {
		n.numbers = map[wire.Fingerprint]room.Member{}
	}
	for i := range n.peers {
		n.peers[i].server = room.Server
	}
	n.listed = n.listed[:0]
	for _, p := range a.Peers {
		to := peer.To{Address: p.Address, Key: p.Key, Ticket: p.Ticket}
		m, has := n.numbers[p.Key]
		if !has {
			n.peers = append(n.peers, named{})
			m = room.Member(len(n.peers))
			n.numbers[p.Key] = m
		}
		n.peers[m-1] = named{to, p.Member}
		n.listed = append(n.listed, to)
		out.Peers = append(out.Peers, room.Peer{Member: m, Near: p.Near})
	}
	return out
}

// of returns where a box is.
func (n *names) of(m room.Member) peer.To {
	if m < 1 || int(m) > len(n.peers) {
		return peer.To{}
	}
	return n.peers[m-1].to
}

// out translates a question. What it says of boxes of which the server does not tell any more
// is left out.
func (n *names) out(q room.Ask) room.Ask {
	server := func(m room.Member) room.Member {
		if m < 1 || int(m) > len(n.peers) {
			return room.Server
		}
		return n.peers[m-1].server
	}
	from, bad := q.From, q.Bad
	q.From, q.Bad = nil, nil
	for _, c := range from {
		if c.Member = server(c.Member); c.Member != room.Server {
			q.From = append(q.From, c)
		}
	}
	for _, r := range bad {
		if r.Member = server(r.Member); r.Member != room.Server {
			q.Bad = append(q.Bad, r)
		}
	}
	return q
}

// poll asks a peer what it has.
func (s *session) poll(m room.Member) {
	to, pages := s.names.of(m), s.wanted()
	s.work.Go(func() {
		free, have := 0, [][]byte(nil)
		var err error
		if len(pages) > 0 {
			names := make([]object.Name, len(pages))
			for i, r := range pages {
				names[i] = r.page
			}
			free, have, err = s.node.peers.Have(s.ctx, to, names)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		defer s.wake()
		if err != nil {
			s.picker.HasNot(time.Now(), m, peer.FaultOf(err))
			return
		}
		has := map[uint32][]byte{}
		for i, b := range have {
			has[pages[i].number] = b
		}
		s.picker.Has(time.Now(), m, free, has)
	})
}

// wanted are the regions about which peers are asked.
func (s *session) wanted() (regions []*region) {
	for _, n := range s.picker.Pages() {
		if r := s.regions[n]; r != nil && len(regions) < wire.MaxPages {
			regions = append(regions, r)
		}
	}
	return regions
}
