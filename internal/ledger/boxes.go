package ledger

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Health says what a box is fit for.
type Health string

// The values of Health.
const (
	Good        Health = "good"
	Suspect     Health = "suspect"
	Bad         Health = "bad"
	Maintenance Health = "maintenance"
	Retired     Health = "retired"
)

// Healths has all values of Health.
var Healths = []Health{Good, Suspect, Bad, Maintenance, Retired}

// Holder has a box for itself. It is nobody if its name is "".
type Holder struct {
	Name    string
	Reason  string
	Expires time.Time // zero is never
}

// Box is what is known of a box. Lists are sorted.
type Box struct {
	Address   box.Addr // the key
	Name      string   // no other box has it, also not in other letters; "" is none
	MACs      []string
	UUID      string
	Labels    []string
	Groups    []string // each must exist
	Health    Health
	Reason    string // of the health
	Holder    Holder
	Settings  json.RawMessage // of the server; the ledger does not look at them
	FirstSeen time.Time
	LastSeen  time.Time
	Sight     json.RawMessage // what was seen of it at its starts; the ledger does not look at it
}

// checked gives a box as it is stored.
func (b Box) checked() (Box, error) {
	label := func(s string) (string, error) { return s, checkName("a label", s, MaxName) }
	group := func(s string) (string, error) { return s, checkName("the name of a group", s, MaxName) }
	var errs [6]error
	b.MACs, errs[0] = marks("MACs", b.MACs, canonicalMAC)
	b.Labels, errs[1] = marks("labels", b.Labels, label)
	b.Groups, errs[2] = marks("groups", b.Groups, group)
	b.UUID, errs[3] = canonicalUUID(b.UUID)
	b.Settings, errs[4] = checkJSON("the settings of a box", b.Settings, MaxSettings)
	b.Sight, errs[5] = checkJSON("what was seen of a box", b.Sight, MaxSight)
	if err := first(errs[:]...); err != nil {
		return b, err
	}
	if !slices.Contains(Healths, b.Health) {
		return b, problem.Wrongf("the health of a box is one of %q, and not %.80q", Healths, b.Health)
	}
	if b.Holder.Name == "" && b.Holder != (Holder{}) {
		return b, problem.Wrongf("the name of the holder is missing")
	}
	return b, first(checkAddress(b.Address), checkHost(b.Name), checkText("the reason of the health", b.Reason, MaxText),
		checkText("the holder's name", b.Holder.Name, MaxWho), checkText("the holder's reason", b.Holder.Reason, MaxText),
		checkTime("the end of the hold", b.Holder.Expires), checkTime("the first sight", b.FirstSeen), checkTime("the last sight", b.LastSeen))
}

const boxColumns = `address, name, uuid, health, health_why, holder, holder_why, holder_until, settings, first_seen, last_seen, sight`

func scanBox(r row) (b Box, err error) {
	return b, r.Scan(address{&b.Address}, &b.Name, &b.UUID, &b.Health, &b.Reason, &b.Holder.Name, &b.Holder.Reason,
		instant{&b.Holder.Expires}, (*[]byte)(&b.Settings), instant{&b.FirstSeen}, instant{&b.LastSeen}, (*[]byte)(&b.Sight))
}

