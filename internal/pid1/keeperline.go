package pid1

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeperName is the keeper's socket. It is an abstract one, so it needs no
// file.
const keeperName = "@testbox-keeper"

// What the service sends to the keeper, one byte in each datagram.
const (
	wordBeat   = '.' // there was progress
	wordRescue = 'R' // the box stays up, so progress is not needed any more
)

// keeperInbox is the keeper's end of the socket.
type keeperInbox struct {
	conn *net.UnixConn
}

// listenKeeper opens the socket. Any user of the box can write to it, so the
// kernel is asked to say who sent each datagram.
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

// serve handles root's datagrams until the socket is closed, and ignores all
// others. from has room for the sender's identity and nothing more. So the
// kernel closes descriptors that someone sends along.
func (k *keeperInbox) serve(beat, rescue func()) error {
	word, from := make([]byte, 2), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, fromLen, _, _, err := k.conn.ReadMsgUnix(word, from)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(time.Second) // an unknown error, which must not keep a processor busy
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

// keeperLine is the service's end of the socket. A nil keeperLine sends
// nothing.
type keeperLine struct {
	conn *net.UnixConn

	mu   sync.Mutex
	last time.Time // when the last beat was sent; guarded by mu
}

const (
	lineEvery    = time.Second // shortest time between two beats, since more say nothing new
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
		l.send(wordBeat) // lost if the keeper is dead, and then the watchdog restarts the box
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
