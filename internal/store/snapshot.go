package store

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/index"
)

const indexName = "index"

// maxIndex limits the size of the snapshot, in bytes.
const maxIndex = 64 << 30

// snapshot reads and writes the file with the index.
type snapshot struct {
	*site
	*contents
	saveMu sync.Mutex // serializes writing; locked before mu
}

// readIndex reads the snapshot.
func (s *snapshot) readIndex() (*index.Index, []index.Pack, error) {
	if s.cfg.Dir == "" {
		return nil, nil, fs.ErrNotExist
	}
	f, err := s.cfg.State.Open(filepath.Join(s.cfg.Dir, indexName))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return index.Read(bufio.NewReaderSize(io.NewSectionReader(f, 0, min(f.Size(), maxIndex)), 1<<20), s.uuid)
}

// dropIndex removes the snapshot, since another folder may have written to the
// store after it. The removal must be durable before this folder becomes the
// owner again. In the other order, a process that ended between the two would
// leave a folder that looks as if it had been the owner all the time. A
// collection could then trust the old snapshot and remove packs that the other
// folder's backups need.
func (s *snapshot) dropIndex() error {
	if s.cfg.Dir == "" {
		return nil
	}
	path := filepath.Join(s.cfg.Dir, indexName)
	if _, err := durable.Size(s.cfg.State, path); err == nil {
		s.cfg.Log("another folder may have written to the store since the index was: it is made anew from the packs")
	}
	if err := durable.Remove(s.cfg.State, path); err != nil {
		return fmt.Errorf("remove an index that may be too old: %w", err)
	}
	return nil
}

// useIndex uses a snapshot for those of its packs that still exist with the
// same length and kind. Objects in its other packs are dropped.
func (s *loader) useIndex(x *index.Index, known []index.Pack, there map[uint32]packInfo) {
	gone := map[uint32]bool{}
	for _, p := range known {
		s.next = max(s.next, p.Number+1)
		now, ok := there[p.Number]
		if !ok || now.size != p.Size || (now.kind == trees) != p.Tree {
			gone[p.Number] = true
			s.cfg.Log("pack %d is not what the index says: it is gone, or has another length", p.Number)
			continue
		}
		now.objects = p.Objects
		s.packs[p.Number] = now
	}
	if len(gone) > 0 {
		s.dirty = true
		x.RemoveFunc(func(it index.Item) bool { return gone[it.Loc.Pack] })
	}
	for at, key := range s.bad {
		x.Remove(key, at.pack, at.off)
	}
	s.index = x
}

// saveEvery is the number of new packs after which the snapshot is written,
// before Close. It limits how many tables an Open has to read after a crash.
const saveEvery = 1024

// saveSometimes writes the snapshot if many packs are new. packMu is held, so
// no pack is open.
func (s *snapshot) saveSometimes() {
	s.mu.Lock()
	many := s.unsaved >= saveEvery
	s.mu.Unlock()
	if !many {
		return
	}
	if err := s.saveIndex(); err != nil {
		s.cfg.Log("%v", err)
	}
}

// saveIndex writes the snapshot. It is only a cache. If it is not written, the
// next Open takes longer. It is not written while packs are unsealed.
func (s *snapshot) saveIndex() error {
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	if s.cfg.Dir == "" {
		return nil
	}
	p, err := s.writeIndex()
	if p == nil && err == nil {
		return nil
	}
	if err == nil {
		err = p.Commit()
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dirty = true
		return fmt.Errorf("write the index: %w", err)
	}
	return nil
}

// writeIndex writes the snapshot to a file that the caller has to commit. It
// returns nil if there is nothing to write.
func (s *snapshot) writeIndex() (*durable.Pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty || len(s.unsealed) > 0 {
		return nil, nil
	}
	packs := make([]index.Pack, 0, len(s.packs))
	for n, p := range s.packs {
		packs = append(packs, index.Pack{Number: n, Size: p.size, Objects: p.objects, Tree: p.kind == trees})
	}
	slices.SortFunc(packs, func(a, b index.Pack) int { return cmp.Compare(a.Number, b.Number) })
	p, err := durable.Create(s.cfg.State, filepath.Join(s.cfg.Dir, indexName), 0o600)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(p, 1<<20)
	if err := errors.Join(s.index.WriteTo(w, s.uuid, packs), w.Flush()); err != nil {
		p.Abort()
		return nil, err
	}
	s.dirty, s.unsaved = false, 0
	return p, nil
}
