package dispatch

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/wire"
)

// results has an agent of a new job say a result, and returns the job.
func (r *rig) results(o Options, action box.Action, asks bool, outcome box.Outcome, change func([]image.Receipt) []image.Receipt) Status {
	r.Helper()
	id := r.add(here, action, func(q *Request) { q.Options = o }).ID
	a := r.boot(here).works()
	if asks {
		a.reports(true)
	}
	return a.results(id, outcome, change(receiptsOf(a.work.Record)))
}

// results says a result twice, since the first answer may get lost, and returns the job.
func (a *agent) results(id string, outcome box.Outcome, receipts []image.Receipt) Status {
	a.Helper()
	for range 2 {
		if _, err := a.server().Result(ctx, a.hello.Token, a.from, &wire.Result{Outcome: outcome, Receipts: receipts}); err != nil {
			a.Fatal(err)
		}
	}
	s, err := a.server().Job(ctx, id)
	if err != nil {
		a.Fatal(err)
	}
	return s
}

// TestReceiptsFit: a success of a restore or a verify is believed only with receipts
// that fit the backup.
func TestReceiptsFit(t *testing.T) {
	one := func(change func(r *image.Receipt)) func([]image.Receipt) []image.Receipt {
		return func(all []image.Receipt) []image.Receipt { change(&all[0]); return all }
	}
	both := []box.Hook{box.HookMachineID, box.HookSSHKeys}
	hooked := func(some []box.Hook) func([]image.Receipt) []image.Receipt {
		return one(func(r *image.Receipt) {
			for _, h := range some {
				r.Hooks = append(r.Hooks, image.HookDone{Hook: string(h)})
			}
		})
	}
	same := func(all []image.Receipt) []image.Receipt { return all }
	writes := one(func(r *image.Receipt) { r.Written, r.Skipped = r.Skipped, 0 })
	for _, c := range []struct {
		what    string
		action  box.Action
		options Options
		asks    bool
		outcome box.Outcome
		change  func([]image.Receipt) []image.Receipt
		want    box.Outcome // "" if it is not believed
	}{
		{"what fits", box.Restore, Options{}, false, box.Done, same, box.Done},
		{"what fits", box.Verify, Options{}, false, box.Done, same, box.Done},
		{"a disk that was written", box.Restore, Options{}, true, box.Done, writes, box.Done},
		{"a larger disk", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) {
			r.Identity.Size *= 2
			r.Skipped += 512
			r.Verified += 512
		}), box.Done},
		{"fewer unused bytes", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) {
			r.Unused -= 512
			r.Skipped += 512
			r.Verified += 512
		}), box.Done},
		{"one of two disks that were named", box.Restore, Options{Disks: []string{"sda"}}, false, box.Done,
			func(all []image.Receipt) []image.Receipt { return all[:1] }, box.Done},
		{"a smaller disk that was asked for", box.Restore, Options{ShrinkTable: true}, false, box.Done, one(func(r *image.Receipt) {
			r.Identity.Size -= 512
			r.Skipped -= 512
			r.Verified -= 512
		}), box.Done},

		{"fewer bytes than a smaller disk has", box.Restore, Options{ShrinkTable: true}, false, box.Done, one(func(r *image.Receipt) {
			r.Identity.Size -= 512
			r.Skipped -= 513
			r.Verified -= 513
		}), ""},
		{"fewer bytes on a disk that is large enough", box.Restore, Options{ShrinkTable: true}, false, box.Done, one(func(r *image.Receipt) {
			r.Identity.Size += 512
			r.Skipped--
			r.Verified--
		}), ""},
		{"hooks that were asked for", box.Restore, Options{Hooks: both}, true, box.Done, hooked(both), box.Done},
		{"hooks that were not done", box.Restore, Options{Hooks: both}, true, box.Done, same, ""},
		{"some hooks", box.Restore, Options{Hooks: both}, true, box.Done, hooked(both[1:]), ""},
		{"hooks that nobody asked for", box.Restore, Options{}, true, box.Done, hooked(both), ""},
		{"hooks without asking before the first write", box.Restore, Options{Hooks: both}, false, box.Done, hooked(both), ""},
		{"a disk that was written without asking", box.Restore, Options{}, false, box.Done, writes, ""},
		{"a verify that wrote", box.Verify, Options{}, false, box.Done, writes, ""},
		{"no receipt", box.Restore, Options{}, false, box.Done, func([]image.Receipt) []image.Receipt { return nil }, ""},
		{"no receipt of disks that were named", box.Restore, Options{Disks: []string{"sda"}}, false, box.Done,
			func([]image.Receipt) []image.Receipt { return nil }, ""},
		{"one of two disks", box.Restore, Options{}, false, box.Done, func(all []image.Receipt) []image.Receipt { return all[:1] }, ""},
		{"one of two disks", box.Verify, Options{}, false, box.Differs, func(all []image.Receipt) []image.Receipt { return all[:1] }, ""},
		{"a disk more", box.Restore, Options{}, false, box.Done, func(all []image.Receipt) []image.Receipt {
			more := all[0]
			more.Image, more.Disk = "sdc", "sdc"
			return append(all, more)
		}, ""},
		{"one disk twice", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Disk = "sdb" }), ""},
		{"one image twice", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Image = "sdb" }), ""},
		{"another root", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Root = object.Name{9}.String() }), ""},
		{"no root", box.Verify, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Root = "" }), ""},
		{"a smaller disk", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Identity.Size -= 512 }), ""},
		{"fewer bytes", box.Restore, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Skipped--; r.Verified-- }), ""},
		{"bytes that were compared and not restored", box.Restore, Options{}, false, box.Done,
			one(func(r *image.Receipt) { r.Skipped, r.Verified = 0, 0 }), ""},
		{"more unused bytes", box.Restore, Options{}, false, box.Done,
			one(func(r *image.Receipt) { r.Unused, r.Skipped, r.Verified = 4096, 0, 0 }), ""},
		{"bytes that were not read back", box.Restore, Options{}, true, box.Done, one(func(r *image.Receipt) { r.Verified-- }), ""},
		{"numbers that overflow", box.Restore, Options{}, true, box.Done, one(func(r *image.Receipt) {
			r.Written, r.Skipped, r.Verified = math.MaxInt64, math.MaxInt64, math.MaxInt64
		}), ""},
		{"bytes that differ", box.Verify, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Verified -= 512 }), ""},
		{"places that differ", box.Verify, Options{}, false, box.BadSectors,
			one(func(r *image.Receipt) { r.Differ = []image.Range{{Len: 512}} }), ""},
		{"bytes that differ", box.Verify, Options{}, false, box.Differs, one(func(r *image.Receipt) { r.Verified -= 512 }), box.Differs},
		{"fewer bytes", box.Verify, Options{}, false, box.Done, one(func(r *image.Receipt) { r.Read--; r.Verified-- }), ""},
	} {
		bubble(t, func(r *rig) {
			r.start(&knife{})
			rec := r.store.add(here, "", "sda", "sdb")
			for i := range rec.Disks {
				d := &rec.Disks[i]
				d.Data, d.Unused, d.Root = 3072, 1024, object.Name{byte(i + 1)}
			}
			j := r.results(c.options, c.action, c.asks, c.outcome, c.change)
			if c.want != "" && (j.State != job.Ended || j.Outcome != c.want) {
				t.Errorf("%s, %s: it is %s, %s: %s", c.action, c.what, j.State, j.Outcome, j.Text)
			}
			if c.want == "" && (j.State != job.Armed || !strings.Contains(j.Text, "reports success")) {
				t.Errorf("%s, %s is believed: it is %s, %s: %s", c.action, c.what, j.State, j.Outcome, j.Text)
			}
		})
	}
}

