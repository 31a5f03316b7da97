package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is what became of BootOrder at a start of the maintenance system.
type Result string

// The results.
const (
	OrderKept     Result = "kept"     // the network was first already
	OrderRepaired Result = "repaired" // it was not, and now is
	// OrderIgnored means that the order which an earlier start wrote did not stay. It was
	// written once more. The firmware ignores it, or a system on a disk set it back.
	OrderIgnored Result = "ignored"
	OrderFailed  Result = "failed" // it could not be read or written
	OrderNone    Result = "none"   // the firmware has no entry for the network, or none that is known to be one
)

// NetworkFirst says what became of BootOrder.
type NetworkFirst struct {
	Result Result   `json:"result"`
	Text   string   `json:"text,omitempty"`   // why, for people
	First  *Number  `json:"first,omitempty"`  // the entry that belongs at the beginning
	Before []Number `json:"before,omitempty"` // the order as it was found, if another one was written
	Wrote  []Number `json:"wrote,omitempty"`  // the order that was written
}

// Bad reports whether somebody has to look at it.
func (n *NetworkFirst) Bad() bool { return n.Result != OrderKept && n.Result != OrderRepaired }

// Note is what the start of an agent notes of the firmware of its box. The next start
// learns from it whether the order that was written has stayed.
type Note struct {
	Format       int           `json:"format"` // NoteFormat
	Time         time.Time     `json:"time"`
	Arming       string        `json:"arming,omitempty"` // of the start
	State        State         `json:"state"`
	NetworkFirst *NetworkFirst `json:"networkFirst,omitempty"` // nil on a BIOS machine
	// PutBack is set if the note was made after a restore. It says what became of the
	// image's boot entries.
	PutBack *PutBack `json:"putBack,omitempty"`
}

// networkEntry finds the entry that belongs at the beginning of the order. It is the
// one that has started this boot if that is a network entry, and else the first one of
// the card that has booted. card is a MAC in lower case with colons, or "".
func (s *State) networkEntry(card string) (n Number, why string) {
	if s.Current != nil {
		if e := s.Entry(*s.Current); e != nil && e.Kind == NetworkEntry && e.Active {
			return e.Number, ""
		}
	}
	some := false
	var own, any *Entry // of the card, and one that tries all cards
	for _, e := range s.candidates() {
		if e.Kind != NetworkEntry {
			continue
		}
		some = true
		if e.Active && card != "" && e.MAC == card && (own == nil || e.detour() < own.detour()) {
			own = &e
		}
		if e.Active && any == nil && e.MAC == "" && e.URI == "" {
			any = &e
		}
	}
	switch {
	case own != nil && own.detour() < onlyIPv6:
		return own.Number, ""
	case any != nil:
		return any.Number, ""
	case own != nil:
		return 0, fmt.Sprintf("The boot entries for the network card %s are for IPv6 alone, by which no server of this kind is asked.", card)
	case !some:
		return 0, "The firmware has no boot entry for the network."
	case card == "":
		return 0, "It is not known which network card has booted, and no network entry started this boot."
	}
	return 0, fmt.Sprintf("No boot entry that is active is for the network card %s, and no network entry started this boot.", card)
}

// onlyIPv6 is the detour of an entry that never asks our server.
const onlyIPv6 = 3

// detour says how sure a network entry leads to our server. That answers by IPv4, always to PXE, and to
// HTTP Boot if its GRUB can load by HTTP.
func (e *Entry) detour() int {
	switch v4 := strings.Contains(e.Path, "IPv4("); {
	case strings.Contains(e.Path, "IPv6(") && !v4:
		return onlyIPv6
	case strings.Contains(e.Path, "Uri("):
		return 2
	case !v4:
		return 1
	}
	return 0
}

// isFirst reports whether nothing but the network comes before an entry in the order.
// Another network card that is tried first keeps no box from ours. Neither does what is
// not booted by itself, such as the setup program that some firmware always has first.
func (s *State) isFirst(n Number) bool {
	for _, o := range s.Order {
		if o == n {
			return true
		}
		if e := s.Entry(o); e == nil || e.Kind != NetworkEntry && e.byItself() {
			return false
		}
	}
	return false
}

