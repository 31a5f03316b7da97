package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
)

// RoomPath is about the boxes that restore the same image as the one that is open under
// this number: PUT joins them, POST asks for peers and units, DELETE leaves.
func RoomPath(image uint64) string { return fmt.Sprintf("%simages/%d/room", Prefix, image) }

// Paths of requests from box to box.
const (
	PeerPrefix = "/peer/v1/"
	HavePath   = PeerPrefix + "have"
	ChunksPath = PeerPrefix + "chunks"
)

// These limit what is said about a room.
const (
	MaxJoin  = 1 << 10 // bytes of the request to join
	MaxRoom  = 32 << 10
	MaxPages = 64   // pages in a question what a peer has
	MaxUnits = 1024 // units of a page
	// TicketFor is for how long a peer lets a box in without the server.
	TicketFor = 10 * time.Minute
	// MaxRoomUnit is the most bytes of a unit before compression: what MaxObjects chunks have.
	MaxRoomUnit = MaxObjects * object.MaxChunk
)

// Join asks to join the boxes that restore an image.
type Join struct {
	Port int         `json:"port"` // where this box serves others
	Key  Fingerprint `json:"key"`  // of the key that it shows there, and as a client
}

// Joined is the answer to a Join. If On is false, boxes do not serve each other, and there is
// nothing else.
type Joined struct {
	On     bool        `json:"on"`
	Member room.Member `json:"member,omitempty"`
	Start  int         `json:"start,omitempty"` // region with which the box begins
	Secret RoomSecret  `json:"secret,omitzero"` // by which this box checks tickets
	Unit   int         `json:"unit,omitempty"`  // bytes of a unit before compression
	// Upload is how many bytes the box may send to others in a second; 0 means no limit.
	Upload int64 `json:"upload,omitempty"`
}

// RoomAnswer is the answer to a room.Ask.
type RoomAnswer struct {
	Fresh bool        `json:"fresh,omitempty"` // Peers is a new list
	Peers []RoomPeer  `json:"peers,omitempty"`
	Take  []room.Unit `json:"take,omitempty"`
	Again int         `json:"again"` // milliseconds
	Boxes int         `json:"boxes"` // in the room
}

// RoomState is how a box takes part in a room. Its bytes are those of all chunks of the job so far, as the store has them.
type RoomState struct {
	Boxes      int   `json:"boxes,omitempty"`      // in the room, as the server said last; 0 if the box is in none
	FromServer int64 `json:"fromServer,omitempty"` // bytes
	FromPeers  int64 `json:"fromPeers,omitempty"`
	ToPeers    int64 `json:"toPeers,omitempty"`
	// Deaf says that the box fetches all from the server, since it reaches no peer or gets too little from them.
	Deaf bool `json:"deaf,omitempty"`
	// Left is how many seconds all of the job still takes, by the box's own rates; 0 if that is not known.
	Left int64 `json:"left,omitempty"`
}

// These bound what a box can say of itself, so that sums over all boxes stay numbers.
const (
	maxRoomBoxes = 1 << 20
	maxRoomBytes = 1 << 50
	maxRoomLeft  = 1 << 32 // seconds
)

func (r *RoomState) check() error {
	if r.Boxes < 0 || r.Boxes > maxRoomBoxes {
		return fmt.Errorf("there are no %d boxes in a room", r.Boxes)
	}
	if r.Left < 0 || r.Left > maxRoomLeft {
		return fmt.Errorf("a job is not done in %d seconds", r.Left)
	}
	for _, n := range []int64{r.FromServer, r.FromPeers, r.ToPeers} {
		if n < 0 || n > maxRoomBytes {
			return fmt.Errorf("a box has not moved %d bytes of chunks", n)
		}
	}
	return nil
}

// RoomPeer is a peer with all that it takes to ask it.
type RoomPeer struct {
	room.Peer
	Address netip.AddrPort `json:"address"`
	Key     Fingerprint    `json:"key"`
	Ticket  string         `json:"ticket"`
}

// ParseJoin parses the JSON of a Join.
func ParseJoin(b []byte) (*Join, error) {
	var j Join
	if err := decode("the request", b, MaxJoin, 0, &j); err != nil {
		return nil, err
	}
	if j.Port < 1 || j.Port > 65535 || j.Key == (Fingerprint{}) {
		return nil, errors.New("the request names no port, or no key")
	}
	return &j, nil
}

