package boxapi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// looked is a store that counts how often each chunk is looked at, and says what it is told
// to say of it.
type looked struct {
	chunk.Getter
	check func(ctx context.Context, at chunk.Place) error // may be nil
	lacks func(at chunk.Place) error                      // may be nil

	mu    sync.Mutex // guards looks
	looks map[[2]int]int
}

func (g *looked) Check(ctx context.Context, at chunk.Place, _ []byte) error {
	g.mu.Lock()
	g.looks[[2]int{at.Region, at.Chunk}]++
	g.mu.Unlock()
	if g.check == nil {
		return nil
	}
	return g.check(ctx, at)
}

func (g *looked) Lacks(at chunk.Place) error {
	if g.lacks == nil {
		return nil
	}
	return g.lacks(at)
}

// all returns how many looks there were since the last call.
func (g *looked) all() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.looks {
		n += m
	}
	g.looks = map[[2]int]int{}
	return n
}

// checker is a server with what boxes may ask about an image.
type checker struct {
	*looked
	t      *testing.T
	s      *Server
	im     *chunk.Image
	places []wire.Place
}

// newChecker makes an image, and no server yet.
func newChecker(t *testing.T, regions, chunks int) *checker {
	c := &checker{looked: &looked{looks: map[[2]int]int{}}}
	c.im = newImage(t, regions, chunks, func(of chunk.Getter) chunk.Getter { c.Getter = of; return c.looked })
	for i := range regions {
		for j := range chunks {
			c.places = append(c.places, wire.Place{Region: uint32(i), Chunk: uint32(j)})
		}
	}
	return c
}

// ask asks for verdicts, as one request does.
func (c *checker) ask(ctx context.Context, w http.ResponseWriter, places []wire.Place) error {
	r := httptest.NewRequest("POST", "/", nil)
	q := &request{Request: r, s: c.s, w: w, ctl: http.NewResponseController(w), pace: wire.NewPace(wire.QuietWait)}
	return q.verdicts(ctx, c.im, places, make([]byte, 0, readBuffer))
}

// box asks for all verdicts, and returns them.
func (c *checker) box() string {
	w := httptest.NewRecorder()
	if err := c.ask(c.t.Context(), w, c.places); err != nil {
		c.t.Error(err)
	}
	return w.Body.String()
}

// room is so many boxes in lock step.
func (c *checker) room(boxes int) (answers []string) {
	answers = make([]string, boxes)
	var all sync.WaitGroup
	for i := range boxes {
		all.Go(func() { answers[i] = c.box() })
	}
	all.Wait()
	return answers
}

