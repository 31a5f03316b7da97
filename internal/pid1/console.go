package pid1

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// consoleQueue is how many writes wait for a slow console. A serial port at
// 9600 baud, or a terminal that someone stopped with Ctrl-S, must never hold up
// the work: what does not fit is dropped there.
const consoleQueue = 512

// console writes to all of the box's consoles.
type console struct {
	mu   sync.Mutex
	outs []chan []byte // guarded by mu
	busy sync.WaitGroup
}

func newConsole() *console { return &console{} }

// open adds terminals; those that are not there are left out.
func (c *console) open(paths ...string) {
	for _, p := range paths {
		// Without O_NONBLOCK a serial port waits here for its carrier.
		f, err := os.OpenFile(p, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err == nil {
			c.add(f)
		}
	}
}

func (c *console) add(w io.Writer) {
	out := make(chan []byte, consoleQueue)
	c.mu.Lock()
	c.outs = append(c.outs, out)
	c.mu.Unlock()
	go func() {
		for b := range out {
			w.Write(b) // a port without hardware fails each time; there is nobody to tell
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

// drain waits until everything is written, at most so long.
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
