package tftp

import (
	"bytes"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func FuzzRequest(f *testing.F) {
	f.Add(readRequest("pxelinux.0", "blksize", "1408", "tsize", "0", "windowsize", "4", "timeout", "2"))
	f.Add([]byte("\x00\x02x\x00octet\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := parseRequest(p)
		if err != nil {
			return
		}
		if r.name == "" || len(r.name) > maxName || bytes.IndexByte([]byte(r.name), 0) >= 0 {
			t.Errorf("name %q", r.name)
		}
		if o := r.options; o.block < 0 || o.block > 65464 || o.window < 0 || o.window > 65535 || o.timeout < 0 || o.timeout > 255 {
			t.Errorf("%+v", o)
		}
	})
}

// script is a client that says what a fuzzer made, one packet each 10 ms of the
// test's own time, and then nothing.
type script struct {
	t       *testing.T
	packets [][]byte
	limit   int // bytes of a packet
	sent    int
	final   bool // block 2 was confirmed after it was sent
}

func (s *script) send(p []byte) error {
	if len(p) > s.limit {
		s.t.Errorf("a packet of %d bytes", len(p))
	}
	s.sent++
	return nil
}

func (s *script) receive(until time.Time) ([]byte, error) {
	if len(s.packets) == 0 || time.Until(until) < 10*time.Millisecond {
		time.Sleep(time.Until(until))
		return nil, os.ErrDeadlineExceeded
	}
	time.Sleep(10 * time.Millisecond)
	p := s.packets[0]
	s.packets = s.packets[1:]
	if r, ok := parseReply(p); ok && r.op == opAck && r.block == 3 {
		s.final = true
	}
	return p, nil
}

// Whatever a client says, a transfer ends, sends no more than it should, and is
// a success only if the last block was confirmed.
func FuzzTransfer(f *testing.F) {
	f.Add([]byte("\x04\x00\x04\x00\x00\x04\x00\x04\x00\x01\x04\x00\x04\x00\x03"), uint8(1), true)
	f.Add([]byte("\x04\x00\x04\x00\x02\x04\x00\x04\x00\x02\x04\x00\x04\x00\x03"), uint8(2), false)
	f.Add([]byte("\x06\x00\x05\x00\x08no"), uint8(0), true)
	f.Fuzz(func(t *testing.T, in []byte, window uint8, size bool) {
		if len(in) > 1000 { // it would take long to make such an input small
			return
		}
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t, limit: 4 + 512}
			for len(in) > 0 && len(s.packets) < 100 {
				n := min(int(in[0]), len(in)-1)
				s.packets, in = append(s.packets, in[1:1+n]), in[1+n:]
			}
			said := len(s.packets)
			tr := &transfer{link: s, file: bytes.NewReader(noise(1200)), size: 1200, heard: func() {}}
			tr.options = options{window: int(window % (MaxWindow + 1)), size: size}
			begin := time.Now()
			err := tr.run()
			if err == nil && !s.final {
				t.Error("a success without the last answer")
			}
			if took := time.Since(begin); took > time.Minute+time.Duration(said)*mostWait {
				t.Errorf("it took %v", took)
			}
			if s.sent > 3*(40+2*said)+20 {
				t.Errorf("%d packets were sent for %d of the client", s.sent, said)
			}
		})
	})
}

// What a client answers decides how a transfer ends, and how much is sent for it.
func TestAnswers(t *testing.T) {
	ack := func(n byte) []byte { return []byte{0, opAck, 0, n} }
	for _, c := range []struct {
		what    string
		window  int
		answers [][]byte
		err     error
		most    int // packets
	}{
		{"all blocks", 0, [][]byte{ack(1), ack(2), ack(3)}, nil, 3},
		{"all but the last answer", 0, [][]byte{ack(1), ack(2)}, errUnconfirmed, 20},
		{"no answer", 0, nil, errSilent, 20},
		{"doubled answers", 0, [][]byte{ack(1), ack(1), ack(2), ack(2), ack(2), ack(3)}, nil, 3},
		{"answers for blocks that were not sent", 0, [][]byte{ack(3), ack(200), ack(1), ack(2), ack(3)}, nil, 3},
		{"a window", 3, [][]byte{ack(0), ack(3)}, nil, 4},
		{"a window whose first block is lost", 3, [][]byte{ack(0), ack(0), ack(3)}, nil, 7},
		{"an answer that comes again and again", 3, [][]byte{ack(0), ack(0), ack(0), ack(0), ack(0), ack(0), ack(0), ack(3)}, nil, 7},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{t: t, limit: 4 + 512, packets: c.answers}
				tr := &transfer{link: s, file: bytes.NewReader(noise(1200)), size: 1200, heard: func() {}, options: options{window: c.window}}
				if err := tr.run(); err != c.err || s.sent > c.most {
					t.Errorf("%v, and %d packets were sent", err, s.sent)
				}
			})
		})
	}
}