// ParseJoined parses the JSON of a Joined, for an image of so many regions.
func ParseJoined(b []byte, regions int) (*Joined, error) {
	var j Joined
	if err := decode("the answer", b, MaxProblem, 0, &j); err != nil {
		return nil, err
	}
	switch {
	case !j.On && j != Joined{}:
		return nil, errors.New("the answer says that boxes do not serve each other, and how they do")
	case !j.On:
	case j.Member == room.Server || j.Start < 0 || j.Start >= regions || j.Secret == (RoomSecret{}) || j.Upload < 0:
		return nil, fmt.Errorf("the answer has no member, no secret, or a region %d of %d", j.Start, regions)
	case j.Unit < 1 || j.Unit > MaxRoomUnit:
		return nil, fmt.Errorf("the answer has a unit of %d bytes", j.Unit)
	}
	return &j, nil
}

// ParseAsk parses the JSON of a room.Ask.
func ParseAsk(b []byte) (*room.Ask, error) {
	var q room.Ask
	if err := decode("the question", b, MaxRoom, 2*room.MaxWant+2*room.MaxReports, &q); err != nil {
		return nil, err
	}
	if len(q.Want) > room.MaxWant || len(q.Taking) > room.MaxWant || len(q.From) > room.MaxReports || len(q.Bad) > room.MaxReports {
		return nil, errors.New("the question has more units or peers than it may")
	}
	if q.Free < 0 || q.Free > room.Uploads {
		return nil, fmt.Errorf("no box has room for %d uploads", q.Free)
	}
	for _, u := range append(append([]room.Unit{q.At}, q.Want...), q.Taking...) {
		if u.At >= MaxUnits {
			return nil, fmt.Errorf("there is no %v", u)
		}
	}
	for _, c := range q.From {
		if c.Member == room.Server || c.Units < 1 {
			return nil, fmt.Errorf("%d units came from %d", c.Units, c.Member)
		}
	}
	for _, r := range q.Bad {
		if r.Member == room.Server || !slices.Contains(room.Faults, r.Fault) {
			return nil, fmt.Errorf("there is no fault %.40q of %d", r.Fault, r.Member)
		}
	}
	return &q, nil
}

// ParseRoomAnswer parses the JSON of a RoomAnswer.
func ParseRoomAnswer(b []byte) (*RoomAnswer, error) {
	var a RoomAnswer
	if err := decode("the answer", b, MaxProblem, room.MaxPeers+room.AloneSlots, &a); err != nil {
		return nil, err
	}
	if len(a.Peers) > room.MaxPeers || len(a.Take) > room.AloneSlots || !a.Fresh && len(a.Peers) > 0 {
		return nil, errors.New("the answer has more peers or units than it may")
	}
	if a.Again < 0 || a.Again > int(QuietWait.Milliseconds()) || a.Boxes < 1 {
		return nil, fmt.Errorf("the answer says that there are %d boxes, and to ask again in %d ms", a.Boxes, a.Again)
	}
	for _, p := range a.Peers {
		_, err := ParseTicket(p.Ticket)
		if err != nil {
			return nil, err
		}
		if p.Member == room.Server || !p.Address.IsValid() || p.Address.Port() == 0 || p.Address.Addr().Zone() != "" || p.Key == (Fingerprint{}) {
			return nil, fmt.Errorf("the answer has a peer %d at %v", p.Member, p.Address)
		}
	}
	return &a, nil
}

// MarshalText returns what String returns, so that a fingerprint is a string in JSON.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText parses the text as ParseFingerprint does.
func (f *Fingerprint) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFingerprint(string(text))
	return err
}

// RoomSecret is what a box shares with the server alone. By it the server makes tickets that
// let others in.
type RoomSecret [32]byte

// MarshalText returns 64 hexadecimal digits.
func (s RoomSecret) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText parses what MarshalText writes.
func (s *RoomSecret) UnmarshalText(text []byte) error {
	f, err := ParseFingerprint(string(text)) // it has the same form
	if err != nil {
		return errors.New("the secret is not 64 hexadecimal digits")
	}
	*s = RoomSecret(f)
	return nil
}

// Ticket lets one box ask another one about one image, for some time. It is good from one
// address, and with one key. It tells nothing that both sides do not know.
type Ticket struct {
	Root    object.Name // of the image
	Expires time.Time   // by the server's clock, in whole seconds
	mac     [sha256.Size]byte
}

// Ticket makes a ticket for a box that has this address and this key.
func (s RoomSecret) Ticket(root object.Name, expires time.Time, from netip.Addr, key Fingerprint) Ticket {
	t := Ticket{Root: root, Expires: time.Unix(expires.Unix(), 0)}
	t.mac = s.mac(t, from, key)
	return t
}

