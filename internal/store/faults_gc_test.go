package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// The bench of the tests below:
//
//	test ── Store /store ─┐
//	     ── Store /copy ──┴─ blob/dir ── faults.Kth ── faults.Volatile
//
// The K-th operation on the file system fails, or is done and denied, or is
// where the process is killed; the power can be cut at any time.

// tiny makes packs of three cells.
const tiny = 8 << 10

// onVolatile opens the store in a folder.
func onVolatile(fsys *faults.Kth, folder string) (*Store, error) {
	blobs, err := dir.New(fsys, folder)
	if err != nil {
		return nil, err
	}
	if err := Init(context.Background(), blobs); err != nil && !errors.Is(err, ErrExists) {
		return nil, err
	}
	return Open(context.Background(), Config{Blobs: blobs, State: fsys, Dir: folder, PackSize: tiny})
}

// scene is what the operations work on.
type scene struct {
	fsys           *faults.Kth
	src, dst       *Store
	ledger, copied *ledger
	old            []*image.Record
}

// faultOps are the operations that are broken.
var faultOps = []struct {
	name string
	run  func(*scene, context.Context) error
}{
	{"create", (*scene).create},
	{"delete", (*scene).delete},
	{"gc", (*scene).gc},
	{"copy", (*scene).copy},
	{"scrub", (*scene).scrub},
	{"rebuild", (*scene).rebuild},
	{"reopen", (*scene).reopen},
}

// create backs a box up.
func (sc *scene) create(ctx context.Context) error {
	d := sc.ledger.know(newDisk(mixed(seeds(1, 3), seeds(60, 3)), seeds(20, 2)))
	r, err := backup(ctx, sc.src, "10.0.0.5", day(9), d)
	sc.ledger.committed(r, err)
	return err
}

func (sc *scene) delete(ctx context.Context) error {
	err := sc.src.Delete(ctx, sc.old...)
	for _, r := range sc.old {
		sc.ledger.deleted(r, err)
	}
	return err
}

func (sc *scene) gc(ctx context.Context) error {
	plan, err := sc.src.PlanGC(ctx)
	if err != nil {
		return err
	}
	_, err = sc.src.GC(ctx, plan)
	return err
}

func (sc *scene) copy(ctx context.Context) error {
	all, _, err := sc.src.Records(ctx)
	if err != nil {
		return err
	}
	err = sc.src.Copy(ctx, sc.dst, all, nil, nil)
	for _, r := range all {
		sc.copied.committed(r, err)
	}
	return err
}

func (sc *scene) scrub(ctx context.Context) error {
	report, err := sc.src.Scrub(ctx, nil)
	return errors.Join(err, report.Err())
}

func (sc *scene) rebuild(ctx context.Context) error { return sc.src.RebuildIndex(ctx) }

// reopen closes the store and opens it.
func (sc *scene) reopen(context.Context) (err error) {
	err = sc.src.Close()
	src, openErr := onVolatile(sc.fsys, "/store")
	if openErr == nil {
		sc.src = src
	}
	return errors.Join(err, openErr)
}

// prepare makes a store with something to collect: packs with nothing that is
// needed, and half dead ones, trees and data.
func prepare(t *testing.T) *scene {
	t.Helper()
	sc := &scene{ledger: newLedger(), copied: newLedger()}
	sc.copied.disks = sc.ledger.disks
	must(t, sc.open(faults.NewVolatile()))
	ctx := t.Context()
	for i, d := range []fakeDisk{
		newDisk(mixed(seeds(1, 4), seeds(40, 4)), seeds(20, 2)),
		newDisk(seeds(1, 4), seeds(20, 2)),
		newDisk(seeds(50, 3)),
		newDisk(seeds(20, 3)),
		newDisk(seeds(40, 2)),
	} {
		r, err := backup(ctx, sc.src, "10.0.0."+fmt.Sprint(i%3), day(1+i), sc.ledger.know(d))
		must(t, err)
		sc.ledger.committed(r, nil)
		switch i {
		case 0, 2:
			must(t, sc.src.Delete(ctx, r))
			sc.ledger.deleted(r, nil)
		case 3:
			sc.old = append(sc.old, r)
		}
	}
	must(t, sc.src.Close())
	must(t, sc.dst.Close())
	return sc
}

