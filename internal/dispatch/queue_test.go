package dispatch

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// waits compares what a queued job waits for.
func (r *rig) waits(id string, reason job.Reason) {
	r.Helper()
	if j := r.job(id, job.Queued, ""); j.Wait == nil || j.Wait.Reason != reason || j.Wait.Text == "" {
		r.Errorf("the job waits for %+v, and %q is wanted", j.Wait, reason)
	}
}

func TestQueue(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Most = 2
		r.cfg.Places = func(g ledger.Group) (int, bool) { return 1, g.Name == "rack" }
		r.cfg.Opens = func(b ledger.Box) time.Time {
			if b.Name == "late" {
				return time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
			}
			return time.Time{}
		}
		r.start(&knife{})
		addr := func(n int) box.Addr { return boxAddr(1<<8 + 10 + n) }
		r.put(func(tx *ledger.Tx) error {
			return errors.Join(tx.PutGroup(ledger.Group{Name: "rack"}),
				tx.PutBox(ledger.Box{Address: addr(1), Health: ledger.Good, Groups: []string{"rack"}}),
				tx.PutBox(ledger.Box{Address: addr(2), Health: ledger.Good, Groups: []string{"rack"}}),
				tx.PutBox(ledger.Box{Address: addr(3), Health: ledger.Good, Holder: ledger.Holder{Name: "bob"}}),
				tx.PutBox(ledger.Box{Address: addr(5), Name: "late", Health: ledger.Good}))
		})
		var ids []string
		for n := 1; n <= 6; n++ {
			ids = append(ids, r.add(addr(n), box.Backup).ID)
			time.Sleep(time.Second)
		}
		again := r.add(addr(1), box.RefreshInfo).ID
		r.job(ids[0], job.Armed, "")
		r.waits(ids[1], job.ForGroup)
		r.waits(ids[2], job.ForHolder)
		r.job(ids[3], job.Armed, "")
		r.waits(ids[4], job.ForWindow)
		r.waits(ids[5], job.ForPlace)
		r.waits(again, job.ForJob)

		// bob gives the box back, and the queue looks at the ledger by itself.
		r.put(func(tx *ledger.Tx) error { return tx.PutBox(ledger.Box{Address: addr(3), Health: ledger.Good}) })
		time.Sleep(pollQueue + time.Second)
		r.waits(ids[2], job.ForPlace)

		// Who asked first begins first.
		r.boot(addr(4)).works().commits().ends(box.Done)
		time.Sleep(time.Second)
		r.job(ids[2], job.Armed, "")
		r.boot(addr(1)).works().commits().ends(box.Done)
		time.Sleep(time.Second)
		r.job(ids[1], job.Armed, "")
		r.job(ids[5], job.Queued, "")

		r.server().SetClosed("The server is being moved.")
		r.boot(addr(2)).works().commits().ends(box.Done)
		time.Sleep(time.Second)
		r.waits(ids[5], job.ForServer)
		r.server().SetClosed("")
		time.Sleep(time.Second)
		r.job(ids[5], job.Armed, "")

		r.boot(addr(3)).works().commits().ends(box.Done)
		r.boot(addr(6)).works().commits().ends(box.Done)
		time.Sleep(25 * time.Hour) // it began, and nobody restarted the box
		if _, err := r.server().Cancel(ctx, ids[4], "ann"); !isRefusal(err, "ended") {
			t.Errorf("the job did not begin when its time came: %v", err)
		}
	})
}

// Jobs of an action without a maintenance system wait, and no others.
func TestNoSystem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Most = 1
		r.boots.ready[box.Rescue] = errors.New("There is no debian form.")
		r.start(&knife{})
		s := r.add(here, box.Rescue)
		r.waits(s.ID, job.ForSystem)
		time.Sleep(time.Second)
		other := r.add(here, box.Backup)
		r.job(other.ID, job.Armed, "")
		r.boots.mu.Lock()
		delete(r.boots.ready, box.Rescue)
		r.boots.mu.Unlock()
		r.boot(here).works().commits().ends(box.Done)
		time.Sleep(time.Second)
		r.job(s.ID, job.Armed, "")
	})
}

// An agent of another version of the protocol restarts into its own system, and its
// job does not begin again at once.
func TestOtherProtocol(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		a := r.boot(here)
		a.hello.Protocol++
		if w := a.says(); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		r.armed(here, false)
		time.Sleep(againAfter / 2)
		r.waits(s.ID, job.ForWindow)
		time.Sleep(againAfter)
		r.job(s.ID, job.Armed, "")
	})
}

// A box whose boot file cannot be written for a while holds up no other box.
func TestTwoBoxes(t *testing.T) {
	bubble(t, func(r *rig) {
		stuck := make(chan struct{})
		var arms atomic.Int64
		r.start(&knife{cut: func(name string) error {
			if name == "arm" && arms.Add(1) == 1 {
				<-stuck // the first box's folder hangs
			}
			return nil
		}})
		if _, err := r.server().Add(ctx, Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * queuePause)
		s := r.add(there, box.Backup)
		r.boot(there).works().commits().ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
		close(stuck)
		time.Sleep(time.Second)
		r.boot(here).works().commits().ends(box.Done)
	})
}

