package efi

import (
	"slices"
	"strings"
)

// Change is a difference between two states.
type Change struct {
	What string `json:"what" doc:"such as Secure Boot, boot order, or a boot entry"`
	Was  string `json:"was,omitempty" doc:"left out if it was not there, or was not known"`
	Is   string `json:"is,omitempty" doc:"left out if it is not there any more, or is not known"`
}

// String writes a change for people.
func (c Change) String() string {
	switch {
	case c.Was == "":
		return c.What + " is new: " + c.Is
	case c.Is == "":
		return c.What + " is gone: " + c.Was
	}
	return c.What + " was " + c.Was + ", is " + c.Is
}

// Changes says how a state differs from an earlier one. Which entry has started the
// boot is left out, since that says more of the boot than of the firmware. So are
// numbers of boot entries that alone have changed, since some firmware gives its own
// entries new numbers at each start.
func Changes(was, is *State) []Change {
	var all []Change
	add := func(what, was, is string) {
		if was != is {
			all = append(all, Change{what, was, is})
		}
	}
	add("firmware", was.kind(), is.kind())
	add("version of the firmware", was.Release(), is.Release())
	add("Secure Boot", was.SecureBoot, is.SecureBoot)
	all = append(all, entryChanges(was, is)...)
	add("entry for the next boot alone", was.named(was.Next), is.named(is.Next))
	before, now := map[string]string{}, map[string]string{}
	variables(was, before)
	variables(is, now)
	all = append(all, mapChanges(before, now)...)
	before, now = map[string]string{}, map[string]string{}
	namespaces(was, before)
	namespaces(is, now)
	return append(all, mapChanges(before, now)...)
}

// kind is the part of Firmware that stays through its updates.
func (s *State) kind() string {
	only := State{Kind: s.Kind, Bits: s.Bits}
	return only.Firmware()
}

// named is an entry by its number and name.
func (s *State) named(n *Number) string {
	if n == nil {
		return ""
	}
	if e := s.Entry(*n); e != nil {
		return strings.TrimSpace(n.String() + " " + e.Name)
	}
	return n.String()
}

// identities say what each entry starts, whatever its number is. Where its partition was
// found is no part of that, since kernel names of disks change from boot to boot.
func (s *State) identities() (all []string) {
	for _, e := range s.Entries {
		if e.Partition != nil {
			p := *e.Partition
			p.Disk = ""
			e.Partition = &p
		}
		all = append(all, e.Name+"\n"+e.Starts()+"\n"+e.Path)
	}
	return all
}

// entryChanges compares the boot entries and their order.
func entryChanges(was, is *State) (all []Change) {
	to := map[Number]Number{} // from the number that an entry had to the one that it has
	taken := map[Number]bool{}
	pair := func(a, b *Entry) { to[a.Number], taken[b.Number] = b.Number, true }
	before, now := was.identities(), is.identities()
	for _, moved := range []bool{false, true} {
		for i := range was.Entries {
			for j := range is.Entries {
				a, b := &was.Entries[i], &is.Entries[j]
				if _, done := to[a.Number]; !done && !taken[b.Number] && before[i] == now[j] && (moved || a.Number == b.Number) {
					pair(a, b)
				}
			}
		}
	}
	for i := range was.Entries { // what is left has changed, or is gone
		a := &was.Entries[i]
		if _, done := to[a.Number]; done {
			continue
		}
		b := is.Entry(a.Number)
		if b == nil || taken[b.Number] {
			all = append(all, Change{"boot entry " + was.named(&a.Number), a.Starts(), ""})
			continue
		}
		pair(a, b)
		all = append(all, Change{"boot entry " + a.Number.String(), strings.TrimSpace(a.Name + ": " + a.Starts()),
			strings.TrimSpace(b.Name + ": " + b.Starts())})
	}
	for i := range is.Entries {
		if b := &is.Entries[i]; !taken[b.Number] {
			all = append(all, Change{"boot entry " + is.named(&b.Number), "", b.Starts()})
		}
	}
	renumbered := slices.Clone(was.Order)
	for i, n := range renumbered {
		if now, has := to[n]; has {
			renumbered[i] = now
		}
	}
	if !slices.Equal(renumbered, is.Order) {
		all = append(all, Change{"boot order", was.order(), is.order()})
	}
	return all
}

// order is the boot order with the names of the entries.
func (s *State) order() string {
	var list []string
	for i, n := range s.Order {
		if i == maxListed {
			list = append(list, "and more")
			break
		}
		list = append(list, s.named(&n))
	}
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// variables are those that say more than SecureBoot of a state does.
func variables(s *State, to map[string]string) {
	for i := range s.Variables {
		v := &s.Variables[i]
		if v.Name != "SecureBoot" && v.Name != "SetupMode" {
			to["variable "+v.Name] = v.content()
		}
	}
}

func namespaces(s *State, to map[string]string) {
	for i := range s.NVMe {
		n := *s.NVMe[i].named()
		what, _, _ := strings.Cut(n.String(), ": ")
		to[what] = n.layout()
	}
}

// named leaves out the kernel name, which changes from boot to boot, if there is
// something better to tell a namespace by.
func (n *Namespace) named() *Namespace {
	c := *n
	if c.Serial != "" {
		c.Disk, c.Serial = "the disk "+c.Serial, ""
	}
	return &c
}

func mapChanges(was, is map[string]string) (all []Change) {
	for what, before := range was {
		if now := is[what]; now != before {
			all = append(all, Change{what, before, now})
		}
	}
	for what, now := range is {
		if _, had := was[what]; !had {
			all = append(all, Change{what, "", now})
		}
	}
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.What, b.What) })
	return all
}
