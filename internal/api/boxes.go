package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/sharedir"
)

// findBox finds a box by its address, name, MAC or UUID. What a caller may not see
// is not there.
func findBox(tx *ledger.Tx, c *caller, word string) (ledger.Box, error) {
	if word == "" { // a filter for it would find every box
		return ledger.Box{}, problem.Wrongf("a box has to be named, and the name is empty")
	}
	var err error
	if addr, parseErr := box.ParseAddr(word); parseErr == nil {
		var b ledger.Box
		if b, err = tx.Box(addr); err == nil && c.sees(b) {
			return b, nil
		}
		if err == nil || errors.Is(err, ledger.ErrNotFound) {
			return ledger.Box{}, noBox(word)
		}
		return ledger.Box{}, err
	}
	filters := []ledger.BoxFilter{{Name: word}}
	if _, err := net.ParseMAC(word); err == nil {
		filters = append(filters, ledger.BoxFilter{MAC: word})
	}
	filters = append(filters, ledger.BoxFilter{UUID: word})
	for _, f := range filters {
		found, _, err := tx.Boxes(f, ledger.Page{Limit: 2})
		if p := (*problem.Error)(nil); errors.As(err, &p) {
			continue // the word is no UUID
		}
		if err != nil {
			return ledger.Box{}, err
		}
		found = slices.DeleteFunc(found, func(b ledger.Box) bool { return !c.sees(b) })
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return ledger.Box{}, problem.Wrongf("%s and %s are both found by %.80q; give an address", found[0].Address, found[1].Address, word)
		}
	}
	return ledger.Box{}, noBox(word)
}

func noBox(word string) error {
	return notFound("there is no box %.80q; a box is named by its address, name, MAC or UUID", word)
}

// sees reports whether a caller may know of a box.
func (c *caller) sees(b ledger.Box) bool { return c.group == "" || slices.Contains(b.Groups, c.group) }

// BoxPath is the box in a path.
type BoxPath struct {
	Box string `path:"box" maxLength:"253" doc:"address, name, MAC or UUID of a box"`
}

// boxOf is a box as the API gives it.
func (s *Server) boxOf(b ledger.Box, last *LastJob) Box {
	v := Box{
		Address: b.Address.String(), Name: b.Name, MACs: b.MACs, UUID: b.UUID, Labels: b.Labels, Groups: b.Groups, Health: b.Health,
		HealthReason: b.Reason, FirstSeen: b.FirstSeen, LastSeen: b.LastSeen, Last: last,
	}
	set, _ := setting.OfBox(b) // what holds for a box says why they cannot be read
	v.Power, v.Keep, v.Peers = set.Power, set.Keep.String(), set.Peers
	if s.heldBy(b) != "" {
		v.Holder = &Holder{Name: b.Holder.Name, Reason: b.Holder.Reason, Expires: b.Holder.Expires}
	}
	s.addSight(&v, b.Address)
	return v
}

// heldBy says who has reserved a box, and "" if nobody has it now.
func (s *Server) heldBy(b ledger.Box) string {
	if b.Holder.Expires.IsZero() || b.Holder.Expires.After(s.cfg.Now()) {
		return b.Holder.Name
	}
	return ""
}

type listBoxesInput struct {
	Name   string `query:"name" maxLength:"253" doc:"the box of this name"`
	MAC    string `query:"mac" maxLength:"64" doc:"the box with this network card"`
	UUID   string `query:"uuid" maxLength:"64" doc:"the box with this UUID"`
	Label  string `query:"label" maxLength:"100" doc:"boxes with this label"`
	Group  string `query:"group" maxLength:"100" doc:"boxes of this group"`
	Health string `query:"health" enum:"good,suspect,bad,maintenance,retired" doc:"boxes of this health"`
	State  string `query:"state" enum:"queued,armed,running,restarting,held,rescue,ended" doc:"boxes whose latest job is in this state"`
	PageInput
}

// PageInput is the part of a list that is wanted.
type PageInput struct {
	After string `query:"after" maxLength:"200" doc:"what the page before gave as next"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"at most so many entries"`
}

func (p PageInput) page() ledger.Page { return ledger.Page{After: p.After, Limit: p.Limit} }

type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

