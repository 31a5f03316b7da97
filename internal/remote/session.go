package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/wire"
)

const (
	// putsAtOnce and putBytes bound the requests that send objects: how many there are
	// at once, and how long one is, in bytes.
	putsAtOnce = 2
	putBytes   = 4 << 20
	// pagesAsked is how many pages are asked for at once. For each, the server may have
	// to read the page.
	pagesAsked = 64
	// closeWait bounds how long a session or an image tries to tell the server that it
	// is closed. The server finds out by itself later.
	closeWait = 10 * time.Second
)

// Session is a backup in progress. It implements chunk.Session.
type Session struct {
	c      *Client
	number uint64
	ctx    context.Context // ends when the session is closed
	end    context.CancelCauseFunc
	puts   batcher[object.Object]
	closed sync.Once

	mu      sync.Mutex // serializes commits; guards commits
	commits uint64     // number of calls of Commit
}

var _ chunk.Session = (*Session)(nil)

// Begin begins a backup. It ends the one before, since the server has one at a time.
func (c *Client) Begin() *Session {
	s := &Session{c: c, number: c.sessions.Add(1)}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	s.puts = batcher[object.Object]{c: c, ctx: s.ctx, atOnce: putsAtOnce, fits: fitsPut, do: s.put}
	return s
}

func fitsPut(batch []*wish[object.Object], next *wish[object.Object]) bool {
	n := len(next.job.Data)
	for _, w := range batch {
		n += len(w.job.Data)
	}
	return n <= putBytes && len(batch) < wire.MaxObjects
}

// Missing implements chunk.Session.
func (s *Session) Missing(ctx context.Context, keys []object.Key) (missing []object.Key, err error) {
	if err := context.Cause(s.ctx); err != nil {
		return nil, err
	}
	for len(keys) > 0 {
		n := batchOf(keys)
		part, err := s.missing(ctx, keys[:n])
		if err != nil {
			return nil, err
		}
		missing, keys = append(missing, part...), keys[n:]
	}
	return missing, ctx.Err()
}

// batchOf returns how many of the keys are asked for at once.
func batchOf(keys []object.Key) int {
	most := wire.MaxNames
	if slices.ContainsFunc(keys[:min(len(keys), most)], func(k object.Key) bool { return k.Kind != object.Chunk }) {
		most = pagesAsked
	}
	return min(len(keys), most)
}

func (s *Session) missing(ctx context.Context, keys []object.Key) (missing []object.Key, err error) {
	var answer []byte
	q := call{method: http.MethodPost, path: wire.MissingPath(s.number), parts: [][]byte{wire.AppendKeys(nil, keys)}}
	err = s.c.tryWhile(ctx, s.ctx, func(ctx context.Context) (bool, error) {
		return false, s.c.do(ctx, q, text(&answer, wire.MaxNames/8))
	})
	if err == nil {
		missing, err = wire.ParseBitmap(answer, keys)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server what it has: %w", err)
	}
	return missing, nil
}

// Put implements chunk.Session. The server compares the bytes with the name.
func (s *Session) Put(ctx context.Context, o object.Object) error {
	if err := o.Check(); err != nil {
		return errors.Join(context.Cause(s.ctx), err)
	}
	return s.puts.run(ctx, o)
}

func (s *Session) put(ctx context.Context, batch []*wish[object.Object]) ([]*wish[object.Object], error) {
	q := call{method: http.MethodPost, path: wire.ObjectsPath(s.number)}
	for _, w := range batch {
		q.parts = append(q.parts, wire.AppendHeader(nil, w.job), w.job.Data)
	}
	var answer []byte
	err := s.c.do(ctx, q, text(&answer, wire.MaxProblem))
	if err == nil {
		err = wire.ParseStored(answer, len(batch))
	}
	counted := len(batch)
	var p *wire.Problem
	switch {
	case errors.As(err, &p) && p.Counted < len(batch):
		counted = p.Counted
	case err != nil:
		return batch, err
	}
	for _, w := range batch[:counted] {
		w.end(nil)
	}
	batch = batch[counted:]
	var away *awayError
	if err == nil || errors.As(err, &away) {
		return batch, err
	}
	batch[0].end(fmt.Errorf("%v: %w", batch[0].job.Key, err))
	return batch[1:], nil
}

// Commit implements chunk.Session. The server sets the time of the record. If the
// server was away at the end, the backup may have been committed all the same.
func (s *Session) Commit(ctx context.Context, r *image.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	body, err := wire.MarshalRecord(r)
	if err != nil {
		return err
	}
	s.commits++
	q := call{method: http.MethodPost, path: wire.CommitPath(s.number, s.commits), parts: [][]byte{body}}
	var answer []byte
	start := time.Now()
	err = s.c.tryWhile(ctx, s.ctx, func(ctx context.Context) (bool, error) { return s.commit(ctx, q, start, &answer) })
	if err != nil {
		return fmt.Errorf("commit the backup: %w", err)
	}
	done, err := wire.ParseCommitted(answer)
	if err != nil {
		return fmt.Errorf("commit the backup: %w", err)
	}
	r.ID, r.Time, r.After = done.ID, done.Time, done.After
	return nil
}

// commit repeats a commit as long as the server works on it.
func (s *Session) commit(ctx context.Context, q call, start time.Time, answer *[]byte) (further bool, err error) {
	for ; time.Since(start) < wire.CommitWait; further = true {
		working := false
		err = s.c.do(ctx, q, func(status int, body io.Reader) error {
			if working = status == http.StatusAccepted; working {
				return wire.ReadEnd(body)
			}
			return text(answer, wire.MaxProblem)(status, body)
		})
		if err != nil || !working {
			return further, err
		}
		s.c.cfg.Alive()
		if err := pause.For(ctx, 50*time.Millisecond); err != nil { // if a server answers at once each time
			return further, err
		}
	}
	return further, fmt.Errorf("the server has worked on it for %v, and has not ended", wire.CommitWait)
}

// Close implements chunk.Session.
func (s *Session) Close() (err error) {
	s.closed.Do(func() {
		s.end(fmt.Errorf("a backup in progress: %w", chunk.ErrClosed))
		err = s.c.tell(wire.SessionPath(s.number))
	})
	return err
}

// tell tells the server that something is closed. A server that is away finds out by
// itself.
func (c *Client) tell(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	err := c.try(ctx, func(ctx context.Context) (bool, error) {
		return false, c.do(ctx, call{method: http.MethodDelete, path: path}, none)
	})
	var away *AwayError
	if errors.As(err, &away) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
