package store

import (
	"testing"

	"testbox-imaging/internal/blob/mem"
)

func TestStats(t *testing.T) {
	blobs := &mem.Store{}
	s := newStore(t, blobs)
	if st, err := s.Stats(t.Context()); err != nil || st.Backups != 0 || st.Ratio() != 0 {
		t.Errorf("empty: %+v, %v", st, err)
	}
	d, e := newDisk(seeds(1, 40)), newDisk(seeds(1, 40), seeds(100, 40))
	mustBackup(t, s, "10.0.0.1", day(1), d)
	mustBackup(t, s, "10.0.0.1", day(2), d)
	gone := mustBackup(t, s, "10.0.0.2", day(2), e, d)
	size, packs := stored(t, blobs)
	if n := s.PackBytes(); n < size*9/10 || n > size { // records are no packs
		t.Errorf("the packs have %d bytes, of %d in all", n, size)
	}
	st, err := s.Stats(t.Context())
	must(t, err)
	if st.Backups != 3 || st.Disks != 3*d.size+e.size || st.Data != 200*cellSize || st.Stored != size || st.Packs != packs || st.Dead != 0 ||
		st.Objects != 80+3+2 {
		t.Errorf("got %+v of %d bytes in %d packs", st, size, packs)
	}
	if st.Ratio() < 4 || st.Ratio() > 6 {
		t.Errorf("200 cells, of which 80 are stored at half their length: ratio %v", st.Ratio())
	}
	if len(st.Boxes) != 2 || st.Boxes[0].Backups != 2 || st.Boxes[0].Data != 80*cellSize || !st.Boxes[0].Newest.Time.Equal(day(2)) ||
		st.Boxes[1].Box != "10.0.0.2" {
		t.Errorf("boxes are %+v", st.Boxes)
	}
	must(t, s.Delete(t.Context(), gone))
	st, err = s.Stats(t.Context())
	must(t, err)
	if st.Dead < size*4/10 || st.Dead > size*6/10 {
		t.Errorf("half of %d bytes are dead, not %d", size, st.Dead)
	}
	flip(t, blobs, recordName("10.0.0.1", "20261101-100000"), 900)
	st, err = s.Stats(t.Context())
	if err != nil || st.Damaged != 1 || st.Backups != 1 || st.Dead != -1 || st.Unknown == "" {
		t.Errorf("with a damaged record: %+v, %v", st, err)
	}
	flip(t, blobs, recordName("10.0.0.1", "20261101-100000"), 900)
}
