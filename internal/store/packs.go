package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// packKind is what a pack is for. Trees have packs of their own, so that they
// are read fast, and so that they can be removed before the chunks that they
// name.
type packKind string

const (
	trees  packKind = "tree" // pages and roots
	chunks packKind = "data"
)

func kindOf(k object.Kind) packKind {
	if k == object.Chunk {
		return chunks
	}
	return trees
}

const packPrefix = "packs/"

func packName(k packKind, n uint32) string { return fmt.Sprintf("%s%s-%08x", packPrefix, k, n) }

func parsePackName(name string) (packKind, uint32, bool) {
	kind, hex, ok := strings.Cut(strings.TrimPrefix(name, packPrefix), "-")
	n, err := strconv.ParseUint(hex, 16, 32)
	if !ok || err != nil || packName(packKind(kind), uint32(n)) != name || packKind(kind) != trees && packKind(kind) != chunks {
		return "", 0, false
	}
	return packKind(kind), uint32(n), true
}

// packer writes packs.
type packer struct {
	*site
	*contents
	*snapshot

	packMu  sync.Mutex // guards the fields below; locked before saveMu and mu
	open    map[packKind]*openPack
	sealing map[packKind]*openPack // the previous pack of each kind, while it is made durable
}

// openPack is a pack that is being written.
type openPack struct {
	kind    packKind
	number  uint32
	w       *pack.Writer
	entries []pack.Entry
	sealed  chan struct{} // closed when the sealing has ended
}

// append adds an object to the open pack of its kind. packMu is held.
func (s *packer) append(o object.Object) (uint32, pack.Entry, error) {
	kind := kindOf(o.Kind)
	if p := s.open[kind]; p != nil && p.w.Len() > 0 && p.w.Size()+int64(len(o.Data)) > s.cfg.PackSize {
		s.startSeal(p)
	}
	p, err := s.openPack(kind)
	if err != nil {
		return 0, pack.Entry{}, err
	}
	e, err := p.w.Append(o)
	if err != nil {
		s.giveUp(p, err)
		delete(s.open, kind)
		return 0, pack.Entry{}, err
	}
	p.entries = append(p.entries, e)
	return p.number, e, nil
}

// openPack returns the pack to append to. A pack is written for longer than any
// single backup lasts, so it is not bound to a caller's context.
func (s *packer) openPack(kind packKind) (*openPack, error) {
	if p := s.open[kind]; p != nil {
		return p, nil
	}
	p, err := s.newPack(kind)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.unsealed[p.number] = struct{}{}
	s.mu.Unlock()
	s.open[kind] = p
	return p, nil
}

// nextPack returns a number that is above those of all packs.
func (s *contents) nextPack() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// takeNumber gives a number to a new pack. Trees get even numbers, data gets
// odd ones. If two processes use the same number by mistake, both use the same
// name, and only one of them can create it.
func (s *contents) takeNumber(kind packKind) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := max(s.next, 1)
	if (n%2 == 0) != (kind == trees) {
		n++
	}
	s.next = n + 1
	return n
}

// newPack begins a pack. The caller makes it known to others.
func (s *packer) newPack(kind packKind) (*openPack, error) {
	n := s.takeNumber(kind)
	if n > index.MaxPack {
		return nil, errors.New("the store has had more packs than it can number; copy it to a new one")
	}
	sink, err := s.cfg.Blobs.Create(context.Background(), packName(kind, n), blob.None)
	if err != nil {
		return nil, fmt.Errorf("begin a pack: %w", err)
	}
	w, err := pack.NewWriter(sink, pack.Header{Number: n, Store: s.uuid})
	if err != nil {
		w.Abort()
		return nil, err
	}
	return &openPack{kind: kind, number: n, w: w, sealed: make(chan struct{})}, nil
}

// startSeal seals an open pack in the background. Of each kind, only one pack
// is sealed at a time, which bounds what waits for the disk. packMu is held.
func (s *packer) startSeal(p *openPack) {
	if before := s.sealing[p.kind]; before != nil {
		<-before.sealed
	}
	delete(s.open, p.kind)
	s.sealing[p.kind] = p
	go func() {
		defer close(p.sealed)
		if err := p.w.Seal(); err != nil {
			s.giveUp(p, err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.packs[p.number] = packInfo{p.kind, p.w.Size(), uint32(p.w.Len())}
		delete(s.unsealed, p.number)
		s.dirty = true
		s.unsaved++
	}()
}

// giveUp removes the objects of a pack that could not be written from the
// index. Backups that rely on them then find them missing.
func (s *packer) giveUp(p *openPack, err error) {
	p.w.Abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range p.entries {
		s.index.Remove(e.Key, p.number, e.Off)
	}
	delete(s.unsealed, p.number)
	clear(s.complete)
	s.lost = err
	s.losses++
	s.cfg.Log("pack %d could not be written, what was in it is missing: %v", p.number, err)
}

// sealAll seals all open packs. After that, all objects put so far are durable,
// or missing from the index.
func (s *packer) sealAll() {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	for _, p := range s.open {
		s.startSeal(p)
	}
	for _, p := range s.sealing {
		<-p.sealed
	}
	clear(s.sealing)
	s.saveSometimes()
}