// open opens both stores.
func (sc *scene) open(v *faults.Volatile) (err error) {
	sc.fsys = &faults.Kth{FS: v}
	if sc.src, err = onVolatile(sc.fsys, "/store"); err == nil {
		sc.dst, err = onVolatile(sc.fsys, "/copy")
	}
	return err
}

// after is the scene after a power cut, or in a new process if keep is nil. The
// present one goes on.
func (sc *scene) after(keep func() bool) (*scene, error) {
	c := &scene{ledger: sc.ledger.clone(), copied: sc.copied.clone(), old: sc.old}
	c.copied.disks = c.ledger.disks
	v := sc.fsys.FS.(*faults.Volatile)
	if keep != nil {
		v = v.Crash(keep)
	}
	return c, c.open(v)
}

// verify looks at both stores. Nothing may fail now.
func (sc *scene) verify() error {
	if err := sc.ledger.verify(sc.src); err != nil {
		return err
	}
	if err := sc.copied.verify(sc.dst); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return errors.Join(sc.src.Check(context.Background()), sc.dst.Check(context.Background()))
}

// settled wants all to be well and the operation to work, a power cut then to
// lose nothing, and a collection to work.
func (sc *scene) settled(op func(*scene, context.Context) error) error {
	if err := sc.verify(); err != nil {
		return err
	}
	if err := op(sc, context.Background()); err != nil {
		return fmt.Errorf("once more: %w", err)
	}
	cut, err := sc.after(func() bool { return false })
	if err == nil {
		err = cut.verify()
	}
	if err != nil {
		return fmt.Errorf("once more, and a power cut: %w", err)
	}
	if err := sc.gc(context.Background()); err != nil {
		return fmt.Errorf("then a collection: %w", err)
	}
	return sc.verify()
}

// TestFaults breaks each operation at each of its steps, in each manner.
func TestFaults(t *testing.T) {
	base := prepare(t)
	for _, op := range faultOps {
		for _, manner := range []faults.Manner{faults.Fails, faults.Lies, faults.Dies} {
			t.Run(op.name+"/"+manner.String(), func(t *testing.T) {
				t.Parallel()
				k := 1
				for testFault(t, base, op.run, manner, k) && !t.Failed() {
					k += testenv.Effort(5, 1)
				}
				if k < 3 {
					t.Errorf("it has %d steps", k)
				}
				t.Logf("fewer than %d steps", k)
			})
		}
	}
}

// testFault breaks step k, and reports whether there are so many.
func testFault(t *testing.T, base *scene, op func(*scene, context.Context) error, manner faults.Manner, k int) bool {
	sc, err := base.after(func() bool { return true })
	must(t, err)
	sc.fsys.Manner = manner
	sc.fsys.K = sc.fsys.Count() + k
	err = op(sc, t.Context())
	step := fmt.Sprintf("step %d (%s), which answered %v", k, sc.fsys.Failed(), err)
	if sc.fsys.Failed() == "" {
		must(t, err)
		return false
	}
	fates := sc.fates(manner, k)
	if !testenv.All() { // one of them: which is a matter of the step
		fates = fates[k%len(fates):][:1]
	}
	for _, f := range fates {
		next, err := f.next()
		if err == nil {
			err = next.settled(op)
		}
		if err != nil {
			t.Errorf("%s, %s: %v", step, f.name, err)
		}
	}
	return true
}

// quiet waits for the packs that are being sealed: a process writes nothing
// any more when the next one begins.
func (sc *scene) quiet() {
	for _, s := range []*Store{sc.src, sc.dst} {
		s.objects.packMu.Lock()
		for _, p := range s.objects.sealing {
			<-p.sealed
		}
		s.objects.packMu.Unlock()
	}
}

// fate is what comes after a fault.
type fate struct {
	name string
	next func() (*scene, error)
}

func (sc *scene) fates(manner faults.Manner, k int) []fate {
	r := rand.New(rand.NewPCG(uint64(k), uint64(manner)))
	cut := fate{"then a power cut", func() (*scene, error) { return sc.after(func() bool { return false }) }}
	some := fate{"then a power cut that keeps some of what was not synced",
		func() (*scene, error) { return sc.after(func() bool { return r.IntN(2) == 0 }) }}
	if manner == faults.Dies || k%2 == 0 {
		return []fate{cut, some, {"then a new process", func() (*scene, error) {
			sc.quiet()
			return sc.after(nil)
		}}}
	}
	return []fate{cut, some, {"and going on", func() (*scene, error) {
		sc.fsys.K = 0
		return sc, nil
	}}}
}
