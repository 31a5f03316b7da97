package dispatch

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

// realUUID is a UUID in its one form, or "" if it cannot tell machines apart.
func realUUID(s string) string {
	if s = strings.ToLower(s); !inventory.RealUUID(s) {
		return ""
	}
	return s
}

// realMACs are those addresses that network cards can have, in their one form,
// sorted.
func realMACs(list []string) []string {
	var all []string
	for _, s := range list {
		hw, err := net.ParseMAC(s)
		zero := !slices.ContainsFunc(hw, func(b byte) bool { return b != 0 })
		if err == nil && len(hw) == 6 && hw[0]&1 == 0 && !zero { // no group of cards, which has that bit
			all = append(all, hw.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// stranger says why an agent does not run on the machine that is known at its
// address. It returns "" if nothing speaks against it, also if nothing is known. A
// UUID counts more than network cards, which can be replaced.
func stranger(known ledger.Box, h *wire.Hello) string {
	if was, is := realUUID(known.UUID), realUUID(h.UUID); was != "" && is != "" {
		if was == is || was == bootcfg.OtherOrder(is) { // an admin may have taken it from what a loader told
			return ""
		}
		return fmt.Sprintf("The machine has the UUID %s, and the one that is known at %s has %s. Accept the machine if it was replaced on "+
			"purpose.", is, known.Address, was)
	}
	was, is := realMACs(known.MACs), realMACs(h.MACs)
	if len(was) == 0 || len(is) == 0 || slices.ContainsFunc(is, func(m string) bool { return slices.Contains(was, m) }) {
		return ""
	}
	return fmt.Sprintf("The machine has the network cards %s, and the one that is known at %s has %s. Accept the machine if it was replaced "+
		"on purpose.", some(is), known.Address, some(was))
}

// some names the first few of a list.
func some(list []string) string {
	if len(list) > 4 {
		return strings.Join(list[:4], ", ") + ", ..."
	}
	return strings.Join(list, ", ")
}

// teach notes in the ledger what a machine is known by. A machine that was accepted
// in place of another one replaces what was known.
func teach(tx *ledger.Tx, addr box.Addr, h *wire.Hello, another bool, at time.Time) error {
	b, err := tx.Box(addr)
	if errors.Is(err, ledger.ErrNotFound) {
		b, err = ledger.Box{Address: addr, Health: ledger.Good}, nil
	}
	if err != nil {
		return err
	}
	if another {
		b.UUID, b.MACs = "", nil
	}
	if uuid := realUUID(h.UUID); uuid != "" {
		b.UUID = uuid
	}
	for _, m := range realMACs(h.MACs) {
		if len(b.MACs) < ledger.MaxMarks && !slices.Contains(b.MACs, m) {
			b.MACs = append(slices.Clone(b.MACs), m)
		}
	}
	if b.FirstSeen.IsZero() {
		b.FirstSeen = at
	}
	if at.After(b.LastSeen) {
		b.LastSeen = at
	}
	return tx.PutBox(b)
}
