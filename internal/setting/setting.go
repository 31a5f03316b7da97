// Package setting has what admins set for single boxes and for groups of boxes, and says what
// holds for a box. The ledger keeps settings as JSON and does not look at them.
//
// What is set for the box itself goes first. Then come its groups, and then the configuration of the
// server. Settings that cannot be read lead to what does no harm: no power command is run, no
// backup is deleted, and a group is closed.
package setting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// None is the power command of a box that has none. As a name of a power command it is refused,
// and so is Default.
const None = "none"

// Default is what an admin writes to take a setting back. It is never stored.
const Default = "default"

// On and Off are what may be set of peers.
const (
	On  = "on"
	Off = "off"
)

// CheckPeers refuses what cannot be set of peers.
func CheckPeers(s string) error {
	if s != On && s != Off {
		return problem.Wrongf("%.40q does not say whether a box gets chunks of images from other boxes; write %s or %s", s, On, Off)
	}
	return nil
}

// What settings may be at most.
const (
	MaxMost = 100_000
	MaxKeep = 100_000
	MaxName = 64 // bytes of the name of a power command
)

// Settings are what is set for a box or a group. The zero value sets nothing.
type Settings struct {
	Most  *int   `json:"most,omitempty"`  // how many boxes of the group may be at work at once; not of a box
	Power string `json:"power,omitempty"` // name of a power command, or None
	Keep  Keep   `json:"keep,omitzero"`
	Peers string `json:"peers,omitempty"` // On or Off: whether a box gets chunks of images from other boxes, and gives them
}

// Keep says how many backups of a box are kept: the newest ones, and the newest of so many days, weeks
// and months. The zero value says nothing.
type Keep struct {
	All                          bool
	Last, Daily, Weekly, Monthly int
}

type number struct {
	name string
	n    *int
}

// numbers are the numbers of a Keep, by their names.
func (k *Keep) numbers() []number {
	return []number{{"last", &k.Last}, {"daily", &k.Daily}, {"weekly", &k.Weekly}, {"monthly", &k.Monthly}}
}

// ParseKeep reads "all", or numbers like "last=3,daily=7".
func ParseKeep(s string) (k Keep, err error) {
	if s == "all" {
		return Keep{All: true}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		known := k.numbers()
		i := slices.IndexFunc(known, func(v number) bool { return v.name == name })
		if i < 0 {
			return Keep{}, problem.Wrongf("%.80q does not say which backups are kept; "+
				"write all, or numbers like last=3,daily=7,weekly=4,monthly=6", s)
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n < 1 || n > MaxKeep {
			return Keep{}, problem.Wrongf("%.40q is no number of backups to keep; write a number from 1 to %d, as in %s=3", part, MaxKeep, name)
		}
		if *known[i].n > 0 {
			return Keep{}, problem.Wrongf("%.80q has %s twice", s, name)
		}
		*known[i].n = int(n)
	}
	return k, nil
}

// String is what ParseKeep reads, and "" if k says nothing.
func (k Keep) String() string {
	if k.All {
		return "all"
	}
	var parts []string
	for _, v := range k.numbers() {
		if *v.n > 0 {
			parts = append(parts, fmt.Sprintf("%s=%d", v.name, *v.n))
		}
	}
	return strings.Join(parts, ",")
}

// MarshalText implements encoding.TextMarshaler.
func (k Keep) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Keep) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKeep(string(b))
	return err
}

// with keeps what one of two keeps.
func (k Keep) with(other Keep) Keep {
	if k.All || other.All {
		return Keep{All: true}
	}
	mine, others := k.numbers(), other.numbers()
	for i := range mine {
		*mine[i].n = max(*mine[i].n, *others[i].n)
	}
	return k
}

// CheckName refuses what cannot be the name of a power command.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > MaxName || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }):
		return problem.Wrongf("%.80q cannot be the name of a power command; use at most %d characters without blanks", name, MaxName)
	case name == None || name == Default:
		return problem.Wrongf("a power command cannot be called %q, since that word has a meaning of its own; choose another name", name)
	}
	return nil
}

// Parse reads settings strictly, as the ledger has them.
func Parse(b json.RawMessage) (s Settings, err error) {
	if len(b) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Settings{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return Settings{}, errors.New("something follows their end")
	}
	if s.Most != nil && (*s.Most < 0 || *s.Most > MaxMost) {
		return Settings{}, fmt.Errorf("most is %d, and must be a number from 0 to %d", *s.Most, MaxMost)
	}
	if s.Power != "" && s.Power != None {
		if err := CheckName(s.Power); err != nil {
			return Settings{}, err
		}
	}
	if s.Peers != "" {
		if err := CheckPeers(s.Peers); err != nil {
			return Settings{}, err
		}
	}
	return s, nil
}

// OfBox reads the settings of a box.
func OfBox(b ledger.Box) (Settings, error) {
	s, err := Parse(b.Settings)
	if err == nil && s.Most != nil {
		err = errors.New("only a group has most")
	}
	if err != nil {
		return Settings{}, fmt.Errorf("the settings of the box %s cannot be read: %w; "+
			"`testbox box set` with --power, --keep and --peers makes them anew", b.Address, err)
	}
	return s, nil
}

// OfGroup reads the settings of a group.
func OfGroup(g ledger.Group) (Settings, error) {
	s, err := Parse(g.Settings)
	if err != nil {
		return Settings{}, fmt.Errorf("the settings of the group %s cannot be read: %w; `testbox group set` makes them anew", g.Name, err)
	}
	return s, nil
}

