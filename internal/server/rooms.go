package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/wire"
)

// Room says how boxes that restore the same backup at the same time get its chunks from each other.
type Room struct {
	Peers  bool     `toml:"peers"`  // whether they do, if nothing else is set for a box, its groups or its network
	Off    []string `toml:"off"`    // networks in which they do not
	Upload int64    `toml:"upload"` // bytes that a box may send to others in a second; 0 is any number
	Zones  []string `toml:"zones"`  // networks whose boxes are near to each other, as they are at one switch
	// Unit is how many bytes before compression boxes fetch at once. Only tests, whose disks are small and whose network is
	// slow, need another value than that of DefaultConfig.
	Unit int `toml:"unit"`
}

const (
	// defaultUnit is about 4 MB as the store has it, which takes a thirtieth of a second at 1 Gbit/s.
	defaultUnit = 8 << 20
	minUnit     = 64 << 10
	minUpload   = 1 << 20 // with less, a unit would not come in the time after which others give it up
	maxNetworks = 1000
	// switchLabel begins a label that names the switch of a box.
	switchLabel = "switch="
)

func (r *Room) tidy() {
	for _, l := range []*[]string{&r.Off, &r.Zones} {
		if len(*l) == 0 {
			*l = nil
		}
	}
}

func (r *Room) check() error {
	for key, list := range map[string][]string{"off": r.Off, "zones": r.Zones} {
		if _, err := networks(list); err != nil {
			return fmt.Errorf("room.%s: %w", key, err)
		}
	}
	switch {
	case r.Upload != 0 && r.Upload < minUpload:
		return fmt.Errorf("room.upload is not 0, and not a number of bytes a second from %d on", minUpload)
	case r.Unit < minUnit || r.Unit > wire.MaxRoomUnit:
		return fmt.Errorf("room.unit is not a number of bytes from %d to %d", minUnit, wire.MaxRoomUnit)
	}
	return nil
}

// networks parses IPv4 networks.
func networks(list []string) (all []netip.Prefix, err error) {
	if len(list) > maxNetworks {
		return nil, fmt.Errorf("there are %d networks, and may be at most %d", len(list), maxNetworks)
	}
	for _, s := range list {
		n, err := netip.ParsePrefix(s)
		if err != nil || !n.Addr().Is4() || n != n.Masked() {
			return nil, fmt.Errorf("the network %.40q is none like 10.42.1.0/24", s)
		}
		all = append(all, n)
	}
	return all, nil
}

// text writes the part of the configuration file.
func (r *Room) text(b *bytes.Buffer, line func(key string, v any, help string)) {
	b.WriteString("[room]\n")
	line("peers", r.Peers, "Whether boxes that restore the same backup at the same time get its chunks from each other too, so that a room\n"+
		"# takes little longer than one box. Groups and boxes may say otherwise.")
	line("off", list(r.Off), "Networks in which they do not, like [\"10.40.42.0/24\"].")
	line("upload", r.Upload, "How many bytes in a second a box may send to others; 0 for any number.")
	line("zones", list(r.Zones), "Networks whose boxes are at one switch, so that they take from each other first. Other boxes are near in\n"+
		"# their /24, and those with the same label switch=NAME always.")
	if r.Unit != defaultUnit {
		line("unit", r.Unit, "For tests: how many bytes before compression boxes fetch at once.")
	}
}

// list is a list that is written as [] if it has no entries.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// zoneOf says where in the network a box is.
func zoneOf(b ledger.Box, zones []netip.Prefix) string {
	if i := slices.IndexFunc(b.Labels, func(l string) bool { return strings.HasPrefix(l, switchLabel) }); i >= 0 {
		return b.Labels[i]
	}
	at := b.Address.IP()
	if i := slices.IndexFunc(zones, func(n netip.Prefix) bool { return n.Contains(at) }); i >= 0 {
		return zones[i].String()
	}
	n, err := at.Prefix(24)
	if err != nil {
		return ""
	}
	return n.String()
}

// roomTime bounds how long it may take to read what is set for a box.
const roomTime = 5 * time.Second

// roomOf implements boxapi.Config.Room. If it is not known what holds for a box, it restores from the server alone.
func (s *server) roomOf(token string) boxapi.RoomSetting {
	addr, action, at := s.dispatch.BoxOf(token)
	if !at || action != box.Restore {
		return boxapi.RoomSetting{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), roomTime)
	defer cancel()
	set, err := s.Config.roomSetting(ctx, s.ledger, addr)
	if err != nil {
		s.Log.Error("a box restores from the server alone, since it cannot be read what is set for it", "box", addr.String(), "error", err)
	}
	return set
}

func (c *Config) roomSetting(ctx context.Context, book *ledger.Ledger, addr box.Addr) (set boxapi.RoomSetting, err error) {
	var b ledger.Box
	var groups []ledger.Group
	err = book.View(ctx, func(tx *ledger.Tx) (err error) {
		if b, err = tx.Box(addr); errors.Is(err, ledger.ErrNotFound) {
			b, err = ledger.Box{Address: addr}, nil // it was deleted while it is at work
		}
		if err == nil {
			groups, err = tx.Groups()
		}
		return err
	})
	if err != nil || !setting.For(b, groups, c.Site()).Peers {
		return set, err
	}
	zones, err := networks(c.Room.Zones)
	return boxapi.RoomSetting{On: true, Unit: c.Room.Unit, Upload: c.Room.Upload, Zone: zoneOf(b, zones)}, err
}
