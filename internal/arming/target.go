package arming

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Resolver looks up names and addresses, as net.Resolver does.
type Resolver struct {
	Addrs func(ctx context.Context, host string) ([]netip.Addr, error)       // IPv4 addresses of a name
	Names func(ctx context.Context, addr string) (names []string, err error) // names of an address
}

// Limits of name lookups. An address is needed, a name is only for people.
const (
	addrTimeout = 10 * time.Second
	nameTimeout = 2 * time.Second
)

// Target is a box as the admin named it, with its address and name.
type Target struct {
	Given string
	Addr  box.Addr
	Host  string // the box's name; "" if unknown
}

func (t Target) String() string {
	switch {
	case t.Given != t.Addr.String():
		return t.Given + " (" + t.Addr.String() + ")"
	case t.Host != "":
		return t.Addr.String() + " (" + t.Host + ")"
	}
	return t.Addr.String()
}

// Resolve finds the boxes' addresses and names. It does many at a time, because
// name servers can be slow. A box that is named twice is an error.
func (r Resolver) Resolve(ctx context.Context, boxes []string) ([]Target, error) {
	targets, errs := make([]Target, len(boxes)), make([]error, len(boxes))
	var g errgroup.Group
	g.SetLimit(16)
	for i, given := range boxes {
		g.Go(func() error {
			if targets[i], errs[i] = r.resolve(ctx, given); errs[i] == nil {
				targets[i].Host = r.name(ctx, targets[i])
			}
			return nil
		})
	}
	g.Wait() // the errors are in errs
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	seen := map[box.Addr]Target{}
	for _, t := range targets {
		if first, twice := seen[t.Addr]; twice {
			return nil, problem.Wrongf("%s and %s are the same box", first, t)
		}
		seen[t.Addr] = t
	}
	return targets, nil
}

// resolve finds the address of a box that is given by address or host name.
func (r Resolver) resolve(ctx context.Context, given string) (Target, error) {
	t := Target{Given: given}
	var err error
	if _, perr := netip.ParseAddr(given); perr == nil {
		t.Addr, err = box.ParseAddr(given)
		if err != nil {
			return t, problem.Wrongf("%w", err)
		}
		return t, nil
	}
	if !box.ValidHost(given) || looksNumeric(given) {
		return t, problem.Wrongf("%q is neither an IPv4 address nor a host name", given)
	}
	ctx, cancel := context.WithTimeout(ctx, addrTimeout)
	defer cancel()
	found, err := r.Addrs(ctx, given)
	// An address is found more than once if the name is in /etc/hosts twice, or
	// both there and in a name server.
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	switch {
	case err != nil:
		return t, problem.Wrongf("%s does not resolve to an IPv4 address: %w; give the box's address", given, err)
	case len(addrs) == 0:
		return t, problem.Wrongf("%s does not resolve to an IPv4 address; give the box's address", given)
	case len(addrs) > 1:
		texts := make([]string, len(addrs))
		for i, a := range addrs {
			texts[i] = a.String()
		}
		return t, problem.Wrongf("%s has %d IPv4 addresses (%s); give the one that the box boots with",
			given, len(addrs), strings.Join(texts, ", "))
	}
	resolved := addrs[0].String()
	if t.Addr, err = box.ParseAddr(resolved); err != nil {
		return t, problem.Wrongf("%s resolves to %s: %w", given, resolved, err)
	}
	return t, nil
}

// looksNumeric reports whether s is a mistyped address, such as "10.1.2" or
// "10.1.2.256". A resolver would read some of these as another address.
func looksNumeric(s string) bool { return strings.Trim(s, "0123456789.") == "" }

// name finds the box's name. It is the reverse one, or else the one that the
// admin gave. A missing name is not an error.
func (r Resolver) name(ctx context.Context, t Target) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	names, err := r.Names(ctx, t.Addr.String())
	if err == nil {
		for _, n := range names {
			if n = strings.TrimSuffix(n, "."); box.ValidHost(n) && !looksNumeric(n) {
				return n
			}
		}
	}
	if t.Given != t.Addr.String() {
		return t.Given
	}
	return ""
}
