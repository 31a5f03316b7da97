package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise is the content of a file.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// wire is what a client speaks through.
type wire interface {
	write(p []byte)
	// read returns nil if nothing comes within the time.
	read(within time.Duration) []byte
}

// loader reads files as a boot loader does. It is written by the RFCs, without
// the server's code.
type loader struct {
	wire
	options []string // name, value, name, value
	each    bool     // confirms each block, also within a window
	patient bool     // never repeats an answer by itself
	got     map[string]string
}

type tftpError struct {
	code uint16
	text string
}

func (e *tftpError) Error() string { return fmt.Sprintf("error %d %s", e.code, e.text) }

func readRequest(name string, options ...string) []byte {
	return []byte("\x00\x01" + strings.Join(append([]string{name, "octet"}, options...), "\x00") + "\x00")
}

func (l *loader) get(name string) ([]byte, error) {
	var out bytes.Buffer
	block, window := 512, 1
	answer := readRequest(name, l.options...)
	next, inWindow, started := uint16(1), 0, false
	silent, asked := time.Duration(0), time.Time{}
	l.write(answer)
	for {
		p := l.read(time.Second)
		if p == nil {
			if silent += time.Second; silent > 30*time.Second {
				return nil, errors.New("the server is silent")
			}
			if !l.patient || !started {
				l.write(answer)
			}
			continue
		}
		silent = 0
		ack := func(n uint16) {
			answer = binary.BigEndian.AppendUint16([]byte{0, opAck}, n)
			l.write(answer)
			inWindow = 0
		}
		switch op := binary.BigEndian.Uint16(p); {
		case op == opError:
			return nil, &tftpError{binary.BigEndian.Uint16(p[2:]), string(p[4 : len(p)-1])}
		case op == opOptAck && next == 1 && out.Len() == 0:
			if !started {
				l.got = map[string]string{}
				words := strings.Split(string(p[2:len(p)-1]), "\x00")
				for i := 0; i+1 < len(words); i += 2 {
					l.got[words[i]] = words[i+1]
				}
				if v := l.got["blksize"]; v != "" {
					block, _ = strconv.Atoi(v)
				}
				if v := l.got["windowsize"]; v != "" {
					window, _ = strconv.Atoi(v)
				}
			}
			started = true
			ack(0)
		case op == opData:
			started = true
			n, data := binary.BigEndian.Uint16(p[2:]), p[4:]
			if n != next { // it lacks one, or has it already
				// The rest of the window follows, and each would ask for the same.
				if time.Since(asked) > 20*time.Millisecond {
					asked = time.Now()
					ack(next - 1)
				}
				continue
			}
			out.Write(data)
			next++
			inWindow++
			if len(data) < block {
				ack(n)
				return out.Bytes(), nil
			}
			if l.each || inWindow >= window {
				ack(n)
			}
		}
	}
}

// socket is a client's socket. It follows the server to the port of the
// transfer.
type socket struct {
	*net.UDPConn
	server *net.UDPAddr
	peer   *net.UDPAddr
	bad    *rand.Rand // if there, every 20th packet is lost, some are doubled, and some come late
	late   []byte
}

func dial(t testing.TB, from string, server net.Addr) *socket {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return &socket{UDPConn: c, server: server.(*net.UDPAddr)}
}

func (s *socket) write(p []byte) {
	to := s.peer
	if binary.BigEndian.Uint16(p) == opRead {
		to, s.peer = s.server, nil
	}
	if to == nil {
		return
	}
	if s.bad != nil {
		switch n := s.bad.IntN(100); {
		case n < 5:
			return
		case n < 7:
			s.WriteToUDP(p, to)
		}
	}
	s.WriteToUDP(p, to)
}

func (s *socket) read(within time.Duration) []byte {
	until := time.Now().Add(within)
	for {
		s.SetReadDeadline(until)
		buf := make([]byte, 70000)
		n, from, err := s.ReadFromUDP(buf)
		if err != nil {
			if p := s.late; p != nil {
				s.late = nil
				return p
			}
			return nil
		}
		if s.peer == nil {
			s.peer = from
		}
		if !from.IP.Equal(s.server.IP) || from.Port != s.peer.Port {
			continue
		}
		p := buf[:n]
		if s.bad == nil {
			return p
		}
		late := s.late
		switch n := s.bad.IntN(100); {
		case n < 5:
			continue
		case n < 7 && late == nil: // comes after the next one
			s.late = p
			continue
		case late != nil:
			s.late = nil
			if n%2 == 0 {
				s.late = p // and once more
				return p
			}
			s.late = nil
			return s.swap(p, late)
		}
		return p
	}
}

// swap returns p and keeps the other for the next read.
func (s *socket) swap(p, other []byte) []byte {
	s.late = other
	return p
}

// memory is a file in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// files is a server's folder.
type files map[string][]byte

func (f files) open(r Request) (File, error) {
	data, ok := f[r.Name]
	if r.Name == "closed" {
		return nil, os.ErrPermission
	}
	if !ok {
		return nil, os.ErrNotExist
	}
	return memory{bytes.NewReader(data)}, nil
}