// TestWroteUnasked: a box whose agent has written to a disk without asking does not run
// what may be half written, whatever the agent says.
func TestWroteUnasked(t *testing.T) {
	for _, outcome := range []box.Outcome{box.Done, box.Failed, box.Refused} {
		bubble(t, func(r *rig) {
			r.start(&knife{})
			r.store.add(here, "", "sda")
			s := r.add(here, box.Restore)
			for range limits.Attempts {
				a := r.boot(here).works()
				all := receiptsOf(a.work.Record)
				all[0].Written, all[0].Skipped = all[0].Skipped, 0
				all[0].Verified = 0
				if _, err := r.server().Result(ctx, a.hello.Token, a.from, &wire.Result{Outcome: outcome, Receipts: all}); err != nil {
					t.Fatal(err)
				}
				if j, _ := r.server().Job(ctx, s.ID); j.State == job.Held {
					break
				}
			}
			if j, _ := r.server().Job(ctx, s.ID); j.State != job.Held {
				t.Errorf("%s: the job is %s, %s", outcome, j.State, j.Text)
			}
			r.armed(here, true)
		})
	}
}

// TestBadSectorsOfBackup: zeros for sectors that could not be read are in the outcome
// of a restore, also if the agent does not say so.
func TestBadSectorsOfBackup(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		rec := r.store.add(here, "", "sda")
		rec.Disks[0].Bad = []image.Range{{Off: 0, Len: 512}}
		if j := r.results(Options{}, box.Restore, false, box.Done, slices.Clone[[]image.Receipt]); j.Outcome != box.BadSectors {
			t.Errorf("the outcome is %q", j.Outcome)
		}
	})
}