func TestAdd(t *testing.T) {
	bubble(t, func(r *rig) {
		r.cfg.Probe = nil
		r.boots.server = boxAddr(3)
		r.start(&knife{})
		d := r.server()
		addr := func(n int) box.Addr { return boxAddr(n + 5) }
		many := make([]box.Addr, maxBoxes+1)
		for i := range many {
			many[i] = addr(i)
		}
		for _, c := range []struct {
			q    Request
			text string
		}{
			{Request{Action: box.Backup, By: "ann"}, "no box is named"},
			{Request{Boxes: many, Action: box.Backup, By: "ann"}, "several requests"},
			{Request{Boxes: []box.Addr{here, here}, Action: box.Backup, By: "ann"}, "named twice"},
			{Request{Boxes: []box.Addr{{}}, Action: box.Backup, By: "ann"}, "no address"},
			{Request{Boxes: []box.Addr{here, boxAddr(3)}, Action: box.Backup, By: "ann"}, "is the storage server"},
			{Request{Boxes: []box.Addr{here}, Action: "burn", By: "ann"}, "burn"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup}, "who asks"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", WaitUp: true}, "whether a box is up"},
			{Request{Boxes: []box.Addr{here}, Action: box.Restore, By: "ann"}, "no backup of " + here.String()},
			{Request{Boxes: []box.Addr{here}, Action: box.Restore, By: "ann", Options: Options{AllUsed: true}}, "is for a backup"},
			{Request{Boxes: []box.Addr{here}, Action: box.Restore, By: "ann", Options: Options{AcceptFailing: true}}, "is for a backup"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", Options: Options{Image: "20260101-000000"}}, "uses no backup"},
			{Request{Boxes: []box.Addr{here}, Action: box.Rescue, By: "ann", Options: Options{Disks: []string{"sda"}}}, "uses no disks"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", Options: Options{Disks: []string{"a b"}}}, "the disks"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", Options: Options{Disks: make([]string, 99)}}, box.DisksFile},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: strings.Repeat("x", ledger.MaxWho+1)}, "who made the job"},
			{Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", Key: strings.Repeat("x", 201)}, "the key of the job"},
		} {
			_, err := d.Add(ctx, c.q)
			if !errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q is wanted, and the error is %v", c.text, err)
			}
		}
		if all, _, err := d.Jobs(ctx, ledger.JobFilter{}, ledger.Page{}); err != nil || len(all) != 0 {
			t.Errorf("there are %d jobs, %v", len(all), err)
		}

		// A request that is repeated makes no other job, and one of several boxes adds the
		// missing ones.
		q := Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann", Key: "k"}
		first, err := d.Add(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		q.Boxes = append(q.Boxes, there)
		both, err := d.Add(ctx, q)
		if err != nil || both[0].ID != first[0].ID || both[1].ID == first[0].ID {
			t.Errorf("the same request makes %+v, %v", both, err)
		}
		q.Options.AllUsed = true
		if _, err := d.Add(ctx, q); !isRefusal(err, "use a new key") {
			t.Errorf("another request with the key: %v", err)
		}
		q = Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "bob", Key: "k"}
		if other, err := d.Add(ctx, q); err != nil || other[0].ID == first[0].ID {
			t.Errorf("somebody else has the key: %v", err)
		}
		if all := r.audit("add a job"); len(all) != 3 || all[2].Who != "ann" || all[2].On != first[0].ID ||
			!strings.Contains(all[2].Why, "backup of "+here.String()) {
			t.Errorf("the audit log has %+v", all)
		}

		// All boxes or none.
		for n := 2; n < maxOfBox; n++ {
			if _, err := d.Add(ctx, Request{Boxes: []box.Addr{here}, Action: box.RefreshInfo, By: "ann"}); err != nil {
				t.Fatal(err)
			}
		}
		fresh := boxAddr(77)
		if _, err := d.Add(ctx, Request{Boxes: []box.Addr{fresh, here}, Action: box.RefreshInfo, By: "ann"}); !isRefusal(err, "100 jobs") {
			t.Errorf("too many jobs of a box: %v", err)
		}
		if all, _, err := d.Jobs(ctx, ledger.JobFilter{Box: fresh}, ledger.Page{}); err != nil || len(all) != 0 {
			t.Errorf("the other box has %d jobs, %v", len(all), err)
		}
		all, next, err := d.Jobs(ctx, ledger.JobFilter{Box: here, Open: true}, ledger.Page{Limit: 60})
		if err != nil || len(all) != 60 || next == "" || all[0].Seed != (job.Seed{}) {
			t.Errorf("a page has %d jobs, %v", len(all), err)
		}
	})
}

func TestWatch(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		changes, stop := r.server().Watch()
		other, stopOther := r.server().Watch()
		s := r.add(here, box.Backup)
		seen := func() (ids []string) {
			for {
				synctest.Wait()
				select {
				case id := <-changes:
					ids = append(ids, id)
				default:
					return ids
				}
			}
		}
		if ids := seen(); !slices.Contains(ids, s.ID) {
			t.Errorf("a new job is not told: %v", ids)
		}
		a := r.boot(here).works()
		for range 50 {
			a.reports(false)
		}
		if ids := seen(); len(ids) > 2 || !slices.Contains(ids, s.ID) {
			t.Errorf("many changes are told as %v", ids)
		}
		if j := r.job(s.ID, job.Running, ""); j.Progress == nil || j.Progress.Number != 50 {
			t.Errorf("the progress is %+v", j.Progress)
		}
		stop()
		synctest.Wait()
		if _, open := <-changes; open {
			t.Error("a watch that was stopped goes on")
		}
		r.server().Close()
		for range 3 {
			if _, open := <-other; !open {
				stopOther()
				return
			}
		}
		t.Error("Close does not end a watch")
	})
}