func (s *Server) listBoxes(ctx context.Context, in *listBoxesInput) (*body[BoxList], error) {
	c := callerOf(ctx)
	f := ledger.BoxFilter{Name: in.Name, MAC: in.MAC, UUID: in.UUID, Label: in.Label, Group: in.Group, Health: ledger.Health(in.Health)}
	if c.group != "" && f.Group == "" {
		f.Group = c.group // so that pages are full
	}
	out := BoxList{Boxes: []Box{}}
	// Backups are not asked for while the ledger is open, since reading them can take
	// seconds after a start of the server.
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		found, next, err := tx.Boxes(f, in.page())
		if err != nil {
			return err
		}
		out.Next = next
		found = slices.DeleteFunc(found, func(b ledger.Box) bool { return !c.sees(b) })
		last, err := s.lastJobs(tx, found)
		if err != nil {
			return err
		}
		for _, b := range found {
			j := last[b.Address]
			if in.State == "" || j != nil && string(j.State) == in.State {
				v := s.boxOf(b, j)
				c.hide(&v)
				out.Boxes = append(out.Boxes, v)
			}
		}
		return nil
	})
	if err == nil {
		out.Unknown = s.addLatest(ctx, out.Boxes)
		s.addFirmware(out.Boxes)
	}
	return answer(out, err)
}

// addLatest adds the latest backup to each box that has one. It says why these are not
// known, and "" if they are.
func (s *Server) addLatest(ctx context.Context, boxes []Box) (unknown string) {
	if s.cfg.Backups == nil || len(boxes) == 0 {
		return ""
	}
	addrs := make([]string, len(boxes))
	for i := range boxes {
		addrs[i] = boxes[i].Address
	}
	latest, err := s.cfg.Backups.Latest(ctx, addrs)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Error("the latest backups of boxes cannot be read", "error", err)
		}
		return "the store cannot be read; the server's log says why"
	}
	for i := range boxes {
		if b, has := latest[boxes[i].Address]; has {
			boxes[i].LastBackup = &LastBackup{b.ID, b.Time}
		}
	}
	return ""
}

func (s *Server) getBox(ctx context.Context, in *BoxPath) (*body[Box], error) {
	return answer(s.box(ctx, in.Box))
}

// box reads a box with all that is said of a single one.
func (s *Server) box(ctx context.Context, word string) (v Box, err error) {
	var b ledger.Box
	err = s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		var err error
		if b, err = findBox(tx, callerOf(ctx), word); err != nil {
			return err
		}
		last, err := s.lastJobs(tx, []ledger.Box{b})
		if err != nil {
			return err
		}
		v = s.boxOf(b, last[b.Address])
		if s.cfg.Sights != nil {
			for _, m := range s.cfg.Sights.MachinesOf(b.Address.IP()) {
				v.Machines = append(v.Machines, s.machineOf(m))
			}
		}
		callerOf(ctx).hide(&v)
		groups, err := tx.Groups()
		e := setting.For(b, groups, s.cfg.Site)
		v.Effective = &Effective{cmp.Or(e.Power, setting.None), e.PowerWhy, e.Keep.String(), e.KeepWhy, setting.Off, e.PeersWhy}
		if e.Peers {
			v.Effective.Peers = setting.On
		}
		if err != nil {
			return err
		}
		return s.addSchedules(tx, b, &v)
	})
	if err == nil {
		all := []Box{v}
		s.addLatest(ctx, all)
		s.addFirmware(all)
		v = all[0]
	}
	if err != nil || s.cfg.Area == nil {
		return v, err
	}
	switch list, err := s.cfg.Area.Look(b.Address).ReadDisks(); {
	case err == nil:
		text := string(list)
		v.Disks = &text
	case !errors.Is(err, sharedir.ErrNoDisks):
		return v, err
	}
	return v, nil
}

// change makes a change of the ledger together with its entry in the audit log. do
// fills in on what the change was made, and why.
func (s *Server) change(ctx context.Context, what string, do func(*ledger.Tx, *caller, *ledger.Entry) error) error {
	c := callerOf(ctx)
	on := ""
	err := s.cfg.Ledger.Update(ctx, func(tx *ledger.Tx) error {
		e := ledger.Entry{Time: s.cfg.Now(), Who: c.name, From: c.from, What: what}
		if err := do(tx, c, &e); err != nil {
			return err
		}
		on = e.On
		return tx.AddAudit(e)
	})
	if err != nil {
		return err
	}
	s.cfg.Jobs.Look() // the queue may wait for this
	if addr, err := box.ParseAddr(on); err == nil {
		data, err := json.Marshal(BoxEvent{Box: addr.String()})
		if err != nil {
			return err
		}
		s.hub.push(change{event: "box", box: addr, data: data})
	}
	return nil
}

