// Package room decides how boxes that restore the same image at the same time give its
// chunks to each other. A Swarm is the server's side, a Picker the side of a box. Both are
// pure logic: they do no I/O, and are told the time. What comes in may be a lie, since a
// box runs hostile code by purpose. A lie must cost others little time, and never a byte:
// each chunk is compared with its name before anybody uses it or passes it on.
//
// All boxes take the units of an image in the same order, in a window that moves on. The
// server gives a unit out once, as long as somebody has it on the way. So it sends about one
// image, whatever the number of boxes. The simulator in the tests runs this code, and has
// the figures that decided about the constants.
package room

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a box does at once. With 4 downloads boxes wait for each other: 128 of them take 1.3
// times as long as one, instead of 1.1 times.
const (
	Downloads = 8 // units that a box fetches at once
	Uploads   = 8 // units that a box sends at once; to others it says that it is busy
	// PerPeer is how many units a box fetches from one peer at once. Two keep its port busy
	// between two requests. With more, one peer that stalls would hold up much.
	PerPeer = 2
	// MaxPeers is how many peers a box is told of at a time.
	MaxPeers = 8
	// Strangers is how many of these are chosen without a look at where they are, so that
	// what one group of boxes has comes to the others.
	Strangers = 2
)

// What the server gives at once.
const (
	// AloneSlots is how many units a box fetches from the server at once if it is alone with
	// its image, or reaches no peer.
	AloneSlots = Downloads
	// MostSlots is how many one of several boxes fetches. The other Downloads are for peers.
	MostSlots = Downloads / 2
	// DeafSlots is how many a box fetches that reaches no peer, while others do.
	DeafSlots = 2
	// SwarmSlots is how many units all boxes of one image together fetch from the server at
	// once. With more of them each takes longer to come, and it is longer before peers have
	// it: with 16 of them a room with ports of 20 Mbit/s starved. With fewer the server's port would
	// be idle between two requests.
	SwarmSlots = 8
	// FairMore is how many more units one box gets first of all than the boxes do on average.
	// A box that runs ahead would get all of them otherwise. Then everybody fetches from it,
	// and its port holds up the room: 32 boxes take twice as long.
	FairMore = 4
	// HeadFirst is how many units at the head of its window a box fetches in their order. The
	// others it takes by chance. So boxes have different units for each other, and do not
	// all want the same one from the one that has it. That takes a twentieth off.
	HeadFirst = 4
	// MaxWant is how many units a box names that it lacks. It is more than the server gives.
	MaxWant = 64
	// MaxReports is how many peers a box names in one question, with what came from them.
	MaxReports = 64
)

// How long is waited for what.
const (
	// AskEvery is how often a box asks the server. It is also the box's sign of life.
	AskEvery = time.Second
	// AskSoon is how soon it asks again if it could fetch more.
	AskSoon = 250 * time.Millisecond
	// AskNext is how soon it asks again when a unit came from the server, so that the
	// server's port is not idle.
	AskNext = 10 * time.Millisecond
	// AsksEach bounds the questions of all boxes of one image: they come this far apart.
	AsksEach = 8 * time.Millisecond
	// Silent is when a box counts as gone that asked no more. It is some times AskEvery, so
	// that a box that is busy with its disk stays.
	Silent = 5 * time.Second
	// PeersEvery is how long a box keeps its list of peers. A new one mixes the swarm, so
	// that no group of boxes is cut off from the rest.
	PeersEvery = 5 * time.Second
	// HaveEvery is how often a box asks a peer what it has, HaveSoon how often if it could fetch
	// more than it knows of, HaveNow if it has less than half of that on the way. With seconds and
	// halves of them a unit took so long from box to box that the windows of all were full: 16
	// real boxes took 1.49 times as long as one instead of 1.37 times. The simulator does not
	// show that. To ask twice as often as now saves no time.
	HaveEvery = 400 * time.Millisecond
	HaveSoon  = 250 * time.Millisecond
	HaveNow   = 150 * time.Millisecond
	// HandedFor is how long the server waits for a unit to spread that it gave out. After
	// that it counts as never given out. HandedSoon holds for boxes whose writing waits.
	HandedFor  = 10 * time.Second
	HandedSoon = 3 * time.Second
	// HeadWait is after which time a box says that its writing waits for a unit.
	HeadWait = time.Second
	// DeafAfter is how long a box waits for any peer to answer, before it fetches all from
	// the server. A firewall between boxes costs no more than that. DeafFor is how long it
	// stays so before it tries peers again.
	DeafAfter = 10 * time.Second
	DeafFor   = 10 * time.Second
	// UnitWait and MBWait bound how long a fetch from a peer may take: so long, and so long
	// for each MB. That is a 30th of a port of 1 Gbit/s, or an 8th of that with Downloads.
	UnitWait = 4 * time.Second
	MBWait   = 4 * time.Second
	// DialWait is how long a box waits for a connection to a peer. It may just have restarted.
	DialWait = time.Second
	// QuietWait is after which time a fetch is given up from which nothing comes at all.
	QuietWait = 2 * time.Second
	// BanFor is how long a peer is left alone that fails too often: twice in a row, or in
	// more than one of five fetches. Each failure adds FailureWeight, each success takes one
	// off, and with MaxFailures it is too often.
	BanFor        = 60 * time.Second
	FailureWeight = 4
	MaxFailures   = 8
	// BusyWait is how long a peer is left alone that has no room for an upload.
	BusyWait = 250 * time.Millisecond
	// TwiceAfter is after which time a unit is asked of a second source, if the box has
	// nothing else to ask for. It is longer where units take longer: TwiceTimes as long as
	// they take on average.
	TwiceAfter = time.Second
	TwiceTimes = 4
	// LastUnits of an image are asked of a second source at once, since nothing comes after
	// them that could be fetched meanwhile.
	LastUnits = 8
)

