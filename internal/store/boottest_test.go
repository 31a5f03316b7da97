package store

import (
	"testing"
	"time"

	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/image"
)

// TestBootTestGoesAlong: the result of a boot test is kept with the backup, also in a copy
// that had the backup before, and a newer one there stays.
func TestBootTestGoesAlong(t *testing.T) {
	_, src := onBlobs(t)
	dst := newStore(t, &mem.Store{})
	r := mustBackup(t, src, "10.0.0.1", day(1), newDisk(seeds(1, 10)))
	result := func(at int, v image.Verdict) *image.BootTest {
		return &image.BootTest{Time: day(at).UTC().Truncate(time.Second), Verdict: v, Sign: image.SignRead, Firmware: "bios"}
	}
	_, err := copyAny(t, src, dst)
	must(t, err)
	must(t, src.SetBoot(t.Context(), r.Box, r.ID, result(2, image.BootFailed)))
	_, err = copyAny(t, src, dst)
	must(t, err)
	there, err := dst.Record(t.Context(), r.Box, r.ID)
	must(t, err)
	if there.Boot == nil || there.Boot.Verdict != image.BootFailed {
		t.Errorf("the copy has %+v", there.Boot)
	}
	must(t, dst.SetBoot(t.Context(), r.Box, r.ID, result(3, image.BootUnproven)))
	_, err = copyAny(t, src, dst)
	must(t, err)
	if there, err = dst.Record(t.Context(), r.Box, r.ID); err != nil || there.Boot.Verdict != image.BootUnproven {
		t.Errorf("the newer result of the copy is lost: %+v, %v", there, err)
	}
	passed := result(4, image.BootPassed)
	if src.SetBoot(t.Context(), r.Box, r.ID, passed) == nil {
		t.Error("a pass without a login is kept")
	}
	passed = result(4, image.BootUnproven)
	passed.Picture = []byte("no picture")
	if src.SetBoot(t.Context(), r.Box, r.ID, passed) == nil {
		t.Error("a picture that is none is kept")
	}
}
