// Package mem keeps blobs in memory.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"testbox-imaging/internal/blob"
)

// Store is a blob.Store in memory. The zero value is empty.
type Store struct {
	mu    sync.RWMutex // guards blobs; the bytes of a blob never change
	blobs map[string][]byte
}

// Create implements blob.Store.
func (s *Store) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	return &writer{s: s, ctx: ctx, name: name, over: over}, ctx.Err()
}

func (s *Store) get(ctx context.Context, name string) ([]byte, error) {
	if err := blob.CheckName(name); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.blobs[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return b, ctx.Err()
}

// ReadAt implements blob.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	b, err := s.get(ctx, name)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d", name, off)
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

// Size implements blob.Store.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	b, err := s.get(ctx, name)
	return int64(len(b)), err
}

// Version implements blob.Store.
func (s *Store) Version(ctx context.Context, name string) (blob.Version, error) {
	b, err := s.get(ctx, name)
	if err != nil {
		return blob.None, err
	}
	return versionOf(b), nil
}

func versionOf(b []byte) blob.Version {
	sum := sha256.Sum256(b)
	return blob.Version(hex.EncodeToString(sum[:]))
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) (out []blob.Info, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(s.blobs)) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, blob.Info{Name: name, Size: int64(len(s.blobs[name]))})
		}
	}
	return out, ctx.Err()
}

// Remove implements blob.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := errors.Join(blob.CheckName(name), ctx.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, name)
	return nil
}

// Clone returns a store with the same blobs.
func (s *Store) Clone() *Store {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Store{blobs: maps.Clone(s.blobs)}
}

type writer struct {
	s    *Store
	ctx  context.Context
	name string
	over blob.Version
	buf  bytes.Buffer
	done bool
}

func (w *writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, io.ErrClosedPipe
	}
	return w.buf.Write(p)
}

func (w *writer) Commit() error {
	if w.done {
		return fmt.Errorf("commit of %s, which is finished", w.name)
	}
	if w.done = true; w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	old, there := w.s.blobs[w.name]
	switch {
	case w.over == blob.Any:
	case w.over == blob.None && there:
		return &fs.PathError{Op: "write", Path: w.name, Err: fs.ErrExist}
	case w.over != blob.None && (!there || versionOf(old) != w.over):
		return &fs.PathError{Op: "write", Path: w.name, Err: blob.ErrChanged}
	}
	if w.s.blobs == nil {
		w.s.blobs = map[string][]byte{}
	}
	w.s.blobs[w.name] = w.buf.Bytes()
	return nil
}

func (w *writer) Abort() { w.done = true }