// JSON is what Parse reads.
func (s Settings) JSON() (json.RawMessage, error) { return json.Marshal(s) }

// Places says how many boxes of a group may be at work at once, if that is limited.
func Places(g ledger.Group) (most int, limited bool) {
	s, err := OfGroup(g)
	if err != nil {
		return 0, true // nobody knows, so none begins
	}
	if s.Most == nil {
		return 0, false
	}
	return *s.Most, true
}

// Site is what holds for boxes of which neither they themselves nor their groups say anything.
type Site struct {
	Power  string   // name of a power command; "" is none
	Keep   Keep     // the zero value is all
	Powers []string // all power commands that there are
	// NoPeers says that boxes get chunks of images from the server alone, and PeersOff in which networks that is so.
	NoPeers  bool
	PeersOff []netip.Prefix
}

// Effective is what holds for a box.
type Effective struct {
	Power    string // name of a power command that there is; "" is none
	PowerWhy string // for people: who says so, or why there is none; "" if nothing is set
	Keep     Keep   // never the zero value
	KeepWhy  string // for people; "" if nothing is set
	Peers    bool
	PeersWhy string // for people; "" if nothing is set
}

// For says what holds for a box. all are all groups.
//
// Groups that say different things of backups keep what one of them keeps. If they name different
// power commands, none of them is run, since the wrong one could switch another machine. If one of them
// says that its boxes have no peers, a box has none.
func For(b ledger.Box, all []ledger.Group, site Site) Effective {
	own, err := OfBox(b)
	if err != nil {
		return Effective{PowerWhy: err.Error(), Keep: Keep{All: true}, KeepWhy: err.Error(), PeersWhy: err.Error()}
	}
	var e Effective
	groups, err := groupsOf(b, all)
	e.Power, e.PowerWhy = own.power(groups, err, site)
	e.Keep, e.KeepWhy = own.keep(groups, err, site)
	e.Peers, e.PeersWhy = own.peers(b, groups, err, site)
	if e.Power == None {
		e.Power = ""
	}
	if e.Power != "" && !slices.Contains(site.Powers, e.Power) {
		e.Power, e.PowerWhy = "", fmt.Sprintf("there is no power command %s in the configuration, which is set %s", e.Power, e.PowerWhy)
	}
	return e
}

// named are the settings of a group.
type named struct {
	name string
	Settings
}

// groupsOf reads the settings of those groups that a box is in.
func groupsOf(b ledger.Box, all []ledger.Group) (mine []named, err error) {
	for _, name := range b.Groups {
		i := slices.IndexFunc(all, func(g ledger.Group) bool { return g.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no group %s", name)
		}
		s, err := OfGroup(all[i])
		if err != nil {
			return nil, err
		}
		mine = append(mine, named{name, s})
	}
	return mine, nil
}

const (
	byBox  = "for the box"
	bySite = "in the configuration"
)

func byGroups(names []string) string {
	if len(names) == 1 {
		return "for the group " + names[0]
	}
	return "for the groups " + strings.Join(names, " and ")
}

// power says which power command a box has, and why.
func (s Settings) power(groups []named, unread error, site Site) (name, why string) {
	if s.Power != "" {
		return s.Power, byBox
	}
	if unread != nil {
		return None, unread.Error()
	}
	var says []string
	for _, g := range groups {
		switch {
		case g.Power == "":
			continue
		case name != "" && name != g.Power:
			return None, fmt.Sprintf("the group %s says %s, and the group %s says %s; say by `testbox box set --power` which it is",
				says[0], name, g.name, g.Power)
		}
		name, says = g.Power, append(says, g.name)
	}
	switch {
	case name != "":
		return name, byGroups(says)
	case site.Power != "":
		return site.Power, bySite
	}
	return None, ""
}

// keep says which backups of a box are kept, and why.
func (s Settings) keep(groups []named, unread error, site Site) (k Keep, why string) {
	if s.Keep != (Keep{}) {
		return s.Keep, byBox
	}
	if unread != nil {
		return Keep{All: true}, unread.Error()
	}
	var says []string
	for _, g := range groups {
		if g.Keep != (Keep{}) {
			k, says = k.with(g.Keep), append(says, g.name)
		}
	}
	switch {
	case len(says) > 0:
		return k, byGroups(says)
	case site.Keep != (Keep{}):
		return site.Keep, bySite
	}
	return Keep{All: true}, ""
}

// peers says whether a box gets chunks of images from other boxes, and why.
func (s Settings) peers(b ledger.Box, groups []named, unread error, site Site) (on bool, why string) {
	if s.Peers != "" {
		return s.Peers == On, byBox
	}
	if unread != nil {
		return false, unread.Error()
	}
	says := map[string][]string{}
	for _, g := range groups {
		says[g.Peers] = append(says[g.Peers], g.name)
	}
	switch in := slices.IndexFunc(site.PeersOff, func(n netip.Prefix) bool { return n.Contains(b.Address.IP()) }); {
	case len(says[Off]) > 0:
		return false, byGroups(says[Off])
	case len(says[On]) > 0:
		return true, byGroups(says[On])
	case in >= 0:
		return false, fmt.Sprintf("for the network %s in the configuration", site.PeersOff[in])
	case site.NoPeers:
		return false, bySite
	}
	return true, ""
}
