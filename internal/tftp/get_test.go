package tftp

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestGetReads: Get reads what a Server gives, and says what it does not give.
func TestGetReads(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 4096} {
		data := bytes.Repeat([]byte{7, 9, 1}, size)[:size]
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			answerAsOldServer(conn, data)
		}()
		at := netip.MustParseAddrPort(conn.LocalAddr().String())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := Get(ctx, at, "file", 5000)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if size == 4096 {
			if _, err := Get(ctx, at, "file", 1000); err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
				t.Errorf("a file that is too large: %v", err)
			}
		}
		if _, err := Get(ctx, at, "none", 5000); err == nil || !strings.Contains(err.Error(), "refuses") {
			t.Errorf("a file that is not there: %v", err)
		}
		cancel()
		conn.Close()
		<-ended
	}
}

// answerAsOldServer answers from one port, as RFC 1350 allows.
func answerAsOldServer(conn *net.UDPConn, data []byte) {
	block := func(n int) []byte {
		from, to := min((n-1)*512, len(data)), min(n*512, len(data))
		return append([]byte{0, 3, byte(n >> 8), byte(n)}, data[from:to]...)
	}
	buf := make([]byte, 1000)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case err != nil:
			return
		case buf[1] == 1 && bytes.HasPrefix(buf[2:n], []byte("none\x00")):
			conn.WriteToUDPAddrPort([]byte("\x00\x05\x00\x01no such file\x00"), from)
		case buf[1] == 1:
			conn.WriteToUDPAddrPort([]byte("\x00\x03\x00\x09from another time"), from) // a wrong block is left alone
			conn.WriteToUDPAddrPort(block(1), from)
		case buf[1] == 4:
			if k := int(buf[2])<<8 + int(buf[3]); k*512 <= len(data) {
				conn.WriteToUDPAddrPort(block(k+1), from)
			}
		}
	}
}

// TestGetSilent: a server that does not answer ends the trial, and a context ends it at once.
func TestGetSilent(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Get(ctx, netip.MustParseAddrPort(conn.LocalAddr().String()), "file", 100); err == nil {
		t.Error("nobody answered, and no error was returned")
	}
}
