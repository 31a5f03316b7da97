package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/words"
)

const (
	lookEvery = 10 * time.Second
	saveEvery = time.Minute
	saveTime  = 10 * time.Second // for a change of the ledger at the end of the server
)

// lookout looks after what was seen of machines at their start. It writes that to the
// ledger now and then, tells what is new, and enrols machines by the rules of the admin.
type lookout struct {
	*server
	tell  func(sight.Event)
	now   func() time.Time
	spare sparing.Limit

	worked map[netip.Addr]bool // boxes whose agents were at work at the last look
	looked time.Time           // when that was
}

// know says which boxes a machine has to do with. It is a sight.List's Know.
func (s *server) know(id sight.Identity) (k sight.Known) {
	here := s.roster.at(id.Addr)
	if here != nil {
		k.Here = here.Addr
	}
	var found []*known
	if id.MAC != "" {
		found = s.roster.withMAC(id.MAC)
	}
	if len(found) == 0 && id.UUID != "" {
		found = s.roster.withUUID(id.UUID)
	}
	switch {
	case here != nil && slices.Contains(found, here):
		k.Box, k.Sure = here.Addr, true
	case len(found) > 0:
		k.Box, k.Sure = found[0].Addr, true
	case here != nil && (id.MAC == "" || len(here.MACs) == 0) && (id.UUID == "" || here.UUID == "" || len(s.roster.withUUID(here.UUID)) == 0):
		k.Box = here.Addr // nothing speaks against it
	}
	return k
}

// loadSights reads from the ledger what was seen before, and follows the boxes from then
// on. It is called before anything is seen.
func (s *server) loadSights(ctx context.Context) error {
	s.sights.Know = s.know
	var machines []ledger.Machine
	err := s.ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Boxes(ledger.BoxFilter{}, p)
			if err != nil {
				return err
			}
			for _, b := range some {
				s.loadSight(b)
			}
			if p.After = next; next == "" {
				break
			}
		}
		machines, err = tx.Machines()
		return err
	})
	if err != nil {
		return err
	}
	var all []sight.Saved
	for _, m := range machines {
		v := sight.Saved{Key: m.Name}
		if err := json.Unmarshal(m.Doc, &v.Machine); err != nil {
			s.Log.Warn("What was seen of a machine cannot be read, and is dropped.", "machine", m.Name, "error", err)
			v = sight.Saved{Key: m.Name}
		}
		all = append(all, v)
	}
	s.sights.Load(all, time.Now())
	s.roster.also = s.boxesChanged
	return nil
}

// loadSight takes what the ledger has of a box.
func (s *server) loadSight(b ledger.Box) {
	var v sight.Box
	if err := json.Unmarshal(b.Sight, &v); err != nil {
		s.Log.Warn("What was seen of a box cannot be read, and begins anew.", "box", b.Address, "error", err)
		v = sight.Box{}
	}
	v.Last = b.LastSeen
	s.sights.LoadBox(b.Address.IP(), v)
}

// boxesChanged follows the boxes in the ledger. An agent that says hello is a sign of
// life.
func (s *server) boxesChanged(put []ledger.Box, gone []box.Addr) {
	for _, a := range gone {
		s.sights.Forget(a.IP())
	}
	for _, b := range put {
		if _, has := s.sights.OfBox(b.Address.IP()); !has {
			s.loadSight(b)
		} else if !b.LastSeen.IsZero() {
			s.sights.SawBox(b.Address.IP(), b.LastSeen)
		}
	}
}

// run looks until ctx ends, and saves what was seen once more then.
func (l *lookout) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	saved := time.Now()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
			defer cancel()
			l.save(last)
			return
		case <-l.sights.Told():
			l.events()
		case <-look.C:
			l.enrol(ctx)
			if time.Since(saved) >= saveEvery {
				saved = time.Now()
				l.quiet(ctx)
				l.save(ctx)
			}
		}
	}
}

