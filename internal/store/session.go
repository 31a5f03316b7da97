package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
)

// Session is a backup in progress, and implements chunk.Session. Objects that
// Missing reported as present, and objects that were put, are not collected
// before Close.
type Session struct {
	// Trusted says that this process made the objects that it puts. They are
	// then not unpacked to be compared with their names. That check would
	// increase the processor time of a first backup by half.
	Trusted   bool
	objects   *objects
	catalogue *Catalogue
	losses    int         // losses of the store when the session began
	closed    atomic.Bool // the session does nothing any more; set under the mutex of contents
	commits   int         // commits in progress; guarded by the mutex of contents
}

var _ chunk.Session = (*Session)(nil)

// Begin starts a backup. The caller closes the session.
func (s *Store) Begin() *Session {
	has := s.objects.contents
	has.mu.Lock()
	defer has.mu.Unlock()
	has.sessions++
	return &Session{objects: s.objects, catalogue: s.Catalogue, losses: has.losses}
}

// Close implements chunk.Session. Objects that were put and not committed are
// collected later. A commit in progress goes on, and its objects stay
// protected.
func (s *Session) Close() error {
	s.objects.mu.Lock()
	defer s.objects.mu.Unlock()
	if s.closed.CompareAndSwap(false, true) {
		s.endLast()
	}
	return nil
}

// beginCommit returns an error if the session is closed or ctx has ended.
// Otherwise Close does not end the protection of the session's objects before
// done is called.
func (s *Session) beginCommit(ctx context.Context) (done func(), err error) {
	s.objects.mu.Lock()
	defer s.objects.mu.Unlock()
	if err := s.live(ctx); err != nil {
		return nil, err
	}
	s.commits++
	return func() {
		s.objects.mu.Lock()
		defer s.objects.mu.Unlock()
		if s.commits--; s.closed.Load() {
			s.endLast()
		}
	}, nil
}

// endLast ends a closed session once its last commit has ended. The mutex of
// contents is held.
func (s *Session) endLast() {
	if s.commits == 0 {
		s.objects.sessions--
	}
}

// live returns an error if the session is closed or ctx has ended.
func (s *Session) live(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("a backup in progress: %w", chunk.ErrClosed)
	}
	return ctx.Err()
}

// Missing implements chunk.Session.
func (s *Session) Missing(ctx context.Context, keys []object.Key) (out []object.Key, err error) {
	if err := s.live(ctx); err != nil {
		return nil, err
	}
	for _, k := range keys {
		var there bool
		switch k.Kind {
		case object.Page:
			var n int64
			n, err = s.objects.closedPage(ctx, k.Name, nil)
			if errors.Is(err, chunk.ErrWrong) { // no backup can use it, as the commit says
				err = nil
			}
			there = n > 0
		default:
			there = s.objects.touch(k)
		}
		if err != nil {
			return nil, err
		}
		if !there {
			out = append(out, k)
		}
	}
	return out, ctx.Err()
}

// touch protects an object from collection, and reports whether it exists.
func (s *contents) touch(k object.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.index.Touch(k)
	return there
}

// closedPage reports whether a page is closed, that is, stored with all the
// chunks that it names. If it is, closedPage protects the page and its chunks
// from collection, and returns the length of the page's region. Else it returns
// 0. A page from an abandoned backup is not closed if some of its chunks were
// collected since. A page that cannot be read counts as missing. If missing is
// not nil, the keys of chunks that do not exist are appended to it. If the page
// gives a wrong length of a chunk, or is none, the error matches chunk.ErrWrong.
func (s *objects) closedPage(ctx context.Context, name object.Name, missing *[]object.Key) (int64, error) {
	key := object.Key{Kind: object.Page, Name: name}
	s.mu.Lock()
	n := s.complete[name]
	s.mu.Unlock()
	if n > 0 || !s.touch(key) {
		return n, nil
	}
	select {
	case s.pages <- struct{}{}:
		defer func() { <-s.pages }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	raw, err := s.raw(ctx, key)
	if IsLost(err) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	page, err := chunk.ParsePage(raw)
	if err != nil {
		return 0, wrong(key, err)
	}
	if whole, err := s.touchAll(key, page, missing); err != nil || !whole {
		return 0, err
	}
	return page.Len(), nil
}

// wrong makes an error of a root or a page whose bytes have their name, so that it
// was made wrongly.
func wrong(key object.Key, err error) error { return fmt.Errorf("%v %w: %w", key, chunk.ErrWrong, err) }

// touchAll protects a page and its chunks, and reports whether all of them exist.
func (s *contents) touchAll(key object.Key, page *chunk.Page, missing *[]object.Key) (whole bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, whole = s.index.Get(key) // the page may have been collected meanwhile
	for _, c := range page.Chunks {
		k := object.Key{Kind: object.Chunk, Name: c.Name}
		if l, there := s.index.Touch(k); there {
			if err := fitsChunk(c, l); err != nil {
				return false, wrong(key, err)
			}
			continue
		}
		whole = false
		if missing != nil {
			*missing = append(*missing, k)
		}
	}
	if whole {
		s.complete[key.Name] = page.Len()
	}
	return whole, nil
}

// fitsChunk returns an error if a page gives another length of a chunk than the
// chunk has.
func fitsChunk(c chunk.Ref, l index.Loc) error {
	if l.Raw != c.Len {
		return fmt.Errorf("chunk %v has %d bytes, and not %d", c.Name, l.Raw, c.Len)
	}
	return nil
}

// Put implements chunk.Session. The bytes are checked against the name, since
// another backup may rely on them later.
func (s *Session) Put(ctx context.Context, o object.Object) error {
	if err := errors.Join(s.live(ctx), o.Check()); err != nil {
		return err
	}
	if s.Trusted && o.Kind != object.Page {
		_, err := s.objects.put(o)
		return err
	}
	raw, _ := putBuffers.Get().(*[]byte)
	if raw == nil {
		raw = new([]byte)
	}
	defer putBuffers.Put(raw)
	var err error
	if *raw, err = o.Decode(*raw); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	added, err := s.objects.put(o)
	if added && o.Kind == object.Page {
		s.objects.newPage(o.Key, *raw)
	}
	return err
}

// putBuffers has buffers that objects are unpacked into for the check.
var putBuffers sync.Pool

// newPage notes whether all chunks of a newly put page exist. Otherwise
// closedPage would have to read the page, and so to seal its pack. A page that
// cannot be parsed, or gives a wrong length, never counts as complete.
func (s *objects) newPage(key object.Key, raw []byte) {
	if page, err := chunk.ParsePage(raw); err == nil {
		s.touchAll(key, page, nil)
	}
}

// put stores an object that was checked, and reports whether it is new.
func (s *objects) put(o object.Object) (added bool, err error) {
	if err := s.writable(); err != nil {
		return false, err
	}
	if s.touch(o.Key) {
		return false, nil
	}
	s.packMu.Lock()
	defer s.packMu.Unlock()
	if s.touch(o.Key) { // another goroutine was faster
		return false, nil
	}
	n, e, err := s.append(o)
	if err != nil {
		return false, fmt.Errorf("store %v: %w", o.Key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.index.Add(o.Key, loc(n, e)); err != nil {
		return false, err
	}
	s.index.Touch(o.Key)
	return true, nil
}