// PutBox stores a box, and replaces what was stored under its address. Its jobs
// are not touched.
func (tx *Tx) PutBox(b Box) error {
	b, err := b.checked()
	if err != nil {
		return err
	}
	key := b.Address.Hex()
	if b.Name != "" {
		var other box.Addr
		scan := func(r row) (struct{}, error) { return struct{}{}, r.Scan(address{&other}) }
		_, taken, err := one(tx, scan, `SELECT address FROM boxes WHERE lower(name) = lower(?) AND name <> '' AND address <> ?`, b.Name, key)
		if err != nil {
			return err
		}
		if taken {
			return exists("the name %s is that of the box %s already", b.Name, other)
		}
	}
	for _, g := range b.Groups {
		if err := tx.groupExists(g); err != nil {
			return err
		}
	}
	_, err = tx.exec(`INSERT INTO boxes (`+boxColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (address) DO UPDATE SET name = excluded.name, uuid = excluded.uuid, health = excluded.health,
		health_why = excluded.health_why, holder = excluded.holder, holder_why = excluded.holder_why,
		holder_until = excluded.holder_until, settings = excluded.settings, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
		sight = excluded.sight`,
		key, b.Name, b.UUID, b.Health, b.Reason, b.Holder.Name, b.Holder.Reason, nanos(b.Holder.Expires),
		string(b.Settings), nanos(b.FirstSeen), nanos(b.LastSeen), string(b.Sight))
	if err != nil {
		return err
	}
	for _, m := range []struct {
		table, column string
		list          []string
	}{{"box_macs", "mac", b.MACs}, {"box_labels", "label", b.Labels}, {"box_groups", "group_name", b.Groups}} {
		if _, err := tx.exec(`DELETE FROM `+m.table+` WHERE address = ?`, key); err != nil {
			return err
		}
		for _, s := range m.list {
			if _, err := tx.exec(`INSERT INTO `+m.table+` (address, `+m.column+`) VALUES (?, ?)`, key, s); err != nil {
				return err
			}
		}
	}
	tx.changedBox(b.Address, &b)
	return nil
}

// SeeBox notes that a box was seen, and how. It never makes the last sight earlier.
func (tx *Tx) SeeBox(a box.Addr, at time.Time, sight json.RawMessage) error {
	sight, err := checkJSON("what was seen of a box", sight, MaxSight)
	if err := first(err, checkAddress(a), checkTime("the last sight", at)); err != nil {
		return err
	}
	n, err := tx.exec(`UPDATE boxes SET last_seen = CASE WHEN last_seen < ? THEN ? ELSE last_seen END, sight = ? WHERE address = ?`,
		nanos(at), nanos(at), string(sight), a.Hex())
	if err == nil && n == 0 {
		err = notFound("there is no box %s", a)
	}
	return err
}

// Box returns the box of an address.
func (tx *Tx) Box(a box.Addr) (Box, error) {
	if err := checkAddress(a); err != nil {
		return Box{}, err
	}
	all, err := tx.boxes(where{terms: []string{"address = ?"}, args: []any{a.Hex()}}, 1)
	if err == nil && len(all) == 0 {
		err = notFound("there is no box %s", a)
	}
	if err != nil {
		return Box{}, err
	}
	return all[0], nil
}

// DeleteBox forgets a box. Its jobs and audit entries stay.
func (tx *Tx) DeleteBox(a box.Addr) error {
	if err := checkAddress(a); err != nil {
		return err
	}
	n, err := tx.exec(`DELETE FROM boxes WHERE address = ?`, a.Hex())
	if err == nil && n == 0 {
		err = notFound("there is no box %s", a)
	}
	if err == nil {
		tx.changedBox(a, nil)
	}
	return err
}

// BoxFilter says which boxes a list has. Each field that is not empty must be met.
type BoxFilter struct {
	Name   string // in any letters
	MAC    string // in any form
	UUID   string
	Label  string
	Group  string
	Health Health
}

// Boxes lists boxes by their addresses. If next is not "", there is another page.
func (tx *Tx) Boxes(f BoxFilter, p Page) (boxes []Box, next string, err error) {
	var w where
	if f.Name != "" {
		w.add(`lower(name) = lower(?) AND name <> ''`, f.Name)
	}
	if f.MAC != "" {
		mac, err := canonicalMAC(f.MAC)
		if err != nil {
			return nil, "", err
		}
		w.add(`address IN (SELECT address FROM box_macs WHERE mac = ?)`, mac)
	}
	if f.UUID != "" {
		uuid, err := canonicalUUID(f.UUID)
		if err != nil {
			return nil, "", err
		}
		w.add(`uuid = ? AND uuid <> ''`, uuid)
	}
	if f.Label != "" {
		w.add(`address IN (SELECT address FROM box_labels WHERE label = ?)`, f.Label)
	}
	if f.Group != "" {
		w.add(`address IN (SELECT address FROM box_groups WHERE group_name = ?)`, f.Group)
	}
	if f.Health != "" {
		w.add(`health = ?`, f.Health)
	}
	if p.After != "" {
		after, err := box.ParseHex(p.After)
		if err != nil {
			return nil, "", wrongAfter(p.After)
		}
		w.add(`address > ?`, after.Hex())
	}
	all, err := tx.boxes(w, p.limit()+1)
	if err != nil {
		return nil, "", err
	}
	boxes, next = cut(all, p, func(b Box) string { return b.Address.Hex() })
	return boxes, next, nil
}

// boxes reads boxes with their lists.
func (tx *Tx) boxes(w where, limit int) ([]Box, error) {
	all, err := many(tx, scanBox, `SELECT `+boxColumns+` FROM boxes`+w.String()+` ORDER BY address LIMIT ?`, append(w.args, limit)...)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	// The lists of all boxes between the first and the last are read at once, also
	// those of boxes that the filter leaves out.
	from, to := all[0].Address.Hex(), all[len(all)-1].Address.Hex()
	type mark struct{ address, text string }
	scan := func(r row) (m mark, err error) { return m, r.Scan(&m.address, &m.text) }
	for _, list := range []struct {
		query string
		of    func(*Box) *[]string
	}{
		{`SELECT address, mac FROM box_macs WHERE address BETWEEN ? AND ? ORDER BY address, mac`, func(b *Box) *[]string { return &b.MACs }},
		{`SELECT address, label FROM box_labels WHERE address BETWEEN ? AND ? ORDER BY address, label`,
			func(b *Box) *[]string { return &b.Labels }},
		{`SELECT address, group_name FROM box_groups WHERE address BETWEEN ? AND ? ORDER BY address, group_name`,
			func(b *Box) *[]string { return &b.Groups }},
	} {
		found, err := many(tx, scan, list.query, from, to)
		if err != nil {
			return nil, err
		}
		for i := range all {
			b := &all[i]
			key := b.Address.Hex()
			for ; len(found) > 0 && found[0].address <= key; found = found[1:] {
				if found[0].address == key { // and not of a box that is left out
					to := list.of(b)
					*to = append(*to, found[0].text)
				}
			}
		}
	}
	return all, nil
}

// BoxNames returns the names of those of these boxes that have one.
func (tx *Tx) BoxNames(boxes []box.Addr) (map[box.Addr]string, error) {
	names := make(map[box.Addr]string, len(boxes))
	scan := func(r row) (struct{}, error) {
		var a box.Addr
		var name string
		err := r.Scan(address{&a}, &name)
		names[a] = name
		return struct{}{}, err
	}
	for some := range slices.Chunk(boxes, manyArgs) {
		args := make([]any, len(some))
		for i, a := range some {
			args[i] = a.Hex()
		}
		if _, err := many(tx, scan, `SELECT address, name FROM boxes WHERE name <> '' AND address IN (?`+strings.Repeat(`, ?`, len(args)-1)+`)`,
			args...); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// manyArgs is how many arguments a query has at most. SQLite and PostgreSQL take more.
const manyArgs = 500

// Group is a group of boxes.
type Group struct {
	Name     string
	Settings json.RawMessage // of the server; the ledger does not look at them
}

// PutGroup stores a group, and replaces the settings of one that exists.
func (tx *Tx) PutGroup(g Group) error {
	settings, err := checkJSON("the settings of a group", g.Settings, MaxSettings)
	if err := first(err, checkName("the name of a group", g.Name, MaxName)); err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO groups (name, settings) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET settings = excluded.settings`, g.Name, string(settings))
	return err
}

