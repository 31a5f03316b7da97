package dispatch

import (
	"fmt"
	"log/slog"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
	"testbox-imaging/internal/words"
)

// maxComplaints is of how many boxes one box is heard that they stall, are slow, or lack what they said to have. A box that
// says so of more is cut off itself, or wants to smear the others.
const maxComplaints = 8

// RoomFault is what other boxes of the same room say of a box.
type RoomFault struct {
	Fault room.Fault
	Boxes int // that say so
}

// Text says it in a sentence.
func (f RoomFault) Text() string {
	return fmt.Sprintf("%s that this one %s.", words.Count(f.Boxes, "other box says", "other boxes say"), faultText[f.Fault])
}

// peerNotes is what boxes say of the box of a job, and what it says of others. It is in memory alone. What is known when the
// job ends goes into its warnings.
type peerNotes struct {
	by      map[room.Fault]map[box.Addr]bool // who says so of this box
	of      map[room.Fault]map[box.Addr]bool // of whom this box says so
	dropped bool                             // nobody is told of it any more
}

// faultText says what a box does, in words.
var faultText = map[room.Fault]string{
	room.Garbage: "sends wrong bytes",
	room.Stalls:  "sends nothing, or next to nothing",
	room.Slow:    "is much slower than others",
	room.Lacks:   "does not send what it said to have",
}

// believed is of how many other boxes a box is believed that they do something.
func believed(f room.Fault) int {
	if f == room.Garbage {
		return room.MaxAccused
	}
	return maxComplaints
}

// faults are what other boxes say.
func (n *peerNotes) faults() (all []RoomFault) {
	for _, f := range room.Faults {
		if by := len(n.by[f]); by > 0 {
			all = append(all, RoomFault{f, by})
		}
	}
	return all
}

// warnings are what is said of a box, for the result of its job. What only slows others down happens to good boxes too, so
// one of them is not enough for a warning.
func (n *peerNotes) warnings() (all []string) {
	for _, f := range n.faults() {
		if f.Fault == room.Garbage || f.Boxes >= room.MaxAccusers {
			all = append(all, f.Text())
		}
	}
	if n.dropped {
		all = append(all, "Other boxes are not told of this one any more, since two of them got wrong bytes from it. Test its memory.")
	}
	for _, f := range room.Faults {
		if most := believed(f); len(n.of[f]) > most {
			all = append(all, fmt.Sprintf("This box says of more than %d others that each %s. Look at its own network and memory.", most,
				faultText[f]))
		}
	}
	return all
}

// hear notes what a box says of another one. heard is false if it said so before, or is not believed. much is true once, when
// it says so of more boxes than it is believed.
func hear(by, of *task, f room.Fault) (heard, much bool) {
	most := believed(f)
	if said := by.peers.of[f]; said[of.job.Box] || len(said) > most {
		return false, false
	}
	mark(&by.peers.of, f, of.job.Box)
	if len(by.peers.of[f]) > most {
		return false, true
	}
	mark(&of.peers.by, f, by.job.Box)
	return true, false
}

func mark(m *map[room.Fault]map[box.Addr]bool, f room.Fault, a box.Addr) {
	if *m == nil {
		*m = map[room.Fault]map[box.Addr]bool{}
	}
	if (*m)[f] == nil {
		(*m)[f] = map[box.Addr]bool{}
	}
	(*m)[f][a] = true
}

// hearDeaf tells people once of boxes that reach no other box. A firewall cuts off many of them at the same time.
func (d *Dispatch) hearDeaf(t *task, s *wire.RoomState) {
	if s == nil || !s.Deaf || s.Boxes < 2 || t.deaf {
		return
	}
	t.deaf = true
	if more, ok := d.spare.Take("deaf"); ok {
		d.cfg.Log.Warn("A box reaches none of the other boxes that restore the same backup, or gets too little from them, and takes "+
			"all from the server. Perhaps there is a firewall between them."+more, "job", t.job.ID, "box", t.job.Box.String())
	}
}

// RoomNews takes note of what one box says of another one that restores the same image. It is boxapi.Config.RoomNews, and
// returns at once. Each box is heard once of each other one and each fault, so that it fills neither log nor memory.
func (d *Dispatch) RoomNews(n boxapi.RoomNews) {
	if do := d.roomNews(n); do != nil {
		d.goes(do)
	}
}

// roomNews returns what is still to be done, or nil.
func (d *Dispatch) roomNews(n boxapi.RoomNews) (do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := func(token string) *task {
		if h := d.session[sessionOf(token)]; h != nil {
			return h.t
		}
		return nil
	}
	by, of := at(n.By), at(n.Of)
	switch {
	case of == nil || of.peers.dropped && n.Dropped:
		return nil
	case n.Dropped:
		of.peers.dropped = true
		accused := of.job
		return func() {
			d.broken(of, accused, fmt.Sprintf("Two boxes got wrong bytes from %s, so no other box is told of it any more.",
				d.named(accused.Box)))
		}
	case by == nil || by.job.Box == of.job.Box || faultText[n.Fault] == "":
		return nil
	}
	heard, much := hear(by, of, n.Fault)
	accuser, accused := by.job, of.job
	switch {
	case heard:
		return func() { d.complained(of, accuser, accused, n.Fault) }
	case much:
		return func() { d.cried(by, accuser, n.Fault) }
	}
	return nil
}

// complained tells people what one box says of another one, which has the job of t.
func (d *Dispatch) complained(t *task, by, of job.Job, f room.Fault) {
	text := fmt.Sprintf("The box %s %s, says %s.", d.named(of.Box), faultText[f], d.named(by.Box))
	if f == room.Garbage {
		d.alarmOf(t, text)
	} else if more, ok := d.spare.Take("room " + of.ID + string(f)); ok {
		d.cfg.Log.Warn(text+more, "job", of.ID, "box", of.Box.String(), "fault", string(f), "by", by.Box.String())
	}
	d.watching.changed(of.ID)
}

// cried tells people of a box that complains of too many others.
func (d *Dispatch) cried(t *task, by job.Job, f room.Fault) {
	text := fmt.Sprintf("The box %s says of more than %d others that each %s. It is not believed any more. "+
		"Its own network or memory may be broken.", d.named(by.Box), believed(f), faultText[f])
	if f == room.Garbage {
		d.broken(t, by, text)
		return
	}
	d.log(slog.LevelWarn, by.ID, text, "job", by.ID, "box", by.Box.String())
	d.watching.changed(by.ID)
}

// broken tells people that a box may be broken, and remembers it.
func (d *Dispatch) broken(t *task, j job.Job, text string) {
	d.alarmOf(t, text)
	if err := d.book.Update(d.ctx, func(tx *ledger.Tx) error { return d.suspect(tx, j, text) }); err != nil {
		d.log(slog.LevelError, j.ID, "it cannot be noted that a box may be broken", "job", j.ID, "error", err)
	}
	d.watching.changed(j.ID)
}

// alarmOf tells people of the box of a job whose lane the caller does not have.
func (d *Dispatch) alarmOf(t *task, text string) {
	if t.lane.lock(d.ctx) == nil {
		d.alarm(t, text)
		t.lane.unlock()
	}
}

// named is a box with its name.
func (d *Dispatch) named(addr box.Addr) string {
	var b ledger.Box
	err := d.book.View(d.ctx, func(tx *ledger.Tx) (err error) {
		b, err = d.boxOf(tx, addr)
		return err
	})
	if err != nil || b.Name == "" {
		return addr.String()
	}
	return fmt.Sprintf("%s (%s)", addr, b.Name)
}
