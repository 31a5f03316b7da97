package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/testenv"
)

// TestAlteredByte: a disk keeps one byte otherwise than it was told to, in one
// of the writes of that place. In what a machine boots by that is noticed even
// if nothing else is read back.
func TestAlteredByte(t *testing.T) { eachKind(t, alteredByte) }

func alteredByte(t *testing.T, kind string) {
	size := int64(len(benchDisks[0]))
	tail := size - mib
	modes := testenv.Effort([]ReadBack{VerifyNone}, []ReadBack{VerifyAll, VerifyWritten, VerifyNone})
	for name, at := range map[string]int64{
		"the first byte": 0, "the first half of the head": mib/2 - 1, "the second half": mib / 2, "the head's end": mib - 1,
		"the body's begin": mib, "the body": mib + mib/2, "its last piece": 2*mib + 7, "the body's end": tail - 1,
		"the tail's begin": tail, "the tail": tail + mib/2, "the second half of the tail": tail + mib/2 + 1, "the last byte": size - 1,
	} {
		for _, verify := range modes {
			if verify == VerifyWritten && kind != "delta" {
				continue // which is all
			}
			altered := false
			for nth := int64(1); ; nth++ {
				var a *faults.Altering
				b := newBench(t, kind, func(i int, d *faults.Disk) Target {
					if i > 0 {
						return d
					}
					a = &faults.Altering{Target: d, At: at, Nth: nth}
					return a
				})
				_, err := Restore(t.Context(), b.jobs, RestoreOptions{Options: Options{alloc: benchArena.reset().alloc}, Verify: verify})
				if a.Hits() < nth {
					must(t, err)
					break
				}
				altered = true
				if inBody := at >= mib && at < tail; verify == VerifyNone && inBody {
					continue // which is what was asked for
				}
				b.check(t, fmt.Sprintf("%s is altered in its write %d, verify %d", name, nth, verify), err)
			}
			if edge := at < mib || at >= tail; !altered && (edge || kind != "delta") {
				t.Errorf("%s was never written: this proves nothing", name)
			}
		}
	}
}

// TestShortWritesAlone: a write that does less than it was told to is an error,
// also if nothing is read back.
func TestShortWritesAlone(t *testing.T) { eachKind(t, shortWritesAlone) }

func shortWritesAlone(t *testing.T, kind string) {
	for k := int64(1); ; k++ {
		var w *shortWrite
		b := newBench(t, kind, func(i int, d *faults.Disk) Target {
			if i > 0 {
				return d
			}
			w = &shortWrite{Target: d, k: k}
			return w
		})
		_, err := Restore(t.Context(), b.jobs, RestoreOptions{Options: Options{alloc: benchArena.reset().alloc}, Verify: VerifyNone})
		if w.writes.Load() < k {
			must(t, err)
			break
		}
		if err == nil {
			t.Fatalf("write %d was short, and it is a success", k)
		}
		b.check(t, k, err)
	}
}

// shortWrite is a disk whose k-th write does only half, and says no error.
type shortWrite struct {
	Target
	k      int64
	writes atomic.Int64
}

func (s *shortWrite) WriteAt(b []byte, off int64) (int, error) {
	if s.writes.Add(1) == s.k {
		b = b[:len(b)/2]
	}
	return s.Target.WriteAt(b, off)
}

// TestUnreadableAmongEqualPieces: what cannot be read of a disk is not right,
// though the buffer has the very bytes from a piece like it.
func TestUnreadableAmongEqualPieces(t *testing.T) {
	for name, piece := range map[string][]byte{"zeros": make([]byte, mib), "noise": conform.Disks(mib)["noise"]} {
		disk := bytes.Repeat(piece, 12)
		copy(disk, "a beginning")
		copy(disk[len(disk)-100:], "an end")
		s := mustSave(t, disk)
		for _, at := range []int64{mib, 5*mib + 1000, 6*mib - 1, 10*mib + 4096} {
			d := &healing{Bad: faults.Bad{Target: faults.NewDisk(disk), Err: errMedium, Places: []faults.Op{{Off: at, N: 1}}}}
			rs, err := Restore(t.Context(), []Job{s.job(t, "sda", d)}, RestoreOptions{Options: Options{Workers: 1}})
			if err != nil || rs[0].Written < 2*mib+512 || !d.healed.Load() {
				t.Errorf("%s, byte %d cannot be read: %+v, %v", name, at, rs, err)
			}
			bad := &faults.Bad{Target: faults.NewDisk(disk), Err: errMedium, Places: []faults.Op{{Off: at, N: 1}}}
			v, err := Verify(t.Context(), s.job(t, "sda", bad), Options{Workers: 1}, nil)
			if want := []image.Range{{Off: at &^ 511, Len: 512}}; err != nil || !slices.Equal(v.Differ, want) {
				t.Errorf("%s, byte %d cannot be read: verify finds %+v, %v", name, at, v, err)
			}
		}
	}
}

