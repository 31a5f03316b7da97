package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// caller is who makes a request.
type caller struct {
	name    string // with the run that asks, if it says one
	run     string // "" is none
	from    string // an address, or "socket" with who called sudo
	role    ledger.Role
	group   string      // the only boxes that the caller may see and use; "" is all
	token   ledger.Hash // of the token; zero on the socket
	login   ledger.Hash // of somebody who uses the page; zero is none
	expires time.Time   // when the token ends; zero is never
	ctl     *http.ResponseController
}

// may reports whether the caller's role includes another one.
func (c *caller) may(r ledger.Role) bool {
	return slices.Index(ledger.Roles, c.role) >= slices.Index(ledger.Roles, r)
}

// SudoHeader is the header in which root's client says who called sudo.
const SudoHeader = "Testbox-Sudo-User"

// RunHeader is the header by which a program says which of its runs asks. To the server the
// runs of one token are as different people with the same rights, so that two of them
// never have one box. Who says no run is above all of the runs.
const RunHeader = "Testbox-Run"

var runForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:+-]{0,79}$`)

// CheckRun refuses what is no name of a run.
func CheckRun(s string) error {
	if !runForm.MatchString(s) {
		return problem.Wrongf("the name of a run has 1 to 80 letters, digits and '._:+-', and begins with a letter or digit; %.100q does not", s)
	}
	return nil
}

// runMark stands between a name and a run of it. No user's and no token's name has it.
const runMark = "#"

// asRun notes the run of the caller that makes a request.
func (c *caller) asRun(r *http.Request) error {
	said, ok := r.Header[RunHeader]
	if !ok {
		return nil
	}
	if len(said) != 1 {
		return problem.Wrongf("the header %s is there %d times, and may be there once", RunHeader, len(said))
	}
	if err := CheckRun(said[0]); err != nil {
		return err
	}
	c.run = said[0]
	c.name += runMark + c.run
	return nil
}

// owns reports whether somebody is the caller, or a run of the caller.
func (c *caller) owns(by string) bool {
	return by == c.name || c.run == "" && strings.HasPrefix(by, c.name+runMark)
}

// sudoForm is the form of names of users, also of those of a directory.
var sudoForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}$`)

type callerKey struct{}

// callerOf returns who makes a request that was admitted.
func callerOf(ctx context.Context) *caller {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil {
		panic("a request that was not admitted reached its handler")
	}
	return c
}

// peer is the process at the other end of a connection of the Unix socket.
type peer struct {
	uid    uint32
	groups []uint32
	err    error // why it is not known
}

type peerKey struct{}

// withPeer notes the peer of each new connection, as a http.Server's ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p := &peer{}
	if p.err = p.ask(c); p.err != nil {
		*p = peer{err: p.err}
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// ask asks the kernel who is at the other end. The groups are those of the process,
// so that what a login or `newgrp` has set counts, and no file is read.
func (p *peer) ask(c net.Conn) error {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("the connection is none of the Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var ask error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			ask = err
			return
		}
		p.uid, p.groups = cred.Uid, []uint32{cred.Gid}
		more, err := peerGroups(fd)
		p.groups = append(p.groups, more...)
		ask = err
	})
	return errors.Join(err, ask)
}

// peerGroups returns the supplementary groups of the peer.
func peerGroups(fd uintptr) ([]uint32, error) {
	for n := uint32(64); ; n *= 2 {
		gids := make([]uint32, n)
		size := n * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&gids[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && n < 1<<17:
		case errno != 0:
			return nil, errno
		default:
			return gids[:size/4], nil
		}
	}
}

// AdminGroup is the group whose members may do everything over the Unix socket.
const AdminGroup = "testbox"

