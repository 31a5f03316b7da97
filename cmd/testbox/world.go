package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
)

// world is what the commands ask of the machine they run on. Tests put other
// functions and paths into its fields.
type world struct {
	now         func() time.Time
	lookupAddrs func(ctx context.Context, host string) ([]netip.Addr, error)       // IPv4 addresses of a name
	lookupNames func(ctx context.Context, addr string) (names []string, err error) // names of an address
	executable  func() (string, error)                                             // path of this program
	configDirs  []string                                                           // where pxelinux.cfg usually is, best first
	poll        time.Duration                                                      // how long to wait between two looks at a box's log
	neighbours  string                                                             // the kernel's table of IPv4 neighbours
	loaders     string                                                             // where Debian's packages put PXELINUX/ and syslinux/
}

func realWorld() world {
	return world{
		now: time.Now,
		lookupAddrs: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
		},
		lookupNames: net.DefaultResolver.LookupAddr,
		executable:  os.Executable,
		configDirs:  []string{"/mnt/testbox-tftp/pxelinux.cfg", "/export/testbox-tftp/pxelinux.cfg"},
		poll:        2 * time.Second,
		neighbours:  "/proc/net/arp",
		loaders:     "/usr/lib",
	}
}

// Limits of name lookups. An address is needed; a name is a courtesy.
const (
	addrTimeout = 10 * time.Second
	nameTimeout = 2 * time.Second
)

// target is a box as the admin named it and what that became.
type target struct {
	given string
	addr  box.Addr
	host  string // the box's name; "" is unknown
}

func (t target) String() string {
	switch {
	case t.given != t.addr.String():
		return t.given + " (" + t.addr.String() + ")"
	case t.host != "":
		return t.addr.String() + " (" + t.host + ")"
	}
	return t.addr.String()
}

// resolve finds the address of a box that is given by address or host name.
func (w world) resolve(ctx context.Context, given string) (target, error) {
	t := target{given: given}
	var err error
	if _, perr := netip.ParseAddr(given); perr == nil {
		t.addr, err = box.ParseAddr(given)
		if err != nil {
			return t, wrong("%w", err)
		}
		return t, nil
	}
	if !box.ValidHost(given) || looksNumeric(given) {
		return t, wrong("%q is neither an IPv4 address nor a host name", given)
	}
	ctx, cancel := context.WithTimeout(ctx, addrTimeout)
	defer cancel()
	found, err := w.lookupAddrs(ctx, given)
	// A name that stands in /etc/hosts twice, or there and in a name server,
	// has an address more than once.
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	switch {
	case err != nil:
		return t, wrong("%s does not resolve to an IPv4 address: %w; give the box's address", given, err)
	case len(addrs) == 0:
		return t, wrong("%s does not resolve to an IPv4 address; give the box's address", given)
	case len(addrs) > 1:
		texts := make([]string, len(addrs))
		for i, a := range addrs {
			texts[i] = a.String()
		}
		return t, wrong("%s has %d IPv4 addresses (%s); give the one that the box boots with", given, len(addrs), strings.Join(texts, ", "))
	}
	became := addrs[0].String()
	if t.addr, err = box.ParseAddr(became); err != nil {
		return t, wrong("%s became %s: %w", given, became, err)
	}
	return t, nil
}

// looksNumeric: "10.1.2" or "10.1.2.256" is a mistyped address, and a resolver
// would take some of them for another one.
func looksNumeric(s string) bool { return strings.Trim(s, "0123456789.") == "" }

// name finds the box's name: the reverse one, else the one it was given by.
// That there is none is not an error.
func (w world) name(ctx context.Context, t target) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	names, err := w.lookupNames(ctx, t.addr.String())
	if err == nil {
		for _, n := range names {
			if n = strings.TrimSuffix(n, "."); box.ValidHost(n) && !looksNumeric(n) {
				return n
			}
		}
	}
	if t.given != t.addr.String() {
		return t.given
	}
	return ""
}
