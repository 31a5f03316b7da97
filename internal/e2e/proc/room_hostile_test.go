package proc

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// act is what a hostile box of a room does. It says of itself that it has all of the image.
type act string

const (
	garbage act = "garbage" // sends other bytes, under the right names and of the right length
	stalls  act = "stalls"  // begins to answer, and sends nothing
	lies    act = "lies"    // says of each chunk that it is not there after all
	takes   act = "takes"   // lets the server give it units, fetches none, and answers nobody
)

// hostile is a box with a job to restore, on which another program runs than the agent.
type hostile struct {
	*servedBox
	id     string // of the job
	act    act
	client *remote.Client
	image  *chunk.Image
	room   *remote.Room
	key    tls.Certificate
	joined *wire.Joined
	pages  map[object.Name]*chunk.Page
	end    func()

	mu    sync.Mutex // guards peers
	peers []wire.RoomPeer
}

// open begins the session of the box that is armed, opens the image, and reads all its pages.
func (h *hostile) open(ctx context.Context) {
	h.t.Helper()
	i := h.intruder()
	var err error
	h.client, err = remote.New(remote.Config{HTTP: i.http, Base: i.base, Token: i.token})
	must(h.t, err)
	w, err := h.client.Hello(ctx, &wire.Hello{Agent: "hostile", Box: i.cmd.Address, Arming: i.cmd.Arming, Secret: i.cmd.Secret})
	must(h.t, err)
	if w.Word != job.Work {
		h.t.Fatalf("the server says %s to box %s", w.Word, h.addr)
	}
	h.image, err = h.client.OpenImage(ctx, w.Job.Record, "sda")
	must(h.t, err)
	h.pages = map[object.Name]*chunk.Page{}
	for n, name := range h.image.Root.Pages {
		h.pages[name], err = h.image.Page(ctx, n)
		must(h.t, err)
	}
}

// close ends the session without success, and the job.
func (h *hostile) close() {
	h.image.Close()
	if _, err := h.client.Result(context.Background(), &wire.Result{Outcome: box.Failed}); err != nil {
		h.t.Error(err)
	}
	h.site.does(done, []string{"cancel", h.id})
}

// misbehave begins to be hostile. The box has a job, and is armed. The caller ends that.
func (r *roomSite) misbehave(b *servedBox, id string, a act) *hostile {
	r.t.Helper()
	h := &hostile{servedBox: b, id: id, act: a}
	ctx, cancel := context.WithCancel(context.Background())
	h.open(ctx)
	var err error
	h.room, err = remote.RoomOf(h.image)
	must(r.t, err)
	var print wire.Fingerprint
	h.key, print, err = peer.NewKey()
	must(r.t, err)
	var listener net.Listener
	must(r.t, b.host.inside(func() (err error) { listener, err = net.Listen("tcp", b.addr+":0"); return err }))
	join := wire.Join{Port: listener.Addr().(*net.TCPAddr).Port, Key: print}
	h.joined, err = h.room.Join(ctx, join)
	must(r.t, err)
	if !h.joined.On {
		r.t.Fatalf("the server lets box %s join no room", b.addr)
	}
	var work sync.WaitGroup
	if a == takes {
		listener.Close()
	} else {
		server := peer.NewServer(peer.ServerConfig{
			Key: h.key, Source: h, Secrets: func(object.Name) []wire.RoomSecret { return []wire.RoomSecret{h.joined.Secret} }, Now: time.Now,
		})
		work.Go(func() { server.Serve(listener) })
		context.AfterFunc(ctx, server.Close)
	}
	work.Go(func() { h.ask(ctx, join) })
	h.end = func() {
		h.room.Leave(ctx)
		cancel()
		work.Wait()
		h.close()
		r.does(done, []string{"box", "health", b.addr, "good"})
	}
	return h
}

// named wants the server to say in its log and to its clients what the box does.
func (h *hostile) named(round string) {
	h.t.Helper()
	want := map[act]map[room.Fault]string{
		garbage: {room.Garbage: "sends wrong bytes"},
		lies:    {room.Lacks: "does not send what it said to have"},
		// If what it does not send comes from another box first, it counts as slow.
		stalls: {room.Stalls: "sends nothing, or next to nothing", room.Slow: "is much slower than others"},
	}[h.act]
	if want == nil {
		return
	}
	said, faults := h.site.said(), h.job(h.id).Room.Faults
	for _, f := range faults {
		if text := want[f.Fault]; text != "" && strings.Contains(said, "The box "+h.addr+" "+text+", says ") {
			return
		}
	}
	h.t.Errorf("%s: of box %s, which %s, clients hear %v, and the server says\n%s", round, h.addr, h.act, faults, said)
}

