// Package conns limits how many connections a listener has open.
package conns

import (
	"net"
	"net/netip"
	"sync"
)

// Limit limits how many connections a listener has open, in all and from one
// address. Connections beyond that are closed at once, and their clients try again.
// So a box that opens thousands takes no file descriptor from others.
func Limit(l net.Listener, all, each int) net.Listener {
	return &limited{Listener: l, all: all, each: each, by: map[netip.Addr]int{}}
}

type limited struct {
	net.Listener
	all, each int

	mu   sync.Mutex // guards the fields below
	open int
	by   map[netip.Addr]int
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		addr := from.Addr().Unmap()
		if l.add(addr) {
			return &limitedConn{Conn: c, closed: sync.OnceFunc(func() { l.remove(addr) })}, nil
		}
		c.Close()
	}
}

func (l *limited) add(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.all || l.by[from] >= l.each {
		return false
	}
	l.open++
	l.by[from]++
	return true
}

func (l *limited) remove(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
}

type limitedConn struct {
	net.Conn
	closed func()
}

// NetConn is the connection below, which a server may ask who its client is.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