// BoxEvent says that somebody has added, changed, reserved, given back or forgotten a box.
type BoxEvent struct {
	Box string `json:"box" doc:"address of the box"`
}

func (s *Server) addBox(ctx context.Context, in *struct{ Body NewBox }) (*body[Box], error) {
	q := in.Body
	var addr box.Addr
	err := s.change(ctx, "add box", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = q.Why
		b, err := s.newBox(tx, c, q)
		if err != nil {
			return err
		}
		addr = b.Address
		if _, err := tx.Box(addr); err == nil {
			return problem.Refusef("there is a box %s already; change it (PATCH, or `testbox box set`)", addr)
		} else if !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		if err := s.checkCards(tx, c, b); err != nil {
			return err
		}
		e.On = addr.String()
		return tx.PutBox(b)
	})
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, addr.String()))
}

// checkCards refuses a box with a network card of another one, if this server gives the
// addresses. Neither of the two would get its own then.
func (s *Server) checkCards(tx *ledger.Tx, c *caller, b ledger.Box) error {
	if !s.cfg.Addresses {
		return nil
	}
	for _, card := range b.MACs {
		for p := (ledger.Page{}); ; {
			found, next, err := tx.Boxes(ledger.BoxFilter{MAC: card}, p)
			if err != nil {
				return err
			}
			for _, other := range found {
				switch {
				case other.Address == b.Address || other.Health == ledger.Retired:
				case !c.sees(other):
					return problem.Refusef("another box has the network card %s, and neither would get its address then", card)
				default:
					return problem.Refusef("the box %s has the network card %s, and neither would get its address then. If the card was moved, "+
						"say first which card that box has now (`testbox box accept %s --mac MAC`)", other.Address, card, other.Address)
				}
			}
			if p.After = next; next == "" {
				break
			}
		}
	}
	return nil
}

func (s *Server) deleteBox(ctx context.Context, in *struct {
	BoxPath
	WhyInput
}) (*struct{}, error) {
	var addr box.Addr
	err := s.change(ctx, "forget box", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = in.Why
		b, err := findBox(tx, c, in.Box)
		if err != nil {
			return err
		}
		if err := noOpenJob(tx, b); err != nil {
			return err
		}
		e.On, addr = b.Address.String(), b.Address
		return tx.DeleteBox(b.Address)
	})
	if err == nil && s.cfg.Forgotten != nil {
		s.cfg.Forgotten(addr)
	}
	return nil, err
}

func noOpenJob(tx *ledger.Tx, b ledger.Box) error {
	open, _, err := tx.Jobs(ledger.JobFilter{Box: b.Address, Open: true}, ledger.Page{Limit: 1})
	if err == nil && len(open) > 0 {
		err = problem.Refusef("the box %s has the job %s, which has not ended; cancel it or wait", b.Address, open[0].ID)
	}
	return err
}

// WhyInput is a reason of a request without a body.
type WhyInput struct {
	Why string `query:"why" maxLength:"1000" doc:"the reason, for the audit log"`
}

func (s *Server) setBox(ctx context.Context, in *struct {
	BoxPath
	Body SetBox
}) (*body[Box], error) {
	q := in.Body
	said, err := q.check()
	if err != nil {
		return nil, err
	}
	why := because(strings.Join(said, "; "), q.Why)
	var addr box.Addr
	err = s.change(ctx, "set box", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = why
		b, err := findBox(tx, c, in.Box)
		if err != nil {
			return err
		}
		addr = b.Address
		was := b
		if err := s.mayChangeFacts(c, b, q); err != nil {
			return err
		}
		if q.Name != nil {
			b.Name = *q.Name
		}
		if q.Labels != nil {
			b.Labels = *q.Labels
		}
		if q.Groups != nil {
			if c.group != "" && !slices.Equal(*q.Groups, b.Groups) {
				return forbidden("this token is for the boxes of the group %s alone, so it cannot change in which groups a box is", c.group)
			}
			b.Groups = *q.Groups
		}
		if q.Power != "" || q.Keep != "" || q.Peers != "" {
			if err := s.setBoxSettings(c, &b, q); err != nil {
				return err
			}
		}
		if q.Health != nil {
			if *q.Health == string(ledger.Retired) && b.Health != ledger.Retired {
				if err := noOpenJob(tx, b); err != nil { // it could be armed
					return err
				}
			}
			b.Health, b.Reason = ledger.Health(*q.Health), ""
		}
		if q.HealthReason != nil {
			b.Reason = *q.HealthReason
		}
		e.On = addr.String()
		if err := tx.PutBox(b); err != nil || q.Groups == nil {
			return err
		}
		return s.mayChangeGroups(tx, c, was, b)
	})
	if err == nil && q.Disks != nil {
		err = s.setDisks(addr, *q.Disks)
	}
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, addr.String()))
}