// TestInformed: a success of a refresh-info is believed only if the inventory came in
// the same attempt.
func TestInformed(t *testing.T) {
	for what, c := range map[string]struct {
		before func(r *rig, a *agent)
		want   job.State
	}{
		"nothing came":          {func(*rig, *agent) {}, job.Armed},
		"another file came":     {func(_ *rig, a *agent) { a.informs(box.InfoZip) }, job.Armed},
		"it came":               {func(_ *rig, a *agent) { a.informs(box.InfoText) }, job.Ended},
		"the server was killed": {func(r *rig, a *agent) { a.informs(box.InfoText); r.kill(); r.start(&knife{}) }, job.Ended},
		"it is of before": {func(r *rig, a *agent) {
			a.informs(box.InfoText)
			r.kill()
			r.start(&knife{})
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(r.dir, here.String(), box.InfoText), old, old); err != nil {
				r.Fatal(err)
			}
		}, job.Armed},
	} {
		bubble(t, func(r *rig) {
			r.start(&knife{})
			s := r.add(here, box.RefreshInfo)
			a := r.boot(here).works()
			c.before(r, a)
			if _, err := r.server().Result(ctx, a.hello.Token, a.from, &wire.Result{Outcome: box.Done}); err != nil {
				t.Fatal(err)
			}
			if j, _ := r.server().Job(ctx, s.ID); j.State != c.want {
				t.Errorf("%s: the job is %s, %s", what, j.State, j.Text)
			}
		})
	}
}

// TestCommitted finds the backup that an arming has made among others.
func TestCommitted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		arming := box.NewArming()
		r.store.add(here, box.NewArming(), "sda")
		want := r.store.add(here, arming, "sda")
		r.store.add(here, "", "sda")
		if got, err := r.server().Committed(ctx, here.String(), arming); err != nil || got != want {
			t.Errorf("the arming made %v, %v", got, err)
		}
		if got, err := r.server().Committed(ctx, here.String(), box.NewArming()); err != nil || got != nil {
			t.Errorf("an arming that made nothing made %v, %v", got, err)
		}
		r.store.fail = os.ErrPermission
		if _, err := r.server().Committed(ctx, here.String(), arming); err == nil {
			t.Error("a store that cannot be read has no backup")
		}
		r.store.fail = nil
		if j := r.add(here, box.Backup); j.ID == "" || r.server().ArmedBy(arming) {
			t.Error("an arming that no job has is one of a job")
		}
		if a := r.boot(here).works(); !r.server().ArmedBy(a.hello.Arming) {
			t.Error("the arming of a job that runs is not one of a job")
		}
	})
}

// TestOverstep: what an agent tries beyond its job is in the audit log, and once however
// often it tries.
func TestOverstep(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here).works()
		for range 1000 {
			r.server().Overstep(a.hello.Token, "to read an image")
			r.server().Overstep("unknown", "to read an image")
		}
		time.Sleep(time.Second)
		for range 3 {
			r.server().Overstep(a.hello.Token, "to read an image")
			time.Sleep(time.Second)
			r.server().Overstep(a.hello.Token, "to add a backup")
			time.Sleep(time.Second)
		}
		all := r.audit("alarm")
		if len(all) != 2 || all[0].On != here.String() || !strings.Contains(all[1].Why+all[0].Why, s.ID) {
			t.Errorf("the audit log has %+v", all)
		}
		if j, _ := r.server().Job(ctx, s.ID); j.State != job.Running {
			t.Errorf("the job is %s", j.State)
		}
	})
}

// TestHelloAgain: a hello that is repeated in the middle of a restore changes nothing,
// whatever else it says of the machine. With another token it ends the job.
func TestHelloAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		s := r.add(here, box.Restore)
		a := r.boot(here).works()
		a.reports(true)
		before := r.box(here)
		again := *a
		again.hello.UUID, again.hello.MACs = "4c4c4544-0042-3510-8054-b4c04f4e4431", []string{"52:54:00:99:99:99"}
		if w := again.says(); w != job.Work || again.work.Attempt != 1 {
			t.Errorf("the agent is told to %s, %+v", w, again.work)
		}
		if now := r.box(here); now.UUID != before.UUID || !slices.Equal(now.MACs, before.MACs) {
			t.Errorf("the box is %+v now", now)
		}
		if j, _ := r.server().Job(ctx, s.ID); j.State != job.Running || j.Attempt != 1 || !j.Wrote {
			t.Errorf("the job is %+v", j)
		}
		again.hello.Token = strings.Repeat("x", 26)
		if w := again.says(); w != job.Hold {
			t.Errorf("with another token the agent is told to %s", w)
		}
		if j, _ := r.server().Job(ctx, s.ID); j.State != job.Held {
			t.Errorf("the job is %s", j.State)
		}
	})
}
