package pid1

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeperName is the keeper's socket: abstract, so that it needs no file.
const keeperName = "@testbox-keeper"

// What the service says to the keeper, a byte a datagram.
const (
	wordBeat   = '.' // there was progress
	wordRescue = 'R' // the box stays up: ask for no progress any more
)

// keeperInbox is the keeper's end.
type keeperInbox struct {
	conn *net.UnixConn
}

// listenKeeper asks the kernel to say who sent each datagram: any user of the
// box can write to the socket.
func listenKeeper(name string) (*keeperInbox, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var optErr error
		err = raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, optErr)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &keeperInbox{conn}, nil
}

// serve hears root's words until the socket fails; all else is passed over.
// There is room for the sender's identity and nothing more, so that descriptors
// that someone sends along are closed by the kernel.
func (k *keeperInbox) serve(beat, rescue func()) error {
	word, from := make([]byte, 2), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, fromLen, _, _, err := k.conn.ReadMsgUnix(word, from)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(time.Second) // nothing that is known; it must not keep a processor busy
			continue
		}
		if n != 1 || !fromRoot(from[:fromLen]) {
			continue
		}
		switch word[0] {
		case wordBeat:
			beat()
		case wordRescue:
			rescue()
		}
	}
}

func fromRoot(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return false
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && cred.Uid == 0
}

// keeperLine is the service's end. The nil line leads nowhere.
type keeperLine struct {
	conn *net.UnixConn

	mu   sync.Mutex
	last time.Time // of the last beat that was sent; guarded by mu
}

const (
	lineEvery    = time.Second // a beat more often says nothing new
	linePatience = time.Second // for a keeper that does not listen
)

func dialKeeper(name string) (*keeperLine, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &keeperLine{conn: conn}, nil
}

func (l *keeperLine) beat() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= lineEvery {
		l.last = now
		l.send(wordBeat) // lost if the keeper is dead; then the watchdog bites
	}
}

func (l *keeperLine) rescue() error {
	if l == nil {
		return nil
	}
	return l.send(wordRescue)
}

func (l *keeperLine) send(word byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(linePatience))
	_, err := l.conn.Write([]byte{word})
	if errors.Is(err, syscall.EPIPE) {
		err = errors.New("the keeper is gone")
	}
	return err
}