// What protects a swarm from one that takes and does not give.
const (
	// Trust is how many units a box gets first of all boxes before others say that they had
	// something from it: so many, divided by the number of boxes, and at least MinTrust.
	// A box that nobody reaches, behind a firewall or by its own will, costs no more.
	Trust    = 64
	MinTrust = 2
	// MaxAccusers boxes must say that a peer gives wrong bytes before the server drops it.
	// One alone could be wrong, or lie.
	MaxAccusers = 2
	// MaxAccused is how many peers one box can accuse. A box that accuses more is not
	// believed any more, or it could talk everybody out of the swarm.
	MaxAccused = 3
)

// Window is how much of the memory for chunks a box may fill with what is not written yet.
// The rest keeps what was written a moment ago, for boxes that are a little behind.
func Window(memory int64) int64 { return memory / 4 * 3 }

// Member is a box in the swarm of an image. The server gives the number. Server stands for
// the server itself, where a source is meant.
type Member uint32

// Server is the source that is no member.
const Server Member = 0

// Unit is some consecutive chunks of a page of an image: the unit in which boxes fetch and
// tell what they have.
type Unit struct {
	Page uint32 // region of the disk
	At   uint32 // which of the page's units
}

func (u Unit) String() string { return fmt.Sprintf("unit %d of region %d", u.At, u.Page) }

// MarshalText returns the two numbers with a point between them, as in messages.
func (u Unit) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d.%d", u.Page, u.At), nil }

// UnmarshalText parses what MarshalText writes, and nothing else.
func (u *Unit) UnmarshalText(text []byte) error {
	page, at, _ := strings.Cut(string(text), ".")
	p, errPage := strconv.ParseUint(page, 10, 32)
	a, errAt := strconv.ParseUint(at, 10, 32)
	n := Unit{uint32(p), uint32(a)}
	if b, _ := n.MarshalText(); errPage != nil || errAt != nil || string(b) != string(text) {
		return fmt.Errorf("%.40q is no unit", text)
	}
	*u = n
	return nil
}

// Peer is a box that another one is told of.
type Peer struct {
	Member Member `json:"member"`
	Near   bool   `json:"near,omitempty"` // it is at the same switch, as far as the server knows
}

// Fault is what is wrong with a peer.
type Fault string

// The faults. Garbage is bytes with another hash than they should have. All others can
// happen to an honest peer.
const (
	Garbage Fault = "garbage" // wrong bytes
	Stalls  Fault = "stalls"  // nothing comes, or next to nothing
	Slow    Fault = "slow"    // it takes some times as long as other peers
	Lacks   Fault = "lacks"   // it said that it has something, and does not send it
	Away    Fault = "away"    // no connection
	Busy    Fault = "busy"    // no room for another upload; this is no failure
)

// Faults has all that a box can say of a peer.
var Faults = []Fault{Garbage, Stalls, Slow, Lacks, Away}

// Report is what a box says of a peer.
type Report struct {
	Member Member `json:"member"`
	Fault  Fault  `json:"fault"`
}

// Count is how many units came from a peer.
type Count struct {
	Member Member `json:"member"`
	Units  int    `json:"units"`
}

// Ask is what a box asks the server, again and again.
type Ask struct {
	// At is the first unit in the box's order that is not on its disk yet.
	At Unit `json:"at"`
	// Taking are the units that the server gave it, and that have not come yet.
	Taking []Unit `json:"taking,omitempty"`
	// Want are the next units that it lacks, and that it sees at no peer, in its order.
	Want []Unit `json:"want,omitempty"`
	// Urgent says that the writing waits for the first of Want.
	Urgent bool `json:"urgent,omitempty"`
	// Deaf says that it reaches no peer, or that peers are too slow: the server gives it
	// everything.
	Deaf bool `json:"deaf,omitempty"`
	// Serves says that it sends to others. Free is how many uploads it has room for.
	Serves bool `json:"serves,omitempty"`
	Free   int  `json:"free,omitempty"`
	// From is what came from peers since the last answer, Bad which of them failed.
	From []Count  `json:"from,omitempty"`
	Bad  []Report `json:"bad,omitempty"`
}

// Answer is what the server says to an Ask.
type Answer struct {
	// Peers is a new list of peers. If Fresh is false, the list before still holds.
	Peers []Peer
	Fresh bool
	// Take are units of Want that the box fetches from the server. All others come from
	// peers some time.
	Take []Unit
	// Again is when the box may ask the next time, if it could fetch more.
	Again time.Duration
}

// Cut cuts the chunks of a page into units: so many chunks at most, and so many bytes
// before compression, unless a single chunk has more. It returns how many chunks each unit
// has. All boxes know the lengths from the page, so all of them cut in the same way.
func Cut(chunks []int, most, bytes int) (units []int) {
	n, size := 0, 0
	for _, c := range chunks {
		if n > 0 && (n == most || size+c > bytes) {
			units = append(units, n)
			n, size = 0, 0
		}
		n++
		size += c
	}
	if n > 0 {
		units = append(units, n)
	}
	return units
}