// TestSettled: a chunk that a later slot brings is not enough for an earlier
// slot, whose page would come before it.
func TestSettled(t *testing.T) {
	p := newSender(t.Context(), nil, new(Saved))
	key := object.Key{Kind: object.Chunk, Name: object.NameOf([]byte("chunk"))}
	at := func(seq int) *chunkSlot { return &chunkSlot{seq: seq, chunk: object.Object{Key: key}} }
	fifth, third, seventh := at(5), at(3), at(7)
	if p.nothingToAsk(fifth) {
		t.Error("the first of all is not asked for")
	}
	if !p.nothingToAsk(third) || third.known || !fifth.again {
		t.Error("an earlier slot is to bring the chunk itself, and the later one brings it again")
	}
	if !p.nothingToAsk(seventh) || !seventh.known || seventh.again {
		t.Error("a later slot brings what an earlier one brings")
	}
	// What the store has need not be brought by either.
	other := object.Key{Kind: object.Chunk, Name: object.NameOf([]byte("other"))}
	late, early := &chunkSlot{seq: 9, chunk: object.Object{Key: other}}, &chunkSlot{seq: 8, chunk: object.Object{Key: other}}
	p.nothingToAsk(late)
	if late.known = true; !p.nothingToAsk(early) || !early.known {
		t.Error("an earlier slot brings what the store has")
	}
}

// TestPagesOfTwoRegions: two regions have the same chunks, and each region's
// page comes after all of them.
func TestPagesOfTwoRegions(t *testing.T) {
	disk := newSparse(chunk.RegionSize + 8*mib)
	noise := conform.Disks(4 * mib)["noise"]
	for _, off := range []int64{chunk.RegionSize - 4*mib, chunk.RegionSize} {
		if _, err := disk.WriteAt(noise, off); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		w := &watched{Session: new(conform.MemStore), t: t}
		m := mapOf(int(disk.size), image.Range{Len: chunk.RegionSize - 4*mib})
		_, err := Save(t.Context(), disk, w, m, SourceOptions{Options: Options{Workers: 4}})
		must(t, err)
	}
}

func TestAccount(t *testing.T) {
	disk := func(verify ReadBack, r image.Receipt) *diskState {
		job := Job{Name: "sda", Image: FileImage{DiskSize: 4 * mib}, Target: faults.NewDisk(make([]byte, 4*mib))}
		d := newDisk(job, RestoreOptions{Verify: verify}.withDefaults())
		must(t, d.fit())
		d.receipt = r
		return d
	}
	right := map[ReadBack]image.Receipt{
		VerifyAll:     {Written: 3 * mib, Skipped: mib / 2, Unused: mib / 2, Verified: 3*mib + mib/2},
		VerifyWritten: {Written: 3 * mib, Skipped: mib / 2, Unused: mib / 2, Verified: 3 * mib},
		VerifyNone:    {Written: 3 * mib, Skipped: mib / 2, Unused: mib / 2, Verified: 2 * mib},
	}
	for verify, r := range right {
		if err := disk(verify, r).account(); err != nil {
			t.Errorf("verify %d: %v", verify, err)
		}
		for name, wrong := range map[string]func(*image.Receipt){
			"a byte was not written":     func(r *image.Receipt) { r.Written--; r.Verified-- },
			"a byte was written twice":   func(r *image.Receipt) { r.Written++; r.Verified++ },
			"a byte was not left":        func(r *image.Receipt) { r.Skipped-- },
			"a byte is used after all":   func(r *image.Receipt) { r.Unused-- },
			"a byte was not verified":    func(r *image.Receipt) { r.Verified-- },
			"a byte was verified twice":  func(r *image.Receipt) { r.Verified++ },
			"nothing was done":           func(r *image.Receipt) { *r = image.Receipt{} },
			"nothing was verified":       func(r *image.Receipt) { r.Verified = 0 },
			"all that was left is wrong": func(r *image.Receipt) { r.Skipped, r.Unused = 0, 0 },
		} {
			r := r
			if wrong(&r); disk(verify, r).account() == nil {
				t.Errorf("verify %d: %s, and the account is right", verify, name)
			}
		}
	}
}

