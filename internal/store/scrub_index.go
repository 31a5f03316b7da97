package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"testbox-imaging/internal/index"
	"testbox-imaging/internal/words"
)

// packGone adds a fault for a pack that somebody removed.
func (sc *scrubber) packGone(n uint32, p packInfo) {
	i := sc.fault(Fault{File: packName(p.kind, n), Err: fmt.Errorf("it is not there, with %s", words.Count(p.objects, "object"))})
	delete(sc.packs, n)
	sc.s.mu.Lock()
	defer sc.s.mu.Unlock()
	delete(sc.s.packs, n)
	sc.drop(func(it index.Item, _ bool) (int, bool) { return i, it.Loc.Pack == n })
}

// drop removes lost objects from the index, and notes the fault of each. The
// mutex of contents is held.
func (sc *scrubber) drop(gone func(it index.Item, whole bool) (fault int, gone bool)) {
	sc.whole.RemoveFunc(func(it index.Item, whole bool) bool {
		i, yes := gone(it, whole)
		if yes {
			sc.lost[keyOf(it)] = i
			sc.s.dirty = true
		}
		return yes
	})
	clear(sc.s.complete)
}

// dangling removes objects from the index that were not found where it says.
func (sc *scrubber) dangling() {
	sc.s.mu.Lock()
	defer sc.s.mu.Unlock()
	of := map[uint32][]int{} // pack -> its faults
	for i, f := range sc.report.Faults {
		if _, n, ok := parsePackName(f.File); ok {
			of[n] = append(of[n], i)
		}
	}
	sc.drop(func(it index.Item, whole bool) (int, bool) {
		p, read := sc.packs[it.Loc.Pack]
		if !read || whole {
			return 0, false
		}
		for _, i := range of[it.Loc.Pack] {
			if f := &sc.report.Faults[i]; f.Off <= int64(it.Loc.Off) && int64(it.Loc.Off) < f.Off+f.Len {
				return i, true
			}
		}
		if n := len(of[it.Loc.Pack]); n > 0 { // the pack was cut short
			return of[it.Loc.Pack][n-1], true
		}
		sc.report.Faults = append(sc.report.Faults, Fault{File: packName(p.kind, it.Loc.Pack), Off: int64(it.Loc.Off), Len: 1,
			Err: fmt.Errorf("the index says that %v is here, and it is not", it.Kind)})
		return len(sc.report.Faults) - 1, true
	})
}

// badList checks the list of damaged objects. The list is written anew at the
// end.
func (sc *scrubber) badList(ctx context.Context) {
	_, err := readEnvelope(ctx, sc.s.cfg.Blobs, badName, "bad", maxBad)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		sc.fault(Fault{File: badName, Err: err})
	}
}

// indexFile checks the snapshot of the index. If it is damaged or missing, it
// is written anew at the end.
func (sc *scrubber) indexFile() {
	if sc.s.cfg.Dir == "" {
		return
	}
	f, err := sc.s.cfg.State.Open(filepath.Join(sc.s.cfg.Dir, indexName))
	if err == nil {
		err = index.Verify(bufio.NewReaderSize(io.NewSectionReader(f, 0, f.Size()), 1<<20), sc.s.uuid)
		f.Close()
	}
	if err == nil {
		return
	}
	if !errors.Is(err, fs.ErrNotExist) {
		sc.fault(Fault{File: indexName, Err: err})
	}
	sc.s.mu.Lock()
	defer sc.s.mu.Unlock()
	sc.s.dirty = true
}