// place returns the place of a chunk of the first region.
func (c *checker) place(t *testing.T, n int) chunk.Place {
	t.Helper()
	r, err := c.im.Region(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Place(n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// inBubble runs a test with a clock that moves only when all wait. The image is made before
// that, since zstd keeps channels for later.
func inBubble(t *testing.T, name string, regions, chunks int, f func(*testing.T, *checker)) {
	t.Run(name, func(t *testing.T) {
		c := newChecker(t, regions, chunks)
		c.place(t, 0)
		synctest.Test(t, func(t *testing.T) {
			c.t, c.s = t, New(Config{})
			t.Cleanup(c.s.Close)
			f(t, c)
		})
	})
}

// TestVerdicts: boxes that restore the same image share what was found good, and nothing else.
func TestVerdicts(t *testing.T) {
	const boxes, slow = 16, 10 * time.Millisecond
	slowly := func(context.Context, chunk.Place) error { time.Sleep(slow); return nil }
	sound := string(make([]byte, 200))

	inBubble(t, "lock step", 2, 100, func(t *testing.T, c *checker) {
		c.check = slowly
		start := time.Now()
		for i, a := range c.room(boxes) {
			if a != sound {
				t.Errorf("box %d hears %x", i, a)
			}
		}
		if n, took := c.all(), time.Since(start); n != 200 || took > 210*slow {
			t.Errorf("200 chunks were looked at %d times, in %v", n, took)
		}
		time.Sleep(keepVerdicts - time.Since(start))
		if a := c.box(); a != sound || c.all() != 0 {
			t.Errorf("a late box hears %x, and something was looked at again", a)
		}
		time.Sleep(time.Since(start))
		if a := c.box(); a != sound {
			t.Errorf("after a while a box hears %x", a)
		}
		if n := c.all(); n != 200 {
			t.Errorf("after a while %d chunks were looked at again", n)
		}
	})
	inBubble(t, "bad ones", 2, 100, func(t *testing.T, c *checker) {
		bad := map[int]error{0: object.ErrDamaged, 70: chunk.ErrMissing, 99: errors.New("the disk does not answer")}
		c.check = func(ctx context.Context, at chunk.Place) error { slowly(ctx, at); return bad[at.Chunk] }
		want := bytes.Repeat([]byte{0}, 200)
		for i, err := range bad {
			want[i], want[100+i] = byte(wire.VerdictOf(err)), byte(wire.VerdictOf(err))
		}
		for i, a := range c.room(boxes) {
			if a != string(want) {
				t.Errorf("box %d hears %x", i, a)
			}
		}
		if n := c.all(); n != 200-2*len(bad)+2*len(bad)*boxes {
			t.Errorf("200 chunks, of which %d are bad, were looked at %d times", 2*len(bad), n)
		}
		clear(bad) // it was healed
		if a := c.box(); a != sound || c.all() != 6 {
			t.Errorf("what is good again is %x", a)
		}
	})
	inBubble(t, "found damaged meanwhile", 2, 100, func(t *testing.T, c *checker) {
		c.box()
		c.all()
		lost := func(at chunk.Place) error {
			if at.Chunk == 50 {
				return chunk.ErrMissing
			}
			return nil
		}
		c.lacks = lost
		c.check = func(_ context.Context, at chunk.Place) error { return lost(at) }
		want := bytes.Repeat([]byte{0}, 200)
		want[50], want[150] = byte(wire.Missing), byte(wire.Missing)
		if a := c.box(); a != string(want) || c.all() != 2 {
			t.Errorf("what is known to be lost is %x", a)
		}
		c.lacks = nil // somebody stored them again, and they are damaged again
		if a := c.box(); a != string(want) {
			t.Errorf("what was lost once, and not looked at since then, is %x", a)
		}
	})
	other := newChecker(t, 1, 60)
	inBubble(t, "another image", 1, 50, func(t *testing.T, c *checker) {
		c.box()
		other.t, other.s = t, c.s
		if other.box(); other.all() != 60 {
			t.Error("verdicts of one image stood for those of another")
		}
	})
}

// TestVerdictsMemory: what is remembered is bounded. What was not used for longest goes first.
func TestVerdictsMemory(t *testing.T) {
	inBubble(t, "", 64, 3, func(t *testing.T, c *checker) {
		v := newVerdicts(10*blockSize, keepVerdicts)
		c.s.verdicts = v
		c.check = func(context.Context, chunk.Place) error { time.Sleep(time.Millisecond); return nil }
		c.room(16)
		if n := c.all(); n > 64*3*2 || v.blocks.size != 10*blockSize || len(v.blocks.by) != 10 || v.blocks.order.Len() != 10 {
			t.Errorf("%d blocks of %d bytes are kept, after %d looks", len(v.blocks.by), v.blocks.size, n)
		}
		for _, e := range v.blocks.by {
			if b := e.Value.(*recentItem[blockKey, *block]).value; b.busy != nil {
				t.Errorf("%d looks did not end", len(b.busy))
			}
		}
		c.places = c.places[63*3:]
		if c.box(); c.all() != 0 {
			t.Error("the last ones were forgotten")
		}
		c.places = []wire.Place{{}}
		if c.box(); c.all() != 1 {
			t.Error("the first ones were not forgotten")
		}
	})
}

// atFirst makes a check that calls a function the first time.
func atFirst(f func()) func(context.Context, chunk.Place) error {
	var again atomic.Bool
	return func(context.Context, chunk.Place) error {
		if !again.Swap(true) {
			f()
		}
		return nil
	}
}

// TestVerdictsOfTheGone: a box that waits for what another one reads is not held up if that
// one goes, fails, is slow to take its answer, or never gets on.
func TestVerdictsOfTheGone(t *testing.T) {
	// others starts a box at once, and a second one when the first one reads. The first one
	// ends after the channel was closed.
	others := func(c *checker, first, second func(), ended chan bool) {
		var both sync.WaitGroup
		both.Go(first)
		synctest.Wait()
		start := time.Now()
		second()
		if took := time.Since(start); took > flushEvery+time.Second {
			c.t.Errorf("the second box took %v", took)
		}
		close(ended)
		both.Wait()
	}
	inBubble(t, "goes, while the store lingers", 1, 100, func(t *testing.T, c *checker) {
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan bool)
		c.check = atFirst(func() { <-ended })
		others(c, func() {
			if err := c.ask(ctx, httptest.NewRecorder(), c.places); !errors.Is(err, context.Canceled) {
				t.Errorf("the first box: %v", err)
			}
		}, func() {
			time.AfterFunc(time.Millisecond, leave)
			c.box()
			if n := c.all(); n != 101 {
				t.Errorf("%d looks", n)
			}
		}, ended)
	})
	inBubble(t, "never gets on", 1, 100, func(t *testing.T, c *checker) {
		ended := make(chan bool)
		c.check = atFirst(func() { <-ended })
		others(c, func() { c.box() }, func() {
			c.box()
		}, ended)
	})
	inBubble(t, "panics", 1, 100, func(t *testing.T, c *checker) {
		c.check = atFirst(func() { time.Sleep(time.Millisecond); panic("a bug") })
		others(c, func() { defer func() { recover() }(); c.box() }, func() { c.box() }, make(chan bool))
	})
	inBubble(t, "does not take its answer", 1, 300, func(t *testing.T, c *checker) {
		c.check = func(context.Context, chunk.Place) error { time.Sleep(20 * time.Millisecond); return nil }
		deaf := &deafClient{ResponseWriter: httptest.NewRecorder(), taken: make(chan bool)}
		var gone sync.WaitGroup
		gone.Go(func() { c.ask(t.Context(), deaf, c.places) })
		time.Sleep(flushEvery + time.Second)
		synctest.Wait()
		start := time.Now()
		if a := c.box(); a != string(make([]byte, 300)) || time.Since(start) > 200*20*time.Millisecond {
			t.Errorf("another box took %v, and hears %x", time.Since(start), a)
		}
		close(deaf.taken)
		gone.Wait()
	})
	inBubble(t, "begins and goes, again and again", 1, 100, func(t *testing.T, c *checker) {
		c.check = func(ctx context.Context, at chunk.Place) error { time.Sleep(time.Millisecond); return nil }
		ctx, stop := context.WithCancel(t.Context())
		var gone sync.WaitGroup
		for range 15 {
			gone.Go(func() {
				for err := error(nil); ctx.Err() == nil && err == nil; time.Sleep(time.Microsecond) {
					ctx, cancel := context.WithTimeout(ctx, time.Millisecond/2)
					if err = c.ask(ctx, httptest.NewRecorder(), c.places); errors.Is(err, context.DeadlineExceeded) {
						err = nil
					}
					cancel()
				}
			})
		}
		start := time.Now()
		c.box()
		if took := time.Since(start); took > time.Second {
			t.Errorf("a box took %v", took)
		}
		stop()
		gone.Wait()
	})
}

// deafClient is a client that takes nothing.
type deafClient struct {
	http.ResponseWriter
	taken chan bool
}

func (d *deafClient) Write(b []byte) (int, error) { <-d.taken; return len(b), nil }

// TestVerdictsOnTheirWay: a request that waits for another one sends what it knows, at
// least every flushEvery.
func TestVerdictsOnTheirWay(t *testing.T) {
	inBubble(t, "", 1, 64, func(t *testing.T, c *checker) {
		c.box()
		c.s.verdicts.forget(c.place(t, 40))
		ended := make(chan bool)
		c.check = atFirst(func() { <-ended })
		var other sync.WaitGroup
		other.Go(func() { c.ask(t.Context(), httptest.NewRecorder(), c.places[40:]) })
		synctest.Wait()
		c.lacks = func(at chunk.Place) error { // so that the verdicts are due before the wait is over
			if at.Chunk == 10 {
				time.Sleep(lookFor)
			}
			return nil
		}
		w := &timedClient{ResponseRecorder: httptest.NewRecorder()}
		start := time.Now()
		if err := c.ask(t.Context(), w, c.places); err != nil {
			t.Error(err)
		}
		if len(w.writes) < 2 || w.writes[0].Sub(start) > flushEvery {
			t.Errorf("there were writes at %v, from %v on", w.writes, start)
		}
		close(ended)
		other.Wait()
	})
}

// timedClient notes when something came.
type timedClient struct {
	*httptest.ResponseRecorder
	writes []time.Time
}

func (c *timedClient) Write(b []byte) (int, error) {
	c.writes = append(c.writes, time.Now())
	return c.ResponseRecorder.Write(b)
}