// TestDoneIsTrue: whatever a disk does, a restore that says that it is done has
// made the disk the image; and one that fails leaves nothing that boots.
func TestDoneIsTrue(t *testing.T) {
	outcomes := map[bool]int{}
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.SampledFrom([]int64{5 * mib, 5 * mib, 12 * mib}).Draw(rt, "most")
		m := drawMap(rt, rapid.Int64Range(mib/512, most/512).Draw(rt, "sectors"), 3000)
		disk := randomDisk(rt, int(m.Size))
		if rapid.Bool().Draw(rt, "files") {
			smallFiles(rt, disk)
		}
		used := usedBlocks(m)
		before := old(len(disk))
		switch rapid.IntRange(0, 4).Draw(rt, "before") {
		case 0, 1:
			before = bytes.Clone(disk)
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				before[rapid.IntRange(0, len(disk)-1).Draw(rt, "at")] ^= 1
			}
		case 2:
			clear(before)
		}
		d := faults.NewDisk(before)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		target := Target(d)
		mayFail, lies, dead := false, false, false
		for range rapid.IntRange(0, 3).Draw(rt, "faults") {
			target = drawFault(rt, target, cancel)
			switch target.(type) {
			case *faults.Failing, *faults.Short: // its beginning may not be cleared any more, which is said
				mayFail = true
			case *faults.Dropping, *faults.Altering: // the same, and nobody knows it
				lies = true
			}
			_, isHooked := target.(*faults.Hooked)
			dead = dead || isHooked || mayFail
		}
		target = &able{Target: target, disk: d, sparse: rapid.Bool().Draw(rt, "sparse")}
		opt := RestoreOptions{
			Options: Options{Workers: rapid.IntRange(1, 3).Draw(rt, "workers")},
			Full:    rapid.Bool().Draw(rt, "full"),
			Verify:  ReadBack(rapid.IntRange(0, 2).Draw(rt, "verify")),
			Unused:  Unused(rapid.IntRange(0, 2).Draw(rt, "unused")),
			sample:  rapid.SampledFrom([]int64{0, mib}).Draw(rt, "sample"),
			flush:   rapid.SampledFrom([]int64{0, 1, 300 << 10, 2 * mib}).Draw(rt, "flush"),
		}
		var progress atomic.Int32 // calls that are not over
		opt.Progress = func(string, int64, int64) {
			if progress.Add(1) > 1 {
				t.Error("progress is told twice at a time")
			}
			progress.Add(-1)
		}
		var job Job
		if rapid.IntRange(0, 2).Draw(rt, "store") > 0 {
			job = saveOf(t, faults.NewDisk(disk), m, SourceOptions{}).job(t, "sda", target)
		} else {
			job, used = mustBackup(t, disk).job("sda", target), []image.Range{{Len: m.Size}}
		}
		behind := rapid.IntRange(0, 7).Draw(rt, "behind")
		job.Rotational, job.Cached = behind == 0, behind == 1
		unused := without([]image.Range{{Len: m.Size}}, used)
		if opt.Unused == UnusedZero {
			for _, r := range unused {
				clear(disk[r.Off:r.End()])
			}
			used, unused = []image.Range{{Len: m.Size}}, nil
		}
		rs, err := Restore(ctx, []Job{job}, opt)
		outcomes[err == nil]++
		got := d.Bytes()
		var body image.Range
		if n := int64(len(got)) - bootArea; n > bootArea {
			body = image.Range{Off: bootArea, Len: n - bootArea}
		}
		if err == nil {
			want := expected(disk, before, used)
			if rs[0].Written == 0 {
				want = before
			}
			for _, r := range used {
				if lies && opt.Verify == VerifyNone {
					break // nothing looked at the body
				}
				if !bytes.Equal(got[r.Off:r.End()], disk[r.Off:r.End()]) {
					rt.Fatalf("done, and the bytes %d+%d are not the image's", r.Off, r.Len)
				}
			}
			if opt.Unused == UnusedDiscard {
				for _, r := range unused { // may hold anything now
					if r = r.Clip(body.Off, body.End()); r.Len > 0 {
						copy(want[r.Off:r.End()], got[r.Off:])
					}
				}
			}
			if !bytes.Equal(got, want) && !lies {
				rt.Fatal("done, and what is not used is not as it should be")
			}
			return
		}
		if !dead && !lies && opt.Full && ctx.Err() == nil && !strings.Contains(err.Error(), "read") {
			rt.Fatalf("failed without a reason: %v", err)
		}
		mixed := !bytes.Equal(got[body.Off:body.End()], before[body.Off:body.End()]) && !image.IsZero(got[:min(len(got), bootArea)])
		if mixed && !lies && !(mayFail && errors.Is(err, ErrMayBoot)) {
			rt.Fatalf("failed (%v), and a mixture has a beginning", err)
		}
	})
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("of the restores, %d were done and %d failed: this proves nothing", outcomes[true], outcomes[false])
	}
}