// mayChangeGroups refuses to let somebody who is no admin change by the groups of a box what only an admin may set: which power
// command it has, and which of its backups are kept.
func (s *Server) mayChangeGroups(tx *ledger.Tx, c *caller, was, is ledger.Box) error {
	if c.may(ledger.Admin) {
		return nil
	}
	groups, err := tx.Groups()
	if err != nil {
		return err
	}
	before, after := setting.For(was, groups, s.cfg.Site), setting.For(is, groups, s.cfg.Site)
	if before.Power == after.Power && before.Keep == after.Keep {
		return nil
	}
	return forbidden("only an admin may change the groups of a box by which it gets another power command, or other backups of it are kept; "+
		"%s has the role %s", c.name, c.role)
}

// setBoxSettings changes the settings of a box.
func (s *Server) setBoxSettings(c *caller, b *ledger.Box, q SetBox) error {
	if !c.may(ledger.Admin) {
		return forbidden("only an admin may say which power command a box has, which backups are kept, and whether it has peers; "+
			"%s has the role %s", c.name, c.role)
	}
	set, err := setting.OfBox(*b)
	if err != nil && (q.Power == "" || q.Keep == "" || q.Peers == "") { // the others would be lost
		return problem.Refusef("%w", err)
	}
	if err := s.setSettings(&set, q.Power, q.Keep, q.Peers); err != nil {
		return err
	}
	b.Settings, err = set.JSON()
	return err
}

// check refuses what cannot be, and says in words what is to be changed.
func (q SetBox) check() (said []string, err error) {
	say := func(what, value string) { said = append(said, what+" "+value) }
	if q.Name != nil {
		say("name", *q.Name)
	}
	if q.Labels != nil {
		say("labels", strings.Join(*q.Labels, ","))
	}
	if q.Groups != nil {
		say("groups", strings.Join(*q.Groups, ","))
	}
	if q.Health != nil {
		reason := ""
		if q.HealthReason != nil {
			reason = *q.HealthReason
		}
		if reason == "" && *q.Health != string(ledger.Good) {
			return nil, problem.Wrongf("say why the box is %s, in healthReason", *q.Health)
		}
		say("health", strings.TrimSpace(*q.Health+" "+reason))
	} else if q.HealthReason != nil {
		return nil, problem.Wrongf("healthReason comes together with health")
	}
	if q.Power != "" {
		say("power", q.Power)
	}
	if q.Keep != "" {
		say("keep", q.Keep)
	}
	if q.Peers != "" {
		say("peers", q.Peers)
	}
	if q.Disks != nil {
		if strings.TrimSpace(*q.Disks) != "" {
			if _, err := match.ParseList([]byte(*q.Disks)); err != nil {
				return nil, problem.Wrongf("disks: %w", err)
			}
		}
		say("disks", strings.Join(strings.Fields(*q.Disks), " "))
	}
	if len(said) == 0 {
		return nil, problem.Wrongf("say what is to be changed")
	}
	return said, nil
}

// setDisks writes the list of the disks that are used, or removes it.
func (s *Server) setDisks(addr box.Addr, list string) error {
	if s.cfg.Area == nil {
		return problem.Refusef("this server keeps no files of boxes")
	}
	if strings.TrimSpace(list) == "" {
		folder := s.cfg.Area.Look(addr)
		if err := folder.Own(); err != nil {
			return err
		}
		return durable.Remove(durable.OS{}, folder.Path(box.DisksFile))
	}
	folder, err := s.cfg.Area.Box(addr)
	if err != nil {
		return err
	}
	return folder.WriteFile(box.DisksFile, []byte(list))
}

