package dhcp

import (
	"bytes"
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"testbox-imaging/internal/durable"
)

const (
	maxLeases  = 2 * maxRange
	maxOffers  = 1024
	maxBlocked = 1024
	maxFile    = 8 << 20          // bytes of the file of leases
	offerTime  = 30 * time.Second // an offered address is not offered to others
	forgetTime = 30 * 24 * time.Hour
	retryWrite = 5 * time.Second
	maxKept    = 256 // answers that wait for the disk
)

// mac is the key of a machine.
type mac [6]byte

func macOf(m *dhcpv4.DHCPv4) mac { return mac(m.ClientHWAddr) }

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

func (m mac) hash() uint32 { return crc32.ChecksumIEEE(m[:]) }

// lease is an address that a machine has or was offered.
type lease struct {
	addr  netip.Addr
	mac   mac
	uuid  [16]byte
	until time.Time
	offer *list.Element // in book.offers; nil once the machine has the address
}

// held reports whether the address is somebody's.
func (k *lease) held(now time.Time) bool { return now.Before(k.until) }

// Lease is an address that a machine has.
type Lease struct {
	Address netip.Addr
	MAC     net.HardwareAddr
	UUID    [16]byte // zero if it is not known
	Until   time.Time
}

// book knows who has which address. Its methods are called with Server.mu held.
type book struct {
	byAddr map[netip.Addr]*lease
	byMAC  map[mac][]*lease
	offers list.List // of *lease, the oldest first
	block  map[netip.Addr]time.Time
	broken error // no lease can be kept, so only fixed addresses are given
}

func newBook() *book {
	return &book{byAddr: map[netip.Addr]*lease{}, byMAC: map[mac][]*lease{}, block: map[netip.Addr]time.Time{}}
}

func (b *book) put(k *lease) {
	b.byAddr[k.addr] = k
	b.byMAC[k.mac] = append(b.byMAC[k.mac], k)
}

func (b *book) remove(k *lease) {
	if k.offer != nil {
		b.offers.Remove(k.offer)
		k.offer = nil
	}
	delete(b.byAddr, k.addr)
	rest := slices.DeleteFunc(b.byMAC[k.mac], func(o *lease) bool { return o == k })
	if b.byMAC[k.mac] = rest; len(rest) == 0 {
		delete(b.byMAC, k.mac)
	}
}

// recall adds the UUID that a machine told when its firmware asked. Its system
// tells none.
func (b *book) recall(who *Machine) {
	if who.UUID != [16]byte{} {
		return
	}
	for _, k := range b.byMAC[mac(who.MAC)] {
		if k.uuid != [16]byte{} {
			who.UUID = k.uuid
		}
	}
}

// taken says why an address cannot be given to a machine.
func (b *book) taken(a netip.Addr, me mac, now time.Time) error {
	if b.blocked(a, now) {
		return fmt.Errorf("another machine uses its address %v; find it", a)
	}
	if k := b.byAddr[a]; k != nil && k.offer == nil && k.mac != me && k.held(now) {
		return fmt.Errorf("its address %v is leased to %v until %s", a, k.mac, k.until.UTC().Format(time.RFC3339))
	}
	return nil
}

// free reports whether an address is nobody else's.
func (b *book) free(a netip.Addr, me mac, now time.Time) bool {
	k := b.byAddr[a]
	return !b.blocked(a, now) && (k == nil || k.mac == me || !k.held(now))
}

func (b *book) knows(a netip.Addr) bool { return b.byAddr[a] != nil }

func (b *book) blocked(a netip.Addr, now time.Time) bool {
	until, ok := b.block[a]
	if ok && !now.Before(until) {
		delete(b.block, a)
		return false
	}
	return ok
}

// offer keeps an address for a machine for a while. It reports whether the
// address is new for the machine.
func (b *book) offer(a netip.Addr, me mac, now time.Time) bool {
	k := b.byAddr[a]
	if k != nil && k.mac == me && k.held(now) {
		return false
	}
	var uuid [16]byte
	if k != nil {
		if k.mac == me {
			uuid = k.uuid
		}
		b.remove(k)
	}
	if b.offers.Len() >= maxOffers {
		b.remove(b.offers.Front().Value.(*lease))
	}
	k = &lease{addr: a, mac: me, uuid: uuid, until: now.Add(offerTime)}
	k.offer = b.offers.PushBack(k)
	b.put(k)
	return true
}