// smallFiles ends some blocks with zeros, so that many chunks are small, and
// makes others zeros, so that chunks have runs of zeros in them.
func smallFiles(rt *rapid.T, disk []byte) {
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed of files"), 1))
	longest := rapid.SampledFrom([]int{4096, 16 << 10, 100 << 10}).Draw(rt, "longest zeros")
	for at := 0; at+4096 <= len(disk); at += 4096 {
		switch rnd.IntN(12) {
		case 0:
			clear(disk[at+4096-100 : at+4096])
		case 1:
			clear(disk[at:min(len(disk), at+4096+rnd.IntN(longest)&^511)])
		}
	}
}

// able is a disk that can discard, and that may tell its holes. Only places that
// are zeros at that time are holes.
type able struct {
	Target
	disk   *faults.Disk
	sparse bool
}

func (a *able) CanDiscard() bool { return true }

func (a *able) Discard(off, n int64) error {
	_, err := a.WriteAt(bytes.Repeat([]byte{0xdd}, int(n)), off)
	return err
}

func (a *able) NextData(off int64) (from, to int64) {
	if !a.sparse {
		return off, a.Size()
	}
	b := make([]byte, 16<<10)
	next := func(at int64, zero bool) int64 {
		for at < a.Size() {
			n := min(int64(len(b))-at%int64(len(b)), a.Size()-at)
			if _, err := a.disk.ReadAt(b[:n], at); err != nil || image.IsZero(b[:n]) != zero {
				break
			}
			at += n
		}
		return at
	}
	from = next(off, true)
	return from, next(from, false)
}

// drawFault puts something wrong before a disk.
func drawFault(rt *rapid.T, target Target, cancel func()) Target {
	size := target.Size()
	at := rapid.Int64Range(0, size-1)
	few := rapid.Int64Range(1, 12)
	switch rapid.IntRange(0, 6).Draw(rt, "fault") {
	case 0:
		return &faults.Failing{Target: target, K: rapid.Int64Range(0, 40).Draw(rt, "k"), Dead: rapid.Bool().Draw(rt, "dead")}
	case 1:
		return &faults.Short{Target: target, N: rapid.Int64Range(1, 40).Draw(rt, "n")}
	case 2:
		return &faults.Dropping{Target: target, N: few.Draw(rt, "n")}
	case 3:
		return &faults.Bad{Target: target, Err: errMedium, Places: []faults.Op{{Off: at.Draw(rt, "at"), N: 1}}}
	case 4:
		return flippedReads{target, faults.Flipped{ReaderAt: target, Bit: 8*at.Draw(rt, "at") + 2}} // no other fault hides behind this bit
	case 5:
		k, ops := rapid.Int64Range(1, 40).Draw(rt, "k"), new(atomic.Int64)
		return &faults.Hooked{Target: target, Before: func(faults.Op) error {
			if ops.Add(1) == k {
				cancel()
			}
			return nil
		}}
	}
	return &faults.Altering{Target: target, At: at.Draw(rt, "at"), Nth: few.Draw(rt, "nth")}
}

// flippedReads is a disk that gives a byte otherwise than it has it.
type flippedReads struct {
	Target
	faults.Flipped
}

func (f flippedReads) ReadAt(b []byte, off int64) (int, error) { return f.Flipped.ReadAt(b, off) }
