// Package peering lets a box take part in a room: it fetches the chunks of an image from the
// server and from other boxes that restore the same image, and sends them what it has. An
// Image is given to package copier in place of the stored image. Package room decides what
// is fetched from where, and this package does it.
//
// Nothing that goes wrong in a room makes a restore fail. What does not come from the room
// in time is read from the server, as without a room. Each chunk is compared with its name
// before it is used or passed on.
package peering

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// Config says what a Node works with.
type Config struct {
	// Address is this box's, by which the server knows it. Other boxes let it in from no other
	// one. If it is not one of this machine, any is used.
	Address netip.Addr
	// Memory is how many bytes of memory chunks may take. 0 means that Memory() decides.
	Memory int64
	Now    func() time.Time // by the server's clock
	Log    func(format string, args ...any)
}

// Node is this box, as other boxes see it. It has the images that the box restores.
type Node struct {
	cfg   Config
	key   tls.Certificate
	print wire.Fingerprint
	peers *peer.Client

	fromServer atomic.Int64 // bytes of chunks as stored, of all images
	fromPeers  atomic.Int64

	mu     sync.Mutex // guards the fields below
	server *peer.Server
	port   int
	open   map[object.Name]*session // that serve others
	latest *session                 // that fetches, or fetched last
	closed bool
	// answered says that the server knows of rooms, and wants boxes in them or not.
	answered bool
}

// NewNode makes a Node. It does nothing before an Image of it is written to a disk.
func NewNode(cfg Config) (*Node, error) {
	key, print, err := peer.NewKey()
	if err != nil {
		return nil, err
	}
	if cfg.Memory == 0 {
		cfg.Memory = Memory()
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	return &Node{cfg: cfg, key: key, print: print, peers: peer.NewClient(key), open: map[object.Name]*session{}}, nil
}

// Memory is how many bytes of memory chunks may take.
func (n *Node) Memory() int64 { return n.cfg.Memory }

const (
	// mostMemory is what chunks may take on a machine with much memory. More than that serves
	// only boxes that are far behind, and those are served from the disk.
	mostMemory = 512 << 20
	// leastMemory is what it takes to gain anything. With less a box reads from the server.
	leastMemory = 64 << 20
)

// Memory returns how many bytes of memory chunks may take on this machine: a quarter of what
// is free. It returns 0 if that is too little.
func Memory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return memoryOf(string(text))
}

func memoryOf(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if quarter := kib << 10 / 4; err == nil && kib < 1<<40 && quarter >= leastMemory {
			return min(quarter, mostMemory)
		}
	}
	return 0
}

// Room is the room of an image at the server. Package remote implements it.
type Room interface {
	// Join joins the room, also after the server has lost it.
	Join(ctx context.Context, j wire.Join) (*wire.Joined, error)
	// Ask asks for peers and units. If the error matches wire.ErrNotOpen, the box must join again.
	Ask(ctx context.Context, q room.Ask) (*wire.RoomAnswer, error)
	// Leave says that this box serves nobody any more.
	Leave(ctx context.Context) error
}

// Image returns an image that is open at the server, for package copier. It takes part in
// its room while it is written to a disk, and serves others until Close.
func (n *Node) Image(im *chunk.Image, ask Room) *Image {
	plain := &pager{Getter: im.Getter(), image: im}
	return &Image{StoredImage: copier.StoredImage{Image: im.With(plain)}, node: n, ask: ask, plain: plain}
}

// State says from where the bytes come that the box restores. It is nil as long as the server
// has not said whether there are rooms, since an older server does not know of them.
func (n *Node) State() *wire.RoomState {
	n.mu.Lock()
	s, answered := n.latest, n.answered
	n.mu.Unlock()
	switch {
	case s != nil:
		return s.state()
	case answered:
		return &wire.RoomState{}
	}
	return nil
}

// Close ends all that is served. Images are closed first.
func (n *Node) Close() {
	n.mu.Lock()
	server := n.server
	n.closed, n.server = true, nil
	n.mu.Unlock()
	if server != nil {
		server.Close()
	}
	n.peers.Close()
}

// listen opens the port for other boxes.
func (n *Node) listen() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return 0, chunk.ErrClosed
	case n.port != 0:
		return n.port, nil
	}
	l, err := n.listener()
	if err != nil {
		return 0, fmt.Errorf("open a port for other boxes: %w", err)
	}
	n.port = l.Addr().(*net.TCPAddr).Port
	n.server = peer.NewServer(peer.ServerConfig{Key: n.key, Source: n, Secrets: n.secrets, Now: n.cfg.Now, Log: n.cfg.Log})
	go n.server.Serve(l)
	return n.port, nil
}

func (n *Node) listener() (net.Listener, error) {
	if n.cfg.Address.IsValid() {
		if l, err := peer.Listen(netip.AddrPortFrom(n.cfg.Address, 0).String()); err == nil {
			n.peers.From(n.cfg.Address)
			return l, nil
		}
	}
	return peer.Listen(":0")
}

// begin lets a session serve others, in place of an earlier one of the same image.
func (n *Node) begin(s *session) {
	n.mu.Lock()
	before := n.open[s.root]
	n.open[s.root], n.latest = s, s
	n.mu.Unlock()
	n.limit(s.joined().Upload)
	if before != nil && before != s {
		before.close()
	}
}

// limit sets how many bytes may be sent to others in a second.
func (n *Node) limit(most int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server != nil {
		n.server.Limit(most)
	}
}

// end is the end of begin.
func (n *Node) end(s *session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[s.root] == s {
		delete(n.open, s.root)
	}
}

func (n *Node) find(root object.Name) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[root]
}

func (n *Node) free() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return 0
	}
	return n.server.Free()
}

// sent is how many bytes were sent to other boxes.
func (n *Node) sent() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return 0
	}
	return n.server.Sent()
}

// secrets is peer.ServerConfig's Secrets.
func (n *Node) secrets(root object.Name) []wire.RoomSecret {
	s := n.find(root)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]wire.RoomSecret{s.joinedAs.Secret}, s.before...)
}

// Have implements peer.Source.
func (n *Node) Have(root, page object.Name) []byte {
	s := n.find(root)
	if s == nil {
		return nil
	}
	return s.have(page)
}

// Chunk implements peer.Source.
func (n *Node) Chunk(ctx context.Context, root, page object.Name, at uint32, buf []byte) (object.Object, error) {
	s := n.find(root)
	if s == nil {
		return object.Object{}, fmt.Errorf("image %v: %w", root, chunk.ErrMissing)
	}
	return s.chunk(ctx, page, int(at), buf)
}