// oldestOffer finds an address that was offered to a machine which did not take
// it. An offer binds nobody.
func (b *book) oldestOffer(n *Subnet) (netip.Addr, bool) {
	for e := b.offers.Front(); e != nil; e = e.Next() {
		if k := e.Value.(*lease); n.inRange(k.addr) {
			return k.addr, true
		}
	}
	return netip.Addr{}, false
}

// withdraw forgets what was offered to a machine that chose another server.
func (b *book) withdraw(me mac) {
	for _, k := range slices.Clone(b.byMAC[me]) {
		if k.offer != nil {
			b.remove(k)
		}
	}
}

// bind gives an address to a machine. What it had before in the same network is
// free, since it says that it uses this one.
func (b *book) bind(n netip.Prefix, a netip.Addr, me mac, uuid [16]byte, until time.Time) error {
	if k := b.byAddr[a]; k != nil && k.mac != me {
		b.remove(k)
	}
	for _, k := range slices.Clone(b.byMAC[me]) {
		if uuid == [16]byte{} {
			uuid = k.uuid
		}
		if n.Contains(k.addr) {
			b.remove(k)
		}
	}
	if len(b.byAddr)-b.offers.Len() >= maxLeases {
		b.forget(time.Now())
	}
	if len(b.byAddr)-b.offers.Len() >= maxLeases {
		return fmt.Errorf("there are %d leases, which is the most that is kept", maxLeases)
	}
	b.put(&lease{addr: a, mac: me, uuid: uuid, until: until})
	return nil
}

// forget removes the leases that ended, all of them.
func (b *book) forget(now time.Time) {
	for _, k := range b.byAddr {
		if !k.held(now) {
			b.remove(k)
		}
	}
}

// decline takes an address from its machine, which says that another one uses
// it.
func (b *book) decline(me mac, a netip.Addr, now time.Time) bool {
	k := b.byAddr[a]
	if k == nil || k.mac != me {
		return false
	}
	b.remove(k)
	b.refuse(a, now.Add(declineTime))
	return true
}

// refuse keeps an address from being given.
func (b *book) refuse(a netip.Addr, until time.Time) {
	if len(b.block) >= maxBlocked {
		var first netip.Addr
		for a, t := range b.block {
			if !first.IsValid() || t.Before(b.block[first]) {
				first = a
			}
		}
		delete(b.block, first)
	}
	b.block[a] = until
}

func (b *book) release(me mac, a netip.Addr, now time.Time) bool {
	k := b.byAddr[a]
	if k == nil || k.mac != me || !k.held(now) {
		return false
	}
	k.until = now
	return true
}

// The file of leases is text: a line that says what it is, a line for each lease
// with address, MAC address, end and UUID, and a line with the number of leases
// and the CRC-32 of all that is before it.
const (
	fileHead = "testbox leases 1\n"
	fileEnd  = "end "
)

// text is the file's content. Offers are not in it, since they bind nobody, and
// neither are leases that ended long ago.
func (b *book) text(now time.Time) []byte {
	all := make([]*lease, 0, len(b.byAddr))
	for _, k := range b.byAddr {
		if k.offer == nil && now.Sub(k.until) < forgetTime {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b *lease) int { return a.addr.Compare(b.addr) })
	var t bytes.Buffer
	t.WriteString(fileHead)
	for _, k := range all {
		until := k.until.Add(time.Second - 1).UTC() // rounded up, so that nobody's lease becomes shorter
		fmt.Fprintf(&t, "%v %v %s %x\n", k.addr, k.mac, until.Format(time.RFC3339), k.uuid)
	}
	fmt.Fprintf(&t, "%s%d %08x\n", fileEnd, len(all), crc32.ChecksumIEEE(t.Bytes()))
	return t.Bytes()
}

var errDamaged = errors.New("it is damaged")

func parseLeases(p []byte) (*book, error) {
	b := newBook()
	at := bytes.LastIndex(p, []byte("\n"+fileEnd)) + 1
	rest, ok := strings.CutPrefix(string(p[:at]), fileHead)
	if at == 0 || !ok {
		return nil, errDamaged
	}
	lines := strings.Split(rest, "\n")
	lines = lines[:len(lines)-1]
	if want := fmt.Sprintf("%s%d %08x\n", fileEnd, len(lines), crc32.ChecksumIEEE(p[:at])); string(p[at:]) != want {
		return nil, errDamaged
	}
	if len(lines) > maxLeases {
		return nil, fmt.Errorf("it has %d leases", len(lines))
	}
	for _, line := range lines {
		k, err := parseLease(line)
		if err != nil || b.byAddr[k.addr] != nil {
			return nil, fmt.Errorf("it has the line %.100q", line)
		}
		b.put(k)
	}
	return b, nil
}

