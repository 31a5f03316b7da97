package ledger

import (
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// What a text may be at most, in bytes, and how many of a thing a box may have.
const (
	MaxName     = 100       // names of users, groups, tokens and schedules, and labels
	MaxWho      = 200       // who asked for a job or holds a box: a name, with the run that asks
	MaxID       = 64        // ids of jobs
	MaxWord     = 64        // states and UUIDs
	MaxKey      = 200       // idempotency keys
	MaxText     = 1000      // reasons, and whatever else people write
	MaxSettings = 64 << 10  // settings, as JSON
	MaxSight    = 16 << 10  // what was seen of a box or a machine, as JSON
	MaxDocument = 256 << 10 // a job's document, as JSON
	MaxMarks    = 64        // MACs, labels and groups of a box, each
)

// checkText refuses what is too long, is no UTF-8, or has control characters,
// which a terminal or a log would obey.
func checkText(what, s string, limit int) error {
	switch {
	case len(s) > limit:
		return problem.Wrongf("%s has %d bytes, and may have at most %d", what, len(s), limit)
	case !utf8.ValidString(s):
		return problem.Wrongf("%s is not text in UTF-8: %.80q", what, s)
	case strings.ContainsFunc(s, unprintable):
		return problem.Wrongf("%s has a character that cannot be printed: %.80q", what, s)
	}
	return nil
}

// unprintable reports whether a character does something else than to be seen.
// That includes those that turn the direction of a text around.
func unprintable(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

// checkName refuses what checkText does, and what could be mistaken for another
// name.
func checkName(what, s string, limit int) error {
	if s == "" {
		return problem.Wrongf("%s is missing", what)
	}
	if strings.TrimSpace(s) != s {
		return problem.Wrongf("%s begins or ends with a space: %.80q", what, s)
	}
	return checkText(what, s, limit)
}

// CheckGroup refuses what cannot be the name of a group.
func CheckGroup(s string) error { return checkName("the name of a group", s, MaxName) }

var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkID refuses what cannot be a part of a path or of a page's beginning.
func checkID(what, s string) error {
	if len(s) > MaxID || !idForm.MatchString(s) {
		return problem.Wrongf("%s has 1 to %d letters, digits, '.', '_' and '-', and begins with a letter or digit; %.80q does not",
			what, MaxID, s)
	}
	return nil
}

func checkHost(s string) error {
	if s == "" {
		return nil
	}
	if !box.ValidHost(s) {
		return problem.Wrongf("%.80q cannot be the name of a box, which has letters, digits, '-', '_' and '.'", s)
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return problem.Wrongf("%s cannot be the name of a box, because it is an address", s)
	}
	return nil
}

// checkJSON refuses what is no JSON. If s is empty, it becomes an empty object.
func checkJSON(what string, s []byte, limit int) ([]byte, error) {
	switch {
	case len(s) == 0:
		return []byte("{}"), nil
	case len(s) > limit:
		return nil, problem.Wrongf("%s has %d bytes, and may have at most %d", what, len(s), limit)
	case !utf8.Valid(s) || !json.Valid(s):
		return nil, problem.Wrongf("%s is no JSON in UTF-8", what)
	}
	return s, nil
}

// canonicalMAC gives the one form in which a MAC is stored, as 52:54:00:12:34:56.
func canonicalMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return "", problem.Wrongf("%.80q is no MAC address", s)
	}
	return hw.String(), nil
}

// canonicalUUID gives the one form in which a UUID is stored, which has lower-case
// digits and hyphens. "" is no UUID.
func canonicalUUID(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	digits := strings.ToLower(strings.ReplaceAll(s, "-", ""))
	if b, err := hex.DecodeString(digits); err != nil || len(b) != 16 {
		return "", problem.Wrongf("%.80q is no UUID", s)
	}
	return strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-"), nil
}

// marks gives a list sorted and without repetitions, each in its one form.
func marks(what string, list []string, canonical func(string) (string, error)) ([]string, error) {
	var all []string
	for _, s := range list {
		c, err := canonical(s)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > MaxMarks {
		return nil, problem.Wrongf("a box may have at most %d %s, and not %d", MaxMarks, what, len(all))
	}
	return all, nil
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
