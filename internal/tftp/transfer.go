package tftp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	defaultBlock = 512 // bytes, where the client names no size (RFC 1350)

	firstWait = time.Second            // for an answer, before the client's speed is known
	leastWait = 100 * time.Millisecond // a loader that does other things for a moment is not disturbed
	mostWait  = 4 * time.Second
	silence   = 25 * time.Second // a client that is silent for so long is gone
	noAnswer  = 8 * time.Second  // or that never said anything after its request, or after the last block
)

// link carries the packets of one transfer.
type link interface {
	send(p []byte) error
	// receive returns the next packet of the client. At the given time, the
	// error is os.ErrDeadlineExceeded.
	receive(until time.Time) ([]byte, error)
}

var (
	errSilent      = errors.New("the client is silent")
	errUnconfirmed = errors.New("all was sent, but the client did not confirm the end")
	errDisplaced   = errors.New("ended, since too many clients ask and this one did not answer yet")
)

// clientError is an error packet of the client.
type clientError struct {
	code uint16
	text string
}

func (e *clientError) Error() string {
	return fmt.Sprintf("the client ended the transfer: error %d %q", e.code, e.text)
}

// transfer sends one file (RFC 1350, with windows as RFC 7440 has them).
type transfer struct {
	link    link
	file    io.ReaderAt
	size    int64
	options options // as they are answered
	heard   func()  // called at the first packet of the client that fits

	block, window int64
	last          int64 // number of the last block, which is shorter than the others; the first has number 1
	base          int64 // the client has all blocks up to this one
	sent          int64 // the last block that was sent
	again         bool  // something was sent twice since base moved, so an answer tells no time
	quick         bool  // the window was sent again because of a repeated answer
	spoke         bool
	lastHeard     time.Time
	sentAt        time.Time
	wait          time.Duration // until what was sent is sent again
	mean, spread  time.Duration // of the time until an answer (RFC 6298)
	buf           []byte
}

// run sends the file. It returns nil when the client has confirmed the last
// block.
func (t *transfer) run() error {
	t.block, t.window = defaultBlock, 1
	if t.options.block > 0 {
		t.block = int64(t.options.block)
	}
	if t.options.window > 0 {
		t.window = int64(t.options.window)
	}
	t.last = t.size/t.block + 1
	t.wait, t.lastHeard = firstWait, time.Now()
	t.buf = make([]byte, 0, 4+t.block)
	if t.options.any() {
		if err := t.exchange(t.sendOptions, true); err != nil {
			return err
		}
	}
	for t.base < t.last {
		if err := t.exchange(t.sendWindow, false); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends the options or a window, and sends it again until the client
// has taken the options, or has more of the file than before.
func (t *transfer) exchange(send func() error, options bool) error {
	t.again, t.quick = false, false
	for {
		if err := send(); err != nil {
			return err
		}
		t.sentAt = time.Now()
		moved, err := t.await(options)
		if moved || err != nil {
			return err
		}
		t.again = true
	}
}

func (t *transfer) sendOptions() error { return t.link.send(optAckPacket(t.options, t.size)) }

func (t *transfer) sendWindow() error {
	for n := t.base + 1; n <= min(t.base+t.window, t.last); n++ {
		at := (n - 1) * t.block
		length := min(t.block, t.size-at)
		t.buf = dataPacket(t.buf, uint16(n))[:4+length]
		if got, err := t.file.ReadAt(t.buf[4:], at); int64(got) < length {
			if err == nil || err == io.EOF {
				err = errors.New("the file became shorter while it was sent")
			}
			t.link.send(errorPacket(codeOther, "the server cannot read the file"))
			return err
		}
		if err := t.link.send(t.buf); err != nil {
			return err
		}
		t.sent = max(t.sent, n)
	}
	return nil
}

// await waits for an answer. It reports whether the client has more than
// before. If it reports false without an error, the last packets have to be
// sent again. The options are confirmed by an answer for block 0.
func (t *transfer) await(options bool) (moved bool, err error) {
	for until := t.sentAt.Add(t.wait); ; {
		p, err := t.link.receive(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if moved {
				return true, nil
			}
			return false, t.timedOut()
		}
		if err != nil {
			return false, err
		}
		r, ok := parseReply(p)
		if !ok {
			continue
		}
		switch r.op {
		case opError:
			return false, &clientError{r.code, r.text}
		case opAck:
			if !t.spoke {
				t.spoke = true
				t.heard()
			}
			t.lastHeard = time.Now()
			ahead := int64(r.block - uint16(t.base)) // block numbers go on with 0 after 65535
			switch {
			case options && r.block == 0, ahead > 0 && ahead <= t.sent-t.base:
				if !moved {
					t.learn()
				}
				t.base += ahead
				moved = true
				if options || t.base == min(t.sent, t.last) {
					return true, nil
				}
				// The client lacks a block of the window, or it confirms each
				// block by itself. Then more answers are here already.
				until = time.Now().Add(time.Millisecond)
			case ahead == 0 && t.window > 1 && !moved && !t.quick && !options:
				// The first block of the window was lost. A repeated answer
				// counts once. If each did, a doubled packet would double all
				// that follow it (RFC 1123 section 4.2.3.1).
				t.quick = true
				return false, nil
			}
		}
	}
}

// timedOut doubles the wait, and gives up after a long silence.
func (t *transfer) timedOut() error {
	limit := silence
	if !t.spoke || t.sent == t.last { // most clients that have the whole file are gone
		limit = noAnswer
	}
	if time.Since(t.lastHeard) > limit {
		if t.sent == t.last {
			return errUnconfirmed
		}
		return errSilent
	}
	t.wait = min(2*t.wait, mostWait)
	return nil
}

// learn takes the time of an answer into the wait (RFC 6298 section 2). The
// time of an answer to what was sent twice says nothing (Karn's algorithm).
func (t *transfer) learn() {
	if took := time.Since(t.sentAt); !t.again && t.mean == 0 {
		t.mean, t.spread = took, took/2
	} else if !t.again {
		t.spread = (3*t.spread + (t.mean - took).Abs()) / 4
		t.mean = (7*t.mean + took) / 8
	}
	if t.mean == 0 {
		return
	}
	t.wait = min(max(t.mean+4*t.spread, leastWait), mostWait)
	if t.options.timeout > 0 {
		t.wait = min(t.wait, time.Duration(t.options.timeout)*time.Second)
	}
}