func parseLease(line string) (*lease, error) {
	f := strings.Split(line, " ")
	if len(f) != 4 {
		return nil, errDamaged
	}
	a, err1 := netip.ParseAddr(f[0])
	hw, err2 := net.ParseMAC(f[1])
	until, err3 := time.Parse(time.RFC3339, f[2])
	uuid, err4 := hex.DecodeString(f[3])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	if !a.Is4() || len(hw) != 6 || len(uuid) != 16 {
		return nil, errDamaged
	}
	return &lease{addr: a, mac: mac(hw), until: until, uuid: [16]byte(uuid)}, nil
}

// open reads the file of leases. It always returns a book, and an error that an
// admin has to know. A damaged file is set aside.
func (l *Lab) open() (*book, error) {
	p, err := durable.ReadFile(l.FS, l.Leases, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newBook(), nil
	}
	if err == nil {
		var b *book
		if b, err = parseLeases(p); err == nil {
			return b, nil
		}
	}
	err = fmt.Errorf("the file of leases %s cannot be used: %w", l.Leases, err)
	aside := l.Leases + ".damaged"
	b := newBook()
	if e := l.FS.Rename(l.Leases, aside); e != nil {
		b.broken = fmt.Errorf("%w. It cannot be set aside either (%w), so only fixed addresses are given; "+
			"move the file away and start the server anew", err, e)
		return b, b.broken
	}
	if e := l.FS.SyncDir(filepath.Dir(aside)); e != nil {
		err = fmt.Errorf("%w (sync: %w)", err, e)
	}
	return b, fmt.Errorf("%w. It is now %s. Fixed addresses are given as before. Before another one is given, the server looks "+
		"whether a machine uses it", err, aside)
}

// Leases returns the addresses that machines have, sorted.
func (s *Server) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Lease
	if s.book == nil {
		return nil
	}
	now := time.Now()
	for _, k := range s.book.byAddr {
		if k.offer == nil && k.held(now) {
			all = append(all, Lease{k.addr, net.HardwareAddr(slices.Clone(k.mac[:])), k.uuid, k.until})
		}
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return all
}

// kept is an answer that waits until its lease is durable.
type kept struct {
	answer answer
	msg    *dhcpv4.DHCPv4
	event  Event
	v      verdict
}

// keeper writes the file of leases. While it writes, more changes come together
// for the next time, so a room of boxes that starts at once takes few writes.
type keeper struct {
	s    *Server
	wake chan struct{}
	// Server.mu guards these.
	dirty   bool
	waiting []kept
	failing bool // the last write failed
}

func newKeeper(s *Server) *keeper { return &keeper{s: s, wake: make(chan struct{}, 1)} }

// changed is called with Server.mu held.
func (k *keeper) changed() {
	k.dirty = true
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) later(a kept) {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.changed()
	if len(k.waiting) < maxKept { // the others ask again
		k.waiting = append(k.waiting, a)
	}
}

func (k *keeper) run(ctx context.Context) {
	again := time.NewTicker(retryWrite)
	defer again.Stop()
	for {
		select {
		case <-k.wake:
		case <-again.C:
		case <-ctx.Done():
			k.write()
			return
		}
		k.write()
	}
}

// write makes all changes up to now durable, and sends the answers that waited
// for that.
func (k *keeper) write() {
	s := k.s
	s.mu.Lock()
	if !k.dirty {
		s.mu.Unlock()
		return
	}
	text, waiting, err := s.book.text(time.Now()), k.waiting, s.book.broken
	k.dirty, k.waiting = false, nil
	s.mu.Unlock()
	if err == nil {
		if err = durable.WriteFile(s.Lab.FS, s.Lab.Leases, text, 0o644); err != nil {
			err = fmt.Errorf("the leases cannot be kept, so machines without a fixed address get none: %w", err)
		}
	}
	for _, w := range waiting {
		// A fixed address is in the admin's list. No other machine gets it, whatever
		// is in the file.
		if err != nil && !w.v.fixed {
			w.event.Err, w.event.Boot, w.event.Given = err, Boot{}, false
			s.seen(w.event)
			continue
		}
		s.finish(w.answer, w.msg, w.event, w.v)
	}
	s.mu.Lock()
	tell := err != nil && !k.failing && s.book.broken == nil
	k.dirty = k.dirty || err != nil && s.book.broken == nil
	k.failing = err != nil
	s.mu.Unlock()
	if tell {
		s.trouble(err)
	}
}
