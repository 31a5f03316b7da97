package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
)

// TestContents makes changes at random, and compares after each of them what is
// remembered with what the records say.
func TestContents(t *testing.T) {
	boxes := []string{"10.0.0.1", "10.0.0.2", "web"}
	for seed := range uint64(10) {
		d := rand.New(rand.NewPCG(seed, 0))
		blobs := &mem.Store{}
		s := open(t, blobs)
		for n := range 40 {
			box := boxes[d.IntN(len(boxes))]
			records, damaged, err := s.RecordsOf(t.Context(), box)
			must(t, err)
			what := d.IntN(8)
			switch {
			case what < 3 || len(records) == 0:
				commit(t, s, box, byte(n%25))
			case what == 3:
				must(t, s.Delete(t.Context(), records[d.IntN(len(records))]))
			case what == 4:
				_, err := s.SetTime(t.Context(), box, records[d.IntN(len(records))].ID, time.Now().AddDate(0, 0, d.IntN(40)-50))
				must(t, err)
			case what == 5:
				r := records[d.IntN(len(records))].Disks[0].Root
				must(t, s.NoteVerified(t.Context(), nil, Damages{r: {Root: r, Bytes: 512, Found: time.Now()}}))
			case what == 6 && len(damaged) == 0:
				id := records[d.IntN(len(records))].ID
				must(t, s.SetNote(t.Context(), box, id, "spoilt soon"))
				must(t, blob.WriteAll(t.Context(), blobs, recordName(box, id), []byte("spoilt")))
			case len(damaged) > 0:
				must(t, s.DeleteDamaged(t.Context(), damaged...))
			}
			got, err := s.Contents(t.Context())
			must(t, err)
			records, damaged, err = s.Records(t.Context())
			must(t, err)
			damages, err := s.Damages(t.Context())
			must(t, err)
			lacking := map[string]int64{}
			var data int64
			for _, r := range records {
				data += r.Disks[0].Data
				for _, of := range damages.Of(r) {
					lacking[r.Box+"@"+r.ID] = of.Bytes
				}
			}
			for _, l := range got.Lacking {
				if lacking[l.Box+"@"+l.Backup] != l.Bytes || l.Disk != "sda" {
					t.Fatalf("%+v is not damaged", l)
				}
			}
			if got.Backups != len(records) || got.Data != data || len(got.Unreadable) != len(damaged) || len(got.Lacking) != len(lacking) {
				t.Fatalf("seed %d, after %d (%d): got %+v, want %d backups with %d bytes, %d unreadable, %v lacking", seed, n, what, got,
					len(records), data, len(damaged), lacking)
			}
		}
	}
}

// TestContentsReads holds what it costs to ask again: only boxes with changes are listed and read, until
// it is time to look for the changes of others.
func TestContentsReads(t *testing.T) {
	blobs := &readsOf{Store: &mem.Store{}, reads: map[string]int{}}
	s := open(t, blobs)
	for i := range 5 {
		for range 3 {
			commit(t, s, fmt.Sprintf("10.0.0.%d", i), byte(i))
		}
	}
	look := func(want, backups int) {
		t.Helper()
		before := blobs.count()
		got, err := s.Contents(t.Context())
		must(t, err)
		if n := blobs.count() - before; n > want || n < want/2 || got.Backups != backups || got.Data != int64(backups)*8192 {
			t.Errorf("%d reads instead of %d for %+v", n, want, got)
		}
	}
	first := 15 * 2 // a record takes two reads at most
	look(first, 15)
	blobs.lists = nil
	look(0, 15)
	if len(blobs.lists) != 0 {
		t.Errorf("nothing has changed, and these were listed: %q", blobs.lists)
	}
	commit(t, s, "10.0.0.3", 7)
	commit(t, s, "new", 8)
	blobs.lists = nil
	look((4+1)*2, 17)
	slices.Sort(blobs.lists)
	if want := []string{recordPrefix + "10.0.0.3/", recordPrefix + "new/"}; !slices.Equal(blobs.lists, want) {
		t.Errorf("%q were listed, and not %q", blobs.lists, want)
	}
	// Somebody removes a record by hand.
	names, err := blobs.Store.List(t.Context(), recordPrefix+"new/")
	must(t, err)
	must(t, blobs.Remove(t.Context(), names[0].Name))
	look(0, 17)
	s.told.trust = 0
	look(0, 16)
}

func TestRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	must(t, InitDir(t.Context(), path))
	s, err := OpenDir(t.Context(), path, nil, false, t.Logf)
	must(t, err)
	defer s.Close()
	room, free, ok := s.Room()
	if !ok || free <= 0 || room < free {
		t.Errorf("%d of %d bytes are free, %v", free, room, ok)
	}
	s.remote = true
	if room, free, ok := s.Room(); ok || room != 0 || free != 0 {
		t.Errorf("in object storage %d of %d bytes are free", free, room)
	}
	s.remote = false
	must(t, os.RemoveAll(path))
	if room, free, ok := s.Room(); ok || room != 0 || free != 0 {
		t.Errorf("of a store that is gone %d of %d bytes are free", free, room)
	}
}
