package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// TestGetAll: objects that are neighbours come by few reads, in any order, and each is
// what Get gives. One that is damaged or missing takes nothing from the others.
func TestGetAll(t *testing.T) {
	under := &mem.Store{}
	reads := 0
	blobs := &hooked{Store: under, before: func(op string) {
		if strings.HasPrefix(op, "read "+packPrefix+string(chunks)) {
			reads++
		}
	}}
	must(t, Init(t.Context(), blobs))
	s, err := Open(t.Context(), Config{Blobs: blobs, Log: t.Logf})
	must(t, err)
	d := newDisk(seeds(1, 100), seeds(201, 100))
	r := mustBackup(t, s, "x", day(1), d)
	im, err := s.OpenImage(t.Context(), r, "sda")
	must(t, err)
	defer im.Close()
	var at []chunk.Place
	for i := range 2 {
		region, err := im.Region(t.Context(), i)
		must(t, err)
		for j := range region.Len() {
			p, err := region.Place(j)
			must(t, err)
			at = append(at, p)
		}
	}
	g := im.Getter().(chunk.Bulk)
	get := func(room int, bad ...error) {
		t.Helper()
		var wrong []error
		n := 0
		must(t, g.GetAll(t.Context(), at, make([]byte, 0, room), func(o object.Object, err error) error {
			key := at[n].Key()
			n++
			if err == nil {
				var raw []byte
				if raw, err = o.Decode(nil); err == nil && object.NameOf(raw) != key.Name {
					err = fmt.Errorf("%v is number %d, and not %v", o, n-1, key)
				}
			}
			if err != nil {
				wrong = append(wrong, err)
			}
			return nil
		}))
		if n != len(at) || !slices.EqualFunc(wrong, bad, errors.Is) {
			t.Errorf("%d of %d came, errors are %v", n, len(at), wrong)
		}
	}
	for _, c := range []struct{ room, most int }{{1 << 20, 1}, {64 << 10, 20}, {0, 200}} {
		reads = 0
		if get(c.room); reads > c.most || reads == 0 {
			t.Errorf("%d objects took %d reads with %d bytes of room", len(at), reads, c.room)
		}
	}
	for i := 0; i+4 < len(at); i += 4 { // as if several goroutines had stored them
		rand.Shuffle(4, func(j, k int) { at[i+j], at[i+k] = at[i+k], at[i+j] })
	}
	reads = 0
	if get(1 << 20); reads > 3 {
		t.Errorf("objects that are almost in order took %d reads", reads)
	}
	refused := errors.New("refused")
	if err := g.CheckAll(t.Context(), at, make([]byte, 0, 1<<20), func(error) error { return refused }); err != refused {
		t.Errorf("the error of the caller became %v", err)
	}
	flip(t, under, packsOf(t, under, chunks)[0], 8*1000)
	lost := func() (lost []error) {
		for _, p := range at {
			if err := g.(chunk.Aware).Lacks(p); err != nil {
				lost = append(lost, err)
			}
		}
		return lost
	}
	if l := lost(); len(l) > 0 {
		t.Errorf("known to be lost before anybody has read it: %v", l)
	}
	get(1<<20, object.ErrDamaged)
	get(1<<20, chunk.ErrMissing)
	if l := lost(); len(l) != 1 || !errors.Is(l[0], chunk.ErrMissing) {
		t.Errorf("known to be lost: %v", l)
	}
	must(t, im.Close())
	if l := lost(); len(l) != len(at) || !errors.Is(l[0], chunk.ErrClosed) {
		t.Errorf("known of a closed image: %v", l)
	}
	closed := 0
	must(t, g.CheckAll(t.Context(), at, nil, func(err error) error {
		if errors.Is(err, chunk.ErrClosed) {
			closed++
		}
		return nil
	}))
	if closed != len(at) {
		t.Errorf("%d of %d objects of a closed image are refused", closed, len(at))
	}
}
