package boottest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// control is the control connection to QEMU (docs/interop/qmp-spec.txt in its source).
type control struct {
	conn    net.Conn
	answers chan message

	mu     sync.Mutex // guards the fields below
	resets int        // by the guest
	off    bool
}

type message struct {
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Data struct {
		Guest bool `json:"guest"`
	} `json:"data"`
}

// maxAnswers bounds what QEMU may say, since its guest may have taken it over.
const maxAnswers = 256 << 20

// commandWait is how long an answer may take on a busy machine.
const commandWait = 2 * time.Minute

func newControl(conn net.Conn) *control {
	q := &control{conn: conn, answers: make(chan message, 1)}
	go q.listen()
	return q
}

func (q *control) listen() {
	defer close(q.answers)
	dec := json.NewDecoder(io.LimitReader(q.conn, maxAnswers))
	for {
		var m message
		if dec.Decode(&m) != nil {
			return
		}
		switch {
		case m.Event == "RESET" && m.Data.Guest:
			q.mu.Lock()
			q.resets++
			q.mu.Unlock()
		case m.Event == "SHUTDOWN" && m.Data.Guest:
			q.mu.Lock()
			q.off = true
			q.mu.Unlock()
		case m.Return != nil || m.Error != nil:
			select {
			case q.answers <- m:
			case <-time.After(commandWait): // nobody asked for it
				return
			}
		}
	}
}

func (q *control) state() (resets int, off bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.resets, q.off
}

// do runs a command, and decodes its answer into out if that is not nil.
func (q *control) do(command string, args map[string]any, out any) error {
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	q.conn.SetWriteDeadline(time.Now().Add(commandWait))
	if err := json.NewEncoder(q.conn).Encode(m); err != nil {
		return fmt.Errorf("tell QEMU %s: %w", command, err)
	}
	select {
	case a, ok := <-q.answers:
		switch {
		case !ok:
			return errors.New("QEMU has ended")
		case a.Error != nil:
			return fmt.Errorf("QEMU refuses %s: %.200s", command, a.Error.Desc)
		case out != nil:
			return json.Unmarshal(a.Return, out)
		}
		return nil
	case <-time.After(commandWait):
		return fmt.Errorf("QEMU does not answer to %s", command)
	}
}