// acceptBox forgets what tells the machine, so that the next one that comes from the
// address is taken for the box.
func (s *Server) acceptBox(ctx context.Context, in *struct {
	BoxPath
	Body AcceptBox
}) (*body[Box], error) {
	q := in.Body
	var addr box.Addr
	err := s.change(ctx, "accept machine", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = because(strings.Join(q.MACs, ", "), q.Why)
		b, err := findBox(tx, c, in.Box)
		if err != nil {
			return err
		}
		if s.cfg.Addresses && len(q.MACs) == 0 {
			// Without a card it would get another address at its next start, and no boot file.
			return problem.Wrongf("this server gives boxes their addresses by their network cards, so it has to know with which card %s starts "+
				"now; name that card (`testbox box accept %s --mac MAC`). `testbox boxes --new` lists machines with a new one", b.Address, b.Address)
		}
		addr, b.MACs, b.UUID = b.Address, q.MACs, ""
		if err := s.checkCards(tx, c, b); err != nil {
			return err
		}
		e.On = addr.String()
		return tx.PutBox(b)
	})
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, addr.String()))
}

// holdBox reserves a box. Only an admin may take it from somebody else, or reserve it
// for somebody else.
func (s *Server) holdBox(ctx context.Context, in *struct {
	BoxPath
	Body Holder
}) (*body[Box], error) {
	q := in.Body
	var addr box.Addr
	switch {
	case q.For > 0 && !q.Expires.IsZero():
		return nil, problem.Wrongf("give either expires or for, and not both")
	case q.For > 0:
		q.Expires = s.cfg.Now().Add(time.Duration(q.For) * time.Second).UTC().Truncate(time.Second)
	}
	if !q.Expires.IsZero() && !q.Expires.After(s.cfg.Now()) {
		return nil, problem.Wrongf("%s is in the past; give the time at which the box is free again", q.Expires.UTC().Format(time.RFC3339))
	}
	err := s.change(ctx, "hold box", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = q.Reason
		b, err := findBox(tx, c, in.Box)
		if err != nil {
			return err
		}
		if q.Name == "" {
			q.Name = c.name
		}
		by := s.heldBy(b)
		if err := s.mayTake(c, b); err != nil {
			return err
		}
		if by != "" && by != c.name && !c.may(ledger.Admin) {
			return forbidden("your run %s has the box %s%s; `testbox box unhold` takes it from the run", by, b.Address, holdText(b.Holder))
		}
		if q.Name != c.name && (!c.may(ledger.Admin) || c.run != "") {
			return forbidden("only an admin may reserve a box for somebody else; you are %s", c.name)
		}
		if by != "" && by != q.Name {
			e.Why = because("it was held by "+by, e.Why)
		}
		e.Why = because("for "+q.Name, e.Why)
		addr, b.Holder = b.Address, ledger.Holder{Name: q.Name, Reason: q.Reason, Expires: q.Expires}
		e.On = addr.String()
		return tx.PutBox(b)
	})
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, addr.String()))
}

// mayTake refuses what only the holder of a box or an admin may do. A run takes nothing from
// anybody, since no person has decided that.
func (s *Server) mayTake(c *caller, b ledger.Box) error {
	by := s.heldBy(b)
	switch {
	case by == "", c.owns(by), c.may(ledger.Admin) && c.run == "":
	case c.run != "":
		return forbidden("%s has reserved the box %s%s, and a run takes no box from anybody; you are %s",
			by, b.Address, holdText(b.Holder), c.name)
	default:
		return forbidden("%s has reserved the box %s%s; only %s or an admin may change that", by, b.Address, holdText(b.Holder), by)
	}
	return nil
}

// holdText says until when a box is reserved, and why.
func holdText(h ledger.Holder) string {
	text := ""
	if !h.Expires.IsZero() {
		text += " until " + h.Expires.UTC().Format(time.RFC3339)
	}
	if h.Reason != "" {
		text += " (" + h.Reason + ")"
	}
	return text
}

func (s *Server) unholdBox(ctx context.Context, in *struct {
	BoxPath
	WhyInput
}) (*body[Box], error) {
	var addr box.Addr
	err := s.change(ctx, "unhold box", func(tx *ledger.Tx, c *caller, e *ledger.Entry) error {
		e.Why = in.Why
		b, err := findBox(tx, c, in.Box)
		if err != nil {
			return err
		}
		if err := s.mayTake(c, b); err != nil {
			return err
		}
		if addr, e.On = b.Address, b.Address.String(); b.Holder.Name != "" {
			e.Why = because("it was held by "+b.Holder.Name, in.Why)
		}
		b.Holder = ledger.Holder{}
		return tx.PutBox(b)
	})
	if err != nil {
		return nil, err
	}
	return answer(s.box(ctx, addr.String()))
}
