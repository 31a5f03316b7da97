package boxapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// backup returns the session of a request. Only a token that may add a backup has
// one.
func (q *request) backup() (*session, func(), error) {
	n, err := q.number("session")
	if err != nil {
		return nil, nil, err
	}
	if !q.grant.Backup {
		return nil, nil, &wire.Problem{Code: wire.CodeForbidden, Text: "this job makes no backup"}
	}
	return q.s.session(q.client, n)
}

func (s *Server) missing(ctx context.Context, q *request) error {
	ses, done, err := q.backup()
	if err != nil {
		return err
	}
	defer done()
	body, release, err := q.small(ctx, wire.MaxKeys, 3)
	if err != nil {
		return err
	}
	defer release()
	keys, err := wire.ParseKeys(body)
	if err != nil {
		return errRefused(err)
	}
	missing, err := ses.backup.Missing(ctx, keys)
	if err != nil {
		return err
	}
	answer, err := wire.Bitmap(keys, missing)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, bytesType, answer)
}

// buffers has buffers for the stored form of objects.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// objects stores the objects of a request one after the other. Those before a
// problem are counted.
func (s *Server) objects(ctx context.Context, q *request) error {
	ses, done, err := q.backup()
	if err != nil {
		return err
	}
	defer done()
	if q.ContentLength < 0 || q.ContentLength > wire.MaxBody+wire.MaxObjects*wire.FrameSize {
		return errRefused(fmt.Errorf("%d bytes of objects are not said to come, or are too many", q.ContentLength))
	}
	body, buf := q.body(), buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for n := 0; ; n++ {
		h, err := wire.ReadHeader(body)
		switch {
		case err == io.EOF && n > 0:
			q.received()
			return q.answer(http.StatusOK, jsonType, wire.Marshal(wire.Stored{Counted: n}))
		case err != nil:
			err = errRefused(fmt.Errorf("read the header of an object: %w", err))
		case n == wire.MaxObjects || h.Lack != nil:
			err = errRefused(fmt.Errorf("there are more than %d objects, or what stands for one that is missing", wire.MaxObjects))
		default:
			err = q.object(ctx, ses, &h, body, buf)
		}
		if err != nil {
			return &countedError{n, err}
		}
	}
}

// object stores the object whose header was read. The session compares it with its
// name.
func (q *request) object(ctx context.Context, ses *session, h *wire.Header, body io.Reader, buf *[]byte) error {
	release, err := q.hold(ctx, int64(h.Stored)+int64(h.Raw))
	if err != nil {
		return err
	}
	defer release()
	o, err := h.ReadObject(body, *buf)
	if err != nil {
		return errRefused(fmt.Errorf("read %v: %w", h.Key, err))
	}
	if cap(o.Data) > cap(*buf) && cap(o.Data) <= object.MaxChunk {
		*buf = o.Data[:0]
	}
	if !ses.add(int64(len(o.Data)), q.grant.Most) {
		return &wire.Problem{Code: wire.CodeFull, Text: fmt.Sprintf("this session may store %d bytes", q.grant.Most)}
	}
	if err := ses.backup.Put(ctx, o); err != nil {
		return err
	}
	q.s.cfg.Sent(q.token, int64(len(o.Data)))
	return nil
}

// add counts bytes of objects. It returns false if they are too many.
func (ses *session) add(n, most int64) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if most > 0 && ses.stored+n > most {
		return false
	}
	ses.stored += n
	return true
}

func (s *Server) endSession(ctx context.Context, q *request) error {
	n, err := q.number("session")
	if err != nil {
		return err
	}
	s.mu.Lock()
	switch c := q.client; {
	case n > c.last:
		c.endSession()
		c.last, c.ended = n, true
	case n == c.last:
		c.endSession()
		c.ended = true
	}
	s.mu.Unlock()
	if err := q.unused(ctx, part{number: n}); err != nil {
		return err
	}
	return q.answer(http.StatusNoContent, "", nil)
}

// commit is one call of Commit by an agent. It goes on when the connection ends, and
// whoever repeats the request gets its result.
type commit struct {
	number uint64
	body   object.Name // of the request
	done   chan struct{}
	record *image.Record // when done, if err is nil
	err    error
}