// ofPeer says who a peer of the Unix socket is.
func (s *Server) ofPeer(p *peer) (*caller, error) {
	if p.err != nil {
		return nil, unauthorized("the server could not find out who you are: %v", p.err)
	}
	allowed := p.uid == 0
	if !allowed {
		if g, err := user.LookupGroup(s.cfg.Group); err == nil {
			gid, err := strconv.ParseUint(g.Gid, 10, 32)
			allowed = err == nil && slices.Contains(p.groups, uint32(gid))
		}
	}
	if !allowed {
		return nil, forbidden("only root and members of the group %s may use this socket; become a member, or log in with a token over HTTPS",
			s.cfg.Group)
	}
	name := "uid " + strconv.FormatUint(uint64(p.uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil && u.Username != "" {
		name = u.Username
	}
	return &caller{name: name, from: "socket", role: ledger.Admin}, nil
}

// Secrets of tokens begin with this, so that programs that look for lost secrets
// know one.
const tokenPrefix = "testbox-"

func newSecret() string { return tokenPrefix + rand.Text() }

func hashOf(secret string) ledger.Hash { return sha256.Sum256([]byte(secret)) }

// tokenID is what a token is called. It is a part of its hash, which is no secret.
func tokenID(h ledger.Hash) string { return hex.EncodeToString(h[:8]) }

const noToken = "say who you are: send the header `Authorization: Bearer TOKEN`, with a token that an admin has made for you"

// maxToken is how long the text of a token may be.
const maxToken = 200

// ofToken says who has a token.
func (s *Server) ofToken(ctx context.Context, header, remote string) (*caller, error) {
	word, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(word, "Bearer") || secret == "" {
		return nil, unauthorized("%s", noToken)
	}
	if len(secret) > maxToken {
		return nil, unauthorized("this is no token of this server; ask an admin for a new one")
	}
	return s.ofHash(ctx, hashOf(secret), fromOf(remote))
}

// fromOf is the address of a client without its port.
func fromOf(remote string) string {
	if at, err := netip.ParseAddrPort(remote); err == nil {
		return at.Addr().Unmap().String()
	}
	return remote
}

// ofHash says who has the token of a hash. It is asked again from time to time by
// requests that take long.
func (s *Server) ofHash(ctx context.Context, h ledger.Hash, from string) (*caller, error) {
	c := &caller{from: from, token: h}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		t, err := tx.Token(h)
		if err != nil {
			return err
		}
		c.name, c.role, c.group, c.expires = "token "+t.Name, t.Role, t.Group, t.Expires
		if t.User == "" {
			return nil
		}
		u, err := tx.User(t.User)
		if err != nil {
			return err
		}
		if c.name = u.Name; !(&caller{role: u.Role}).may(c.role) {
			c.role = u.Role // the user may do less now than when the token was made
		}
		return nil
	})
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, unauthorized("this is no token of this server; ask an admin for a new one")
	case err != nil:
		return nil, err
	case !c.expires.IsZero() && !s.cfg.Now().Before(c.expires):
		return nil, unauthorized("this token ended at %s; ask an admin for a new one", c.expires.UTC().Format(time.RFC3339))
	}
	return c, nil
}

// who says who makes a request.
func (s *Server) who(r *http.Request) (*caller, error) {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok { // it comes from the page, which knows who asks
		c := *v.caller
		return &c, nil
	}
	c, err := s.person(r)
	if err == nil {
		err = c.asRun(r)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// person says whose request it is.
func (s *Server) person(r *http.Request) (*caller, error) {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		c, err := s.ofPeer(p)
		if said := r.Header.Get(SudoHeader); err == nil && p.uid == 0 && sudoForm.MatchString(said) {
			c.from += " (sudo by " + said + ", as the client says)" // for the audit log; it gives no rights
		}
		return c, err
	}
	if r.TLS == nil {
		return nil, unauthorized("tokens are taken over HTTPS only")
	}
	return s.ofToken(r.Context(), r.Header.Get("Authorization"), r.RemoteAddr)
}

// still reports whether a caller may go on with a request that takes long.
func (s *Server) still(ctx context.Context, c *caller) bool {
	if c.token == (ledger.Hash{}) {
		return true
	}
	again := s.ofHash
	h := c.token
	if c.login != (ledger.Hash{}) {
		again, h = s.ofLogin, c.login
	}
	now, err := again(ctx, h, c.from)
	return err == nil && now.may(c.role) && now.group == c.group
}
