package server

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sight"
)

// Enrol is a rule by which machines that nobody knows become boxes. A machine must be
// in the subnet and have the MAC, as far as they are given. It is never armed by that.
type Enrol struct {
	Subnet string   `toml:"subnet"` // such as "10.40.41.0/24"
	MAC    string   `toml:"mac"`    // the beginning of one, such as "52:54:00"
	Groups []string `toml:"groups"` // that the box is put into
	Most   int      `toml:"most"`   // how many boxes each of these groups may have; 0 is mostEnrolled
}

const (
	maxRules     = 16
	mostEnrolled = 250
)

func (r Enrol) most() int {
	if r.Most == 0 {
		return mostEnrolled
	}
	return r.Most
}

// String names a rule by what it wants.
func (r Enrol) String() string {
	return strings.TrimPrefix(strings.TrimSuffix(r.Subnet+" and "+r.MAC, " and "), " and ")
}

var macStart = regexp.MustCompile(`(?i)^[0-9a-f]{2}(:[0-9a-f]{2}){0,5}$`)

func (r Enrol) check() error {
	subnet, err := netip.ParsePrefix(r.Subnet)
	switch {
	case r.Subnet == "" && r.MAC == "":
		return errors.New("a rule of enrol has neither subnet nor mac, so it would take every machine")
	case r.Subnet != "" && (err != nil || !subnet.Addr().Is4() || subnet != subnet.Masked()):
		return fmt.Errorf("%.40q in enrol is no subnet like 10.40.41.0/24", r.Subnet)
	case r.MAC != "" && !macStart.MatchString(r.MAC):
		return fmt.Errorf("%.40q in enrol is no beginning of a MAC like 52:54:00", r.MAC)
	case len(r.Groups) == 0 || len(r.Groups) > ledger.MaxMarks:
		return fmt.Errorf("the rule of enrol for %s has no groups, or too many; name those that its boxes are put into", r)
	case r.Most < 0 || r.Most > ledger.MaxPage:
		return fmt.Errorf("most in the rule of enrol for %s is not a number from 1 to %d", r, ledger.MaxPage)
	}
	for _, g := range r.Groups {
		if err := ledger.CheckGroup(g); err != nil {
			return fmt.Errorf("the rule of enrol for %s: %w", r, err)
		}
	}
	return nil
}

// matches reports whether a rule is for a machine.
func (r Enrol) matches(id sight.Identity) bool {
	if subnet, err := netip.ParsePrefix(r.Subnet); err == nil && !subnet.Contains(id.Addr) {
		return false
	}
	return r.MAC == "" || strings.HasPrefix(id.MAC+":", strings.ToLower(r.MAC)+":")
}