func (s *Server) commit(ctx context.Context, q *request) error {
	n, err := q.number("commit")
	if err != nil {
		return err
	}
	ses, done, err := q.backup()
	if err != nil {
		return err
	}
	defer done()
	body, release, err := q.small(ctx, wire.MaxRecord, readFactor)
	if err != nil {
		return err
	}
	defer release()
	r, err := wire.ParseRecord(body)
	if err == nil {
		err = mayCommit(r, &q.grant)
	}
	if err != nil {
		return errRefused(err)
	}
	c, err := s.begin(ses, n, object.NameOf(body), r, q.grant.Add)
	if err != nil {
		return err
	}
	timer := time.NewTimer(s.cfg.Answer)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		return q.answer(http.StatusAccepted, "", nil)
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.err != nil {
		return c.err
	}
	committed := wire.Committed{ID: c.record.ID, Time: c.record.Time, After: c.record.After}
	return q.answer(http.StatusOK, jsonType, wire.Marshal(committed))
}

// mayCommit returns an error if a grant does not allow to commit a record. It sets
// what the server knows better than the box.
func mayCommit(r *image.Record, g *Grant) error {
	switch {
	case r.Box != g.Box:
		return &wire.Problem{Code: wire.CodeForbidden, Text: fmt.Sprintf("this job is of box %s, and the record of %s", g.Box, r.Box)}
	case r.Arming != "" && r.Arming != g.Arming:
		return &wire.Problem{Code: wire.CodeForbidden, Text: "the record is of another arming than this job"}
	}
	r.Arming = g.Arming
	return nil
}

// addFunc is Grant.Add.
type addFunc = func(ctx context.Context, r *image.Record, add func(context.Context) error) error

// begin begins a commit, unless the same request has begun it before.
func (s *Server) begin(ses *session, n uint64, body object.Name, r *image.Record, add addFunc) (*commit, error) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if last := ses.commit; last != nil {
		switch {
		case n == last.number && body == last.body:
			return last, nil
		case n <= last.number:
			return nil, errRefused(fmt.Errorf("commit %d of this session was another one, or there was a later one", n))
		}
		select {
		case <-last.done:
		default:
			return nil, errBusy("commit %d of this session has not ended yet", last.number)
		}
	}
	if !s.enter() {
		return nil, errBusy("the server is about to end")
	}
	c := &commit{number: n, body: body, done: make(chan struct{})}
	ses.commit = c
	go func() {
		defer s.busy.Done()
		ctx, cancel := context.WithTimeout(s.ctx, wire.CommitWait)
		defer cancel()
		c.record, c.err = s.run(ctx, ses, r, add)
		close(c.done)
	}()
	return c, nil
}

// run commits a backup, unless its arming has made one already. That is so if the
// server ended after an earlier commit and before its answer.
func (s *Server) run(ctx context.Context, ses *session, r *image.Record, add addFunc) (*image.Record, error) {
	unlock, err := s.lockBox(ctx, r.Box)
	if err != nil {
		return nil, err
	}
	defer unlock()
	select {
	case s.adds <- struct{}{}:
		defer func() { <-s.adds }()
	case <-ctx.Done():
		return nil, fmt.Errorf("other backups are being committed: %w", ctx.Err())
	}
	have, err := s.committed(ctx, r.Box, r.Arming)
	switch {
	case err != nil:
		return nil, err
	case have == nil:
		commit := func(ctx context.Context) error { return ses.backup.Commit(ctx, r) }
		if add == nil {
			return r, commit(ctx)
		}
		return r, add(ctx, r, commit)
	case !sameDisks(have, r):
		return nil, errRefused(fmt.Errorf("this job has made backup %s already, with other images", have.ID))
	}
	return have, nil
}

func (s *Server) committed(ctx context.Context, of string, arming box.Arming) (*image.Record, error) {
	if s.cfg.Committed == nil || arming == "" {
		return nil, nil
	}
	have, err := s.cfg.Committed(ctx, of, arming)
	if err != nil {
		return nil, fmt.Errorf("look for an earlier backup of this job: %w", err)
	}
	return have, nil
}

// sameDisks reports whether two records have the same images.
func sameDisks(a, b *image.Record) bool {
	if len(a.Disks) != len(b.Disks) {
		return false
	}
	for i := range a.Disks {
		if a.Disks[i].Name != b.Disks[i].Name || a.Disks[i].Root != b.Disks[i].Root {
			return false
		}
	}
	return true
}

// lockBox waits until no other backup of a box is being committed.
func (s *Server) lockBox(ctx context.Context, name string) (unlock func(), err error) {
	for {
		s.mu.Lock()
		other := s.commits[name]
		if other == nil {
			mine := make(chan struct{})
			s.commits[name] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.commits, name)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("another backup of %s is being committed: %w", name, ctx.Err())
		}
	}
}
