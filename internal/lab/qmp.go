package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// qmp is the control connection to a QEMU process. It speaks QEMU's machine
// protocol over a socket pair (docs/interop/qmp-spec.txt in QEMU's source).
type qmp struct {
	mu   sync.Mutex // one command at a time
	conn net.Conn
	dec  *json.Decoder
}

// qmpTimeout limits a command. QEMU answers the commands used here at once. But
// on a busy machine, an emulated processor can keep it from answering for half
// a minute.
const qmpTimeout = 2 * time.Minute

// qmpPair makes the two ends of the connection. The file is for QEMU. The
// caller closes it after QEMU was started.
func qmpPair() (*qmp, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "qmp")
	ours := os.NewFile(uintptr(fds[0]), "qmp")
	defer ours.Close() // FileConn has its own copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &qmp{conn: conn, dec: json.NewDecoder(conn)}, theirs, nil
}

// qmpMessage is any message of QEMU. It is a greeting, an event or an answer.
type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// hello finishes the protocol's negotiation.
func (q *qmp) hello() error { return q.do("qmp_capabilities") }

// do runs a command without arguments and waits for its answer.
func (q *qmp) do(command string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.conn.SetDeadline(time.Now().Add(qmpTimeout)); err != nil {
		return err
	}
	if err := json.NewEncoder(q.conn).Encode(map[string]string{"execute": command}); err != nil {
		return fmt.Errorf("tell QEMU %s: %w", command, err)
	}
	for {
		var m qmpMessage
		if err := q.dec.Decode(&m); err != nil {
			return fmt.Errorf("QEMU's answer to %s: %w", command, err)
		}
		switch {
		case m.Error != nil:
			return fmt.Errorf("QEMU refuses %s: %s", command, m.Error.Desc)
		case m.Return != nil:
			return nil
		}
	}
}

func (q *qmp) close() { q.conn.Close() }
