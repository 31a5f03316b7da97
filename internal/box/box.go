// Package box has the nouns of a testbox, which are its address, the actions
// that it can do, the arming that asks for one, and the outcome of an action
// with its exit code (outcome.go). It imports nothing of this project.
package box

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// Addr is the IPv4 address by which a testbox is known. The zero Addr is no
// box.
type Addr struct{ ip netip.Addr }

// ParseAddr reads a dotted IPv4 address ("10.40.41.42"). Loopback, unspecified,
// multicast and broadcast addresses are errors, and so are all others that no machine can
// have.
func ParseAddr(s string) (Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() {
		return Addr{}, fmt.Errorf("%q is not an IPv4 address in dotted form", s)
	}
	a := Addr{ip}
	if first := ip.As4()[0]; ip.IsLoopback() || first == 0 || first >= 224 { // no machine has those from 224 on, by RFC 1112
		return Addr{}, fmt.Errorf("%s is not the address of a testbox, since no machine can have it in a network", s)
	}
	return a, nil
}

// ParseHex reads the name of a boot file. It is eight upper-case hexadecimal
// digits, as PXELINUX asks for them ("0A28292A").
func ParseHex(s string) (Addr, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 || s != strings.ToUpper(s) {
		return Addr{}, fmt.Errorf("%q is not an address in hexadecimal form", s)
	}
	return ParseAddr(netip.AddrFrom4([4]byte(b)).String())
}

// String is the dotted form, which names the box's folder. It is "" for the
// zero Addr.
func (a Addr) String() string {
	if !a.ip.IsValid() {
		return ""
	}
	return a.ip.String()
}

// Hex is the upper-case hexadecimal form, which names the box's boot file.
func (a Addr) Hex() string {
	if !a.ip.IsValid() {
		return ""
	}
	b := a.ip.As4()
	return strings.ToUpper(hex.EncodeToString(b[:]))
}

// MarshalText gives the dotted form, and "" for the zero Addr. So an address is
// a text in JSON and in databases.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText gives, and nothing else.
func (a *Addr) UnmarshalText(text []byte) (err error) {
	if *a = (Addr{}); len(text) > 0 {
		*a, err = ParseAddr(string(text))
	}
	return err
}

// IsZero reports whether a is the zero Addr, which is no box.
func (a Addr) IsZero() bool { return !a.ip.IsValid() }

// IP is the address for use with net packages.
func (a Addr) IP() netip.Addr { return a.ip }

// Action is what a box is asked to do.
type Action string

// The actions of share mode.
const (
	Backup      Action = "backup"
	BackupAgain Action = "backup-again"
	Restore     Action = "restore"
	Verify      Action = "verify"
	RefreshInfo Action = "refresh-info"
	Rescue      Action = "rescue"
)

// Actions has all actions, in the order of the help texts.
var Actions = []Action{Backup, BackupAgain, Restore, Verify, RefreshInfo, Rescue}

// ParseAction reads an action's name.
func ParseAction(s string) (Action, error) {
	for _, a := range Actions {
		if s == string(a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("unknown action %q; the actions are %s", s, ActionList())
}

// ActionList returns the actions' names as one text, "backup, backup-again,
// ...".
func ActionList() string {
	names := make([]string, len(Actions))
	for i, a := range Actions {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}

// Arming is the id of one arming, 16 lower-case hexadecimal digits. It is on
// the kernel command line, and in every image and record that follows from it.
type Arming string

// NewArming makes a random id, which no other arming has.
func NewArming() Arming {
	var b [8]byte
	rand.Read(b[:]) // never fails, according to crypto/rand
	return Arming(hex.EncodeToString(b[:]))
}

// ParseArming reads an arming id.
func ParseArming(s string) (Arming, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 || s != strings.ToLower(s) {
		return "", fmt.Errorf("%q is not an arming id (16 lower-case hexadecimal digits)", s)
	}
	return Arming(s), nil
}

// ValidHost reports whether s can be a host name and so a file name. It allows
// at most 253 letters, digits, '-', '_' and '.', and neither '.' nor '-' at the
// start.
func ValidHost(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
