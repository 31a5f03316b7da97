package conns

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestLimit: an address has so many connections and no more, and gets new ones
// when old ones are closed.
func TestLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	limited := Limit(l, 5, 2)
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	// stays reports whether a connection is left open. One that is to be closed may take its time.
	stays := func(from string, want bool) bool {
		wait := time.Minute
		if want {
			wait = 200 * time.Millisecond
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(wait))
		_, err = c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded) // else it was closed
	}
	for i, from := range []string{"127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.4", "127.0.0.5"} {
		if want := i != 2 && i != 6; stays(from, want) != want {
			t.Errorf("connection %d from %s: open %v", i, from, !want)
		}
	}
	first := <-accepted
	first.Close()
	first.Close()
	if !stays("127.0.0.2", true) || stays("127.0.0.5", false) {
		t.Error("a connection that was closed does not count as that")
	}
}
