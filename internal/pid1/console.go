package pid1

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// consoleQueue is how many writes wait for a slow console. If there are more,
// they are lost on that console. A serial port at 9600 baud, or a terminal that
// someone stopped with Ctrl-S, must never hold up the work.
const consoleQueue = 512

// console writes to all of the box's consoles.
type console struct {
	mu   sync.Mutex
	outs []chan []byte // guarded by mu
	busy sync.WaitGroup
}

func newConsole() *console { return &console{} }

// consoles are the terminals that a box's admin may look at.
var consoles = []string{"tty0", "ttyS0"}

// open adds terminals of the folder dev. It skips those that do not exist.
func (c *console) open(dev string, names ...string) {
	root, err := os.OpenRoot(dev)
	if err != nil {
		return
	}
	for _, n := range names {
		t := &terminal{dev: root, name: n}
		if t.open() == nil {
			c.add(t)
		}
	}
}

// terminal is a device that is opened anew when a write fails. That happens
// after a login program has hung it up (vhangup(2)) for all who had it open.
// The device is looked up in the open folder dev, which outlives a change of
// the root.
type terminal struct {
	dev  *os.Root
	name string
	file *os.File
}

func (t *terminal) open() (err error) {
	// Without O_NONBLOCK a serial port waits here for its carrier.
	t.file, err = t.dev.OpenFile(t.name, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	return err
}

func (t *terminal) Write(b []byte) (int, error) {
	if n, err := t.file.Write(b); err == nil {
		return n, nil
	}
	t.file.Close()
	if err := t.open(); err != nil {
		return 0, err
	}
	return t.file.Write(b)
}

func (c *console) add(w io.Writer) {
	out := make(chan []byte, consoleQueue)
	c.mu.Lock()
	c.outs = append(c.outs, out)
	c.mu.Unlock()
	go func() {
		for b := range out {
			w.Write(b) // a port without hardware fails each time, and there is nobody to tell
			c.busy.Done()
		}
	}()
}

// Write never blocks and never fails.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, out := range c.outs {
		c.busy.Add(1)
		select {
		case out <- append([]byte(nil), b...):
		default:
			c.busy.Done()
		}
	}
	return len(b), nil
}

// drain waits until everything is written, but no longer than limit.
func (c *console) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		c.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