func (s RoomSecret) mac(t Ticket, from netip.Addr, key Fingerprint) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, s[:])
	h.Write([]byte("testbox room ticket 1\x00"))
	h.Write(t.Root[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(t.Expires.Unix())))
	addr := from.Unmap().WithZone("").As16()
	h.Write(addr[:])
	h.Write(key[:])
	return [sha256.Size]byte(h.Sum(nil))
}

// Check returns an error that matches ErrToken unless the ticket is one of this secret, for
// a box with this address and key, and not too old. now is by the server's clock.
func (s RoomSecret) Check(t Ticket, now time.Time, from netip.Addr, key Fingerprint) error {
	want := s.mac(t, from, key)
	switch {
	case !hmac.Equal(want[:], t.mac[:]):
		return fmt.Errorf("%w: the ticket is not for this box, this address or this key", ErrToken)
	case now.After(t.Expires):
		return fmt.Errorf("%w: the ticket is too old", ErrToken)
	}
	return nil
}

// String is how a ticket is sent. It has the form of a token.
func (t Ticket) String() string {
	b := append([]byte(nil), t.Root[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, t.mac[:]...))
}

// ParseTicket parses what String returns.
func ParseTicket(s string) (t Ticket, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(t.Root)+8+len(t.mac) || base64.RawURLEncoding.EncodeToString(b) != s {
		return Ticket{}, fmt.Errorf("%.20q is no ticket", s)
	}
	unix := binary.LittleEndian.Uint64(b[32:])
	if unix > MaxNumber {
		return Ticket{}, errors.New("a ticket is good for too long")
	}
	t = Ticket{Root: object.Name(b[:32]), Expires: time.Unix(int64(unix), 0), mac: [sha256.Size]byte(b[40:])}
	return t, nil
}

// AppendPages appends the question which units of some pages a peer has.
func AppendPages(b []byte, pages []object.Name) []byte {
	for _, p := range pages {
		b = append(b, p[:]...)
	}
	return b
}

// ParsePages parses what AppendPages writes.
func ParsePages(b []byte) ([]object.Name, error) {
	const size = len(object.Name{})
	if len(b)%size != 0 || len(b) == 0 || len(b) > MaxPages*size {
		return nil, fmt.Errorf("%d bytes are not 1 to %d names of %d bytes", len(b), MaxPages, size)
	}
	pages := make([]object.Name, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		pages = append(pages, object.Name(b[:size]))
	}
	return pages, nil
}

// AppendFree begins the answer what a peer has: how many further uploads it has room for, in one byte.
func AppendFree(b []byte, free int) []byte { return append(b, byte(min(max(free, 0), 255))) }

// AppendHave appends the answer for the next page: a bitmap of its units, from the lowest bit of
// the first byte. It is empty if nothing is known of the page.
func AppendHave(b, units []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(units)))
	return append(b, units...)
}

// MaxHave is the length in bytes of the longest answer what a peer has.
const MaxHave = 1 + MaxPages*(2+MaxUnits/8)

// ParseHave parses the answer for so many pages.
func ParseHave(b []byte, pages int) (free int, have [][]byte, err error) {
	if len(b) < 1 {
		return 0, nil, errors.New("the answer is empty")
	}
	free, b = int(b[0]), b[1:]
	for range pages {
		if len(b) < 2 {
			return 0, nil, errors.New("the answer is cut off")
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; n > MaxUnits/8 || n > len(b) {
			return 0, nil, fmt.Errorf("the answer has %d bytes of units, and %d follow", n, len(b))
		}
		have, b = append(have, b[:n:n]), b[n:]
	}
	if len(b) > 0 {
		return 0, nil, errors.New("the answer has something after its end")
	}
	return free, have, nil
}

// AppendChunks appends the question for chunks of a page. at has their numbers, in order.
func AppendChunks(b []byte, page object.Name, at []uint32) []byte {
	b = append(b, page[:]...)
	for _, n := range at {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// MaxChunksBytes is the length in bytes of the longest question for chunks.
const MaxChunksBytes = len(object.Name{}) + 4*MaxPlaces

// ParseChunks parses what AppendChunks writes.
func ParseChunks(b []byte) (page object.Name, at []uint32, err error) {
	if len(b) < len(page)+4 || len(b) > MaxChunksBytes || (len(b)-len(page))%4 != 0 {
		return page, nil, fmt.Errorf("%d bytes are no question for 1 to %d chunks", len(b), MaxPlaces)
	}
	page = object.Name(b[:len(page)])
	for b = b[len(page):]; len(b) > 0; b = b[4:] {
		n := binary.LittleEndian.Uint32(b)
		if len(at) > 0 && n <= at[len(at)-1] {
			return page, nil, errors.New("the chunks are not in order")
		}
		at = append(at, n)
	}
	return page, at, nil
}