// ask asks the server as a box does that has all, or that lacks all.
func (h *hostile) ask(ctx context.Context, join wire.Join) {
	q := room.Ask{Serves: true, Free: room.Uploads}
	number := uint64(0)
	for ; ctx.Err() == nil; sleep(ctx, room.AskEvery/2) {
		number++
		h.client.Report(ctx, &wire.Report{Number: number, Text: "hostile"})
		if h.act == takes {
			q.Want, q.Urgent = h.next(room.MaxWant), true
		}
		a, err := h.room.Ask(ctx, q)
		if err != nil {
			h.room.Join(ctx, join) // the server was started again
			continue
		}
		if q.Taking = append(q.Taking, a.Take...); len(q.Taking) > room.MaxWant {
			q.Taking = q.Taking[len(q.Taking)-room.MaxWant:]
		}
		if a.Fresh {
			h.mu.Lock()
			h.peers = a.Peers
			h.mu.Unlock()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// next are the first units of the image.
func (h *hostile) next(most int) (units []room.Unit) {
	for n, name := range h.image.Root.Pages {
		for at := range h.cut(name) {
			if len(units) < most {
				units = append(units, room.Unit{Page: uint32(n), At: uint32(at)})
			}
		}
	}
	return units
}

// cut returns the numbers of the chunks of each unit of a page.
func (h *hostile) cut(name object.Name) (units [][]uint32) {
	var sizes []int
	for _, c := range h.pages[name].Chunks {
		sizes = append(sizes, c.Len)
	}
	at := uint32(0)
	for _, n := range room.Cut(sizes, wire.MaxObjects, h.joined.Unit) {
		var unit []uint32
		for range n {
			unit = append(unit, at)
			at++
		}
		units = append(units, unit)
	}
	return units
}

// Have implements peer.Source.
func (h *hostile) Have(_, page object.Name) []byte {
	if h.pages[page] == nil {
		return nil
	}
	have := make([]byte, (len(h.cut(page))+7)/8)
	for i := range have {
		have[i] = 0xff
	}
	return have
}

// Chunk implements peer.Source.
func (h *hostile) Chunk(ctx context.Context, _, page object.Name, at uint32, _ []byte) (o object.Object, err error) {
	p := h.pages[page]
	if p == nil || int(at) >= len(p.Chunks) {
		return o, chunk.ErrMissing
	}
	ref := p.Chunks[at]
	switch h.act {
	case garbage:
		return object.Encode(object.Key{Kind: object.Chunk, Name: ref.Name}, noise(wreckSeed, ref.Len), nil), nil
	case stalls:
		<-ctx.Done()
		return o, ctx.Err()
	}
	return o, fmt.Errorf("chunk %d: %w", at, chunk.ErrMissing)
}

// strangers asks the agent of a good box for what a box of its room may have, and for what nobody may.
func (r *roomSite) strangers() {
	r.t.Helper()
	h, other := r.evil[0], r.evil[1]
	good, second := r.meets(h)
	page, at := h.sees(good)
	status, answer := h.knock(h.host, h.key, good, good.Ticket, wire.ChunksPath, wire.AppendChunks(nil, page, at))
	sent, err := wire.ReadHeader(bytes.NewReader(answer))
	if want := h.pages[page].Chunks[at[0]]; status != http.StatusOK || err != nil || sent.Name != want.Name {
		r.t.Errorf("a box of the room gets status %d and %d bytes: %v, %v", status, len(answer), sent.Key, err)
	}
	addr, err := netip.ParseAddr(h.addr)
	must(r.t, err)
	forged := h.joined.Secret.Ticket(h.image.Name, time.Now().Add(time.Minute), addr, wire.FingerprintOf(h.key.Leaf))
	for what, c := range map[string]struct {
		from   host
		key    tls.Certificate
		ticket string
	}{
		"no ticket":                       {h.host, h.key, ""},
		"a ticket that was changed":       {h.host, h.key, spoil(good.Ticket)},
		"another box with its own key":    {other.host, other.key, good.Ticket},
		"another box":                     {other.host, h.key, good.Ticket},
		"another key":                     {h.host, other.key, good.Ticket},
		"a ticket for another good box":   {h.host, h.key, second.Ticket},
		"a ticket by the secret of a box": {h.host, h.key, forged.String()},
	} {
		for path, q := range map[string][]byte{wire.HavePath: page[:], wire.ChunksPath: wire.AppendChunks(nil, page, at)} {
			if status, answer := h.knock(c.from, c.key, good, c.ticket, path, q); status != http.StatusUnauthorized {
				r.t.Errorf("%s: %s is answered with status %d and %d bytes", what, path, status, len(answer))
			}
		}
	}
	// Nor does a ticket help to what is not asked for by a page of the image that the box restores.
	for what, name := range map[string]object.Name{"a chunk's name": sent.Name, "a page of another image": r.foreign, "a root": h.image.Name} {
		status, answer := h.knock(h.host, h.key, good, good.Ticket, wire.HavePath, name[:])
		_, units, err := wire.ParseHave(answer, 1)
		if status != http.StatusOK || err != nil || len(units[0]) > 0 {
			r.t.Errorf("%s: status %d, the box has %v, %v", what, status, units, err)
		}
		status, answer = h.knock(h.host, h.key, good, good.Ticket, wire.ChunksPath, wire.AppendChunks(nil, name, []uint32{0}))
		if f, err := wire.ReadHeader(bytes.NewReader(answer)); status != http.StatusOK || err != nil || f.Lack == nil {
			r.t.Errorf("%s: status %d, and %d bytes that are no lack: %v", what, status, len(answer), err)
		}
	}
}

// spoil changes a text that is base64.
func spoil(s string) string {
	c := byte('A')
	if s[len(s)/2] == c {
		c = 'B'
	}
	return s[:len(s)/2] + string(c) + s[len(s)/2+1:]
}

// meets waits until a hostile box is told of two good ones.
func (r *roomSite) meets(h *hostile) (first, second wire.RoomPeer) {
	r.t.Helper()
	var good []wire.RoomPeer
	r.until("a hostile box is told of two good ones", serverLimit, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		good = nil
		for _, p := range h.peers {
			if !slices.ContainsFunc(r.evil, func(e *hostile) bool { return e.addr == p.Address.Addr().String() }) {
				good = append(good, p)
			}
		}
		return len(good) > 1
	})
	return good[0], good[1]
}

// sees waits until a box has a unit, and returns its page and the numbers of its chunks.
func (h *hostile) sees(of wire.RoomPeer) (page object.Name, at []uint32) {
	h.t.Helper()
	h.site.until("a good box has a unit", serverLimit, func() bool {
		status, answer := h.knock(h.host, h.key, of, of.Ticket, wire.HavePath, wire.AppendPages(nil, h.image.Root.Pages))
		_, have, err := wire.ParseHave(answer, len(h.image.Root.Pages))
		if status != http.StatusOK || err != nil {
			h.t.Fatalf("a box of the room does not hear what another one has: status %d, %v", status, err)
		}
		for i, units := range have {
			for n, chunks := range h.cut(h.image.Root.Pages[i]) {
				if n/8 < len(units) && units[n/8]>>(n%8)&1 == 1 {
					page, at = h.image.Root.Pages[i], chunks
					return true
				}
			}
		}
		return false
	})
	return page, at
}

// knock sends a request to another box from a host, with a key and a ticket. A box that sends to as many
// others as it may is asked again, and so is one whose connection breaks.
func (h *hostile) knock(from host, key tls.Certificate, to wire.RoomPeer, ticket, path string, body []byte) (status int, answer []byte) {
	h.t.Helper()
	t := &http.Transport{DialContext: from.dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{key}, InsecureSkipVerify: true, VerifyConnection: wire.Pinned("the box", to.Key)}}
	ctx, cancel := context.WithTimeout(context.Background(), serverLimit)
	defer cancel()
	for {
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.Address.String()+path, bytes.NewReader(body))
		must(h.t, err)
		if ticket != "" {
			q.Header.Set("Authorization", "Bearer "+ticket)
		}
		a, err := (&http.Client{Transport: t}).Do(q)
		if err == nil {
			answer, err = io.ReadAll(a.Body)
			a.Body.Close()
		}
		switch {
		case ctx.Err() != nil:
			h.t.Fatalf("%s does not answer: %v", to.Address, err)
		case err != nil || a.StatusCode == http.StatusServiceUnavailable:
			time.Sleep(100 * time.Millisecond)
		default:
			return a.StatusCode, answer
		}
	}
}