// save writes to the ledger what was seen since the last time, in one change.
func (l *lookout) save(ctx context.Context) {
	put, drop := l.sights.Unsaved()
	boxes := l.sights.UnsavedBoxes()
	if len(put)+len(drop)+len(boxes) == 0 {
		return
	}
	err := l.ledger.Update(ctx, func(tx *ledger.Tx) error {
		for _, name := range drop {
			if err := tx.DropMachine(name); err != nil {
				return err
			}
		}
		for _, m := range put {
			doc, err := m.Document()
			if err != nil {
				return err
			}
			if err := tx.PutMachine(ledger.Machine{Name: m.Key, LastSeen: m.Last, Doc: doc}); err != nil {
				return err
			}
		}
		for a, b := range boxes {
			if err := seeBox(tx, a, b); err != nil && !errors.Is(err, ledger.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	l.sights.Unsave(put, drop)
	l.sights.UnsaveBoxes(boxes)
	if more, ok := l.spare.Take("save"); ok && ctx.Err() == nil {
		l.Log.Error("What was seen of machines cannot be saved. It is tried again."+more, "error", err)
	}
}

func seeBox(tx *ledger.Tx, a netip.Addr, b sight.Box) error {
	addr, err := box.ParseAddr(a.String())
	if err != nil {
		return err
	}
	doc, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return tx.SeeBox(addr, b.Last, doc)
}

// quiet finds boxes that have become silent. An agent that has ended since the last look has its box start anew.
func (l *lookout) quiet(ctx context.Context) {
	now := l.now()
	busy := map[netip.Addr]bool{} // their agents are heard of
	err := l.ledger.View(ctx, func(tx *ledger.Tx) error {
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Jobs(ledger.JobFilter{Open: true, States: []string{string(job.Running), string(job.Held), string(job.Rescue)}}, p)
			if err != nil {
				return err
			}
			for _, j := range some {
				busy[j.Box.IP()] = true
			}
			if p.After = next; next == "" {
				return nil
			}
		}
	})
	if err != nil {
		return // it is looked again
	}
	for a := range l.worked {
		if !busy[a] {
			l.sights.Restarted(a, l.looked, now)
		}
	}
	l.worked, l.looked = busy, now
	l.sights.Quiet(now, func(a netip.Addr) bool { return l.roster.at(a) != nil }, func(a netip.Addr) bool {
		k := l.roster.at(a)
		return busy[a] || k != nil && k.Off
	})
}

// events tells what was found.
func (l *lookout) events() {
	all, lost := l.sights.Events()
	for _, e := range all {
		l.log(e)
		l.tell(e)
	}
	if lost > 0 {
		if more, ok := l.spare.Take("lost"); ok {
			l.Log.Warn("Many machines that nobody knows ask for their boot files. Not all of them are told of."+more, "untold", lost)
		}
	}
}

func (l *lookout) log(e sight.Event) {
	args := []any{"box", e.Box, "mac", e.Machine.MAC, "address", e.Machine.Addr}
	if !e.Box.IsValid() {
		args = args[2:]
	}
	key, text := string(e.Kind)+" "+e.Box.String(), ""
	switch e.Kind {
	case sight.New:
		text = "A machine that nobody knows asked for its boot files. `testbox boxes --new` lists such machines."
	case sight.Moved:
		text = "The machine of a box asks from another address. If it is to stay there, say `testbox box readdress`."
	case sight.Shared:
		text = "Two machines ask from one address."
	case sight.Silent:
		text, args = "A box was not seen for longer than is usual for it.", args[:2]
		if e.Lost {
			text = "A box was to start anew after its action, and has not asked for its boot files since. Is it on? Does its firmware try the " +
				"network first?"
		}
	case sight.Back:
		text, args = "A box that was silent was seen again.", args[:2]
	}
	if more, ok := l.spare.Take(key); ok {
		l.Log.Info(text+more, args...)
	}
}

// maxEnrol is how many machines are enrolled at one look.
const maxEnrol = 32

// enrol makes boxes of machines that nobody knows, as the rules of the configuration say.
// It arms nothing. Only such machines count that have started their own disk by the
// default boot file: they have taken a file at the address, so they are really there.
func (l *lookout) enrol(ctx context.Context) {
	if len(l.Config.Enrol) == 0 {
		return
	}
	now, n := l.now(), 0
	for _, m := range l.sights.Unknown() {
		addr, err := box.ParseAddr(m.Addr.String())
		if err != nil || m.MAC == "" || m.Default.IsZero() || m.Shared(now) || l.roster.at(m.Addr) != nil ||
			l.Place.CheckBoxes([]box.Addr{addr}) != nil {
			continue
		}
		i := slices.IndexFunc(l.Config.Enrol, func(r Enrol) bool { return r.matches(m.Identity) })
		if i < 0 {
			continue
		}
		if n++; n > maxEnrol {
			return // others come at the next look
		}
		if err := l.enrolOne(ctx, l.Config.Enrol[i], addr, m); err != nil {
			if more, ok := l.spare.Take("enrol " + m.MAC); ok && ctx.Err() == nil {
				l.Log.Warn("A machine cannot be enrolled."+more, "mac", m.MAC, "address", m.Addr, "error", err)
			}
		}
	}
}

// enrolOne makes a box of a machine by a rule.
func (l *lookout) enrolOne(ctx context.Context, r Enrol, addr box.Addr, m sight.Machine) error {
	there := false
	err := l.ledger.Update(ctx, func(tx *ledger.Tx) error {
		// An admin may have made it a box a moment ago, and said more of it than a rule does.
		_, err := tx.Box(addr)
		if there = err == nil; there {
			return nil
		}
		if !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		if err := r.room(tx); err != nil {
			return err
		}
		b := ledger.Box{Address: addr, MACs: []string{m.MAC}, UUID: realUUID(m.UUID), Groups: r.Groups, Health: ledger.Good,
			FirstSeen: m.First, LastSeen: m.Last}
		if err := tx.PutBox(b); err != nil {
			return err
		}
		return tx.AddAudit(ledger.Entry{Time: l.now(), Who: "server", What: "enrol box", On: addr.String(),
			Why: fmt.Sprintf("the machine %s asked from there, and the rule for %s in server.toml takes it", m.MAC, r)})
	})
	if err == nil && !there {
		l.Log.Info("A machine was enrolled by a rule of server.toml.", "box", addr, "mac", m.MAC, "rule", r.String())
	}
	return err
}

// room makes the groups of a rule, and refuses if they are full.
func (r Enrol) room(tx *ledger.Tx) error {
	all, err := tx.Groups()
	if err != nil {
		return err
	}
	for _, name := range r.Groups {
		if !slices.ContainsFunc(all, func(g ledger.Group) bool { return g.Name == name }) {
			if err := tx.PutGroup(ledger.Group{Name: name}); err != nil {
				return err
			}
			continue
		}
		some, _, err := tx.Boxes(ledger.BoxFilter{Group: name}, ledger.Page{Limit: r.most()})
		if err != nil {
			return err
		}
		if len(some) >= r.most() {
			return fmt.Errorf("the group %s has %s, and the rule for %s fills it up to that number (most)", name,
				words.Count(len(some), "box", "boxes"), r)
		}
	}
	return nil
}

// realUUID is a UUID, or "" if it cannot tell machines apart.
func realUUID(s string) string {
	if !inventory.RealUUID(s) {
		return ""
	}
	return s
}