// candidates are the entries of the order, and then the others.
func (s *State) candidates() []Entry {
	list := s.Ordered()
	for _, e := range s.Entries {
		if !slices.Contains(s.Order, e.Number) {
			list = append(list, e)
		}
	}
	return list
}

// putFirst returns an order with n at its beginning. Each other entry keeps its place
// among the rest, and is there once.
func putFirst(n Number, order []Number) []Number {
	list := []Number{n}
	for _, o := range order {
		if !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

// PutNetworkFirst sees to it that the network is first in BootOrder, and that the
// state has the order that is there now. card is the MAC of the network card that has
// booted, or "". before is what an earlier start noted, or nil. What is right already
// is not written.
func (d Dir) PutNetworkFirst(s *State, card string, before *Note) *NetworkFirst {
	order, err := d.Order()
	if err != nil {
		return &NetworkFirst{Result: OrderFailed, Text: fmt.Sprintf("The boot order cannot be read: %v.", err)}
	}
	s.Order = order
	first, why := s.networkEntry(card)
	if why != "" {
		return &NetworkFirst{Result: OrderNone, Text: why}
	}
	if s.isFirst(first) {
		return &NetworkFirst{Result: OrderKept, First: &first}
	}
	n := &NetworkFirst{Result: OrderRepaired, First: &first, Before: order, Wrote: putFirst(first, order)}
	if len(order) == 0 {
		n.Wrote = putFirst(first, s.bootable())
	}
	if len(n.Wrote) > MaxEntries {
		return &NetworkFirst{Result: OrderFailed, First: &first, Text: "The boot order has no room for one more entry."}
	}
	if err := d.writeOrder(n.Wrote); err != nil {
		n.Result, n.Text, n.Wrote = OrderFailed, fmt.Sprintf("The boot order stays %s: %v.", Numbers(order), err), nil
		return n
	}
	s.Order = n.Wrote
	if before.undone(s, order) {
		n.Result = OrderIgnored
		n.Text = fmt.Sprintf("The boot order %s, which was written on %s, did not stay. It was again %s, and was written once more. "+
			"Either the firmware ignores it, and then its own setup has to put the network first, or a system on a disk has set it back.",
			Numbers(before.NetworkFirst.Wrote), before.Time.UTC().Format(time.RFC3339), Numbers(order))
		return n
	}
	n.Text = fmt.Sprintf("The boot order was %s, and now is %s.", Numbers(order), Numbers(n.Wrote))
	return n
}

// undone reports whether an order is the one that was there before another was written. Some
// firmware gives its entries new numbers at each start, so that what they start is compared.
func (n *Note) undone(s *State, order []Number) bool {
	if n == nil || n.NetworkFirst == nil || len(n.NetworkFirst.Wrote) == 0 {
		return false
	}
	was := n.NetworkFirst.Before
	return slices.Equal(was, order) || slices.Equal(n.State.started(was), s.started(order))
}

// started says what the entries of an order start.
func (s *State) started(order []Number) (list []string) {
	of := map[Number]string{}
	for i, what := range s.identities() {
		of[s.Entries[i].Number] = what
	}
	for _, n := range order {
		what, has := of[n]
		if !has {
			what = "no entry " + n.String()
		}
		list = append(list, what)
	}
	return list
}

// bootable are the entries that an order can have where there was none. An order with the
// network alone could keep the firmware from the disks.
func (s *State) bootable() (list []Number) {
	for _, e := range s.Entries {
		if e.Active && (e.Kind == DiskEntry || e.Kind == NetworkEntry) {
			list = append(list, e.Number)
		}
	}
	return list
}

// writeOrder writes BootOrder, and reads it back.
func (d Dir) writeOrder(order []Number) error {
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	if err := d.write("BootOrder", b, false); err != nil {
		return err
	}
	is, err := d.Read("BootOrder", Global)
	switch {
	case err != nil:
		return fmt.Errorf("read it back: %w", err)
	case !bytes.Equal(is, b):
		return errors.New("the firmware took the new order without an error, and did not keep it")
	}
	return nil
}
