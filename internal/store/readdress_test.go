package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/problem"
)

// frail is a blob store of which one change fails.
type frail struct {
	blob.Store
	left int
}

var errFrail = errors.New("the disk is full")

func (f *frail) take() error {
	if f.left--; f.left == -1 {
		return errFrail
	}
	return nil
}

func (f *frail) Create(ctx context.Context, name string, over blob.Version) (blob.Writer, error) {
	if err := f.take(); err != nil {
		return nil, err
	}
	return f.Store.Create(ctx, name, over)
}

func (f *frail) Remove(ctx context.Context, name string) error {
	if err := f.take(); err != nil {
		return err
	}
	return f.Store.Remove(ctx, name)
}

// Wherever it breaks off, no backup is lost, and the next try ends it.
func TestReaddress(t *testing.T) {
	const from, to = "10.0.0.1", "10.0.0.2"
	ctx := t.Context()
	for n := 0; ; n++ {
		f := &frail{Store: &mem.Store{}, left: 1 << 30}
		s := open(t, f)
		var want []string
		first := ""
		for i := range 3 {
			r := commit(t, s, from, byte(i))
			if i == 0 {
				first = r.ID
			}
			want = append(want, fmt.Sprint(r.ID, r.Disks[0].Root))
		}
		must(t, s.SetBaseline(ctx, from, first, true))
		other := commit(t, s, "10.0.0.3", 7)
		must(t, s.CheckReaddress(ctx, from, to))
		f.left = n
		err := s.Readdress(ctx, from, to)
		if err != nil && !errors.Is(err, errFrail) {
			t.Fatal(err)
		}
		f.left = 1 << 30
		all := map[string]bool{}
		records, _, listErr := s.Records(ctx)
		must(t, listErr)
		for _, r := range records {
			all[r.ID+fmt.Sprint(r.Disks[0].Root)] = true
		}
		if len(all) != 4 {
			t.Fatalf("after %d changes a backup is lost: %v", n, all)
		}
		if again := s.Readdress(ctx, from, to); again != nil {
			t.Fatalf("after %d changes it cannot be ended: %v", n, again)
		}
		old, _, listErr := s.RecordsOf(ctx, from)
		must(t, listErr)
		moved, _, listErr := s.RecordsOf(ctx, to)
		must(t, listErr)
		if len(old) != 0 || len(moved) != 3 || !moved[0].Baseline || moved[0].Box != to {
			t.Fatalf("after %d changes: %v, %v", n, old, moved)
		}
		for i, r := range moved {
			if fmt.Sprint(r.ID, r.Disks[0].Root) != want[i] {
				t.Errorf("%s is another backup than %s", r.ID, want[i])
			}
		}
		if latest, err := s.Latest(ctx, []string{from, to}); err != nil || latest[from].ID != "" || latest[to].ID != moved[2].ID {
			t.Errorf("%v, %v", latest, err)
		}
		if r, err := s.Record(ctx, other.Box, other.ID); err != nil || r.Box != other.Box {
			t.Error(err)
		}
		if err == nil {
			break
		}
	}
}

func TestReaddressRefused(t *testing.T) {
	blobs := &mem.Store{}
	s := open(t, blobs)
	ctx := t.Context()
	r := commit(t, s, "x", 0)
	commit(t, s, "y", 1)
	for to, want := range map[string]string{"y": "of another machine", "../z": "cannot be the name"} {
		if err := s.CheckReaddress(ctx, "x", to); !errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", to, err)
		}
	}
	w, err := blobs.Create(ctx, recordName("x", r.ID), blob.Any)
	must(t, err)
	_, err = w.Write([]byte("junk"))
	must(t, errors.Join(err, w.Commit()))
	if err := s.CheckReaddress(ctx, "x", "z"); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Error(err)
	}
	if err := s.Readdress(ctx, "x", "z"); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Error(err)
	}
	another := *commit(t, s, "v", 2)
	another.Box, another.Note = "w", "of another machine"
	s.recordMu.Lock()
	err = s.createRecord(ctx, &another)
	s.recordMu.Unlock()
	must(t, err)
	if err := s.Readdress(ctx, "v", "w"); err == nil || !strings.Contains(err.Error(), "another backup with the id") {
		t.Error(err)
	}
	if _, err := s.Record(ctx, "v", another.ID); err != nil {
		t.Error("a backup is gone that could not be moved")
	}
}