func (tx *Tx) groupExists(name string) error {
	found, err := tx.has(`SELECT name FROM groups WHERE name = ?`, name)
	if err == nil && !found {
		err = notFound("there is no group %q", clip(name))
	}
	return err
}

// Groups lists all groups by their names.
func (tx *Tx) Groups() ([]Group, error) {
	scan := func(r row) (g Group, err error) { return g, r.Scan(&g.Name, (*[]byte)(&g.Settings)) }
	return many(tx, scan, `SELECT name, settings FROM groups ORDER BY name`)
}

// DeleteGroup removes a group to which no box belongs and no token is limited.
func (tx *Tx) DeleteGroup(name string) error {
	for what, query := range map[string]string{
		"boxes in it":                   `SELECT address FROM box_groups WHERE group_name = ?`,
		"tokens that are limited to it": `SELECT name FROM tokens WHERE group_name = ?`,
	} {
		found, err := tx.has(query+` LIMIT 1`, name)
		if err != nil {
			return err
		}
		if found {
			return problem.Refusef("the group %q still has %s", clip(name), what)
		}
	}
	n, err := tx.exec(`DELETE FROM groups WHERE name = ?`, name)
	if err == nil && n == 0 {
		err = notFound("there is no group %q", clip(name))
	}
	return err
}

// clip shortens a text from outside for an error.
func clip(s string) string {
	if len(s) > MaxName {
		s = s[:MaxName]
	}
	return strings.ToValidUTF8(s, "?")
}
