package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/job"
)

// load is one call.
type load struct {
	site   *rig.Site
	pool   []byte
	pieces int // of each disk
	boxes  int // of each kind
	salts  salts

	mu     sync.Mutex // guards the fields below
	done   []took
	failed []error
}

// took is a job that was done.
type took struct {
	what string
	box  box.Addr
	wall time.Duration // from the request of the admin to the answer to the result
	mib  int           // of the disk
}

// simulated is a box.
type simulated struct {
	*load
	addr     box.Addr
	disk     *disk      // as it should be
	restored memoryDisk // of a box that restores; nil for one that backs up
	round    int
}

// jobLimit is how long a job may take before it counts as left behind.
const jobLimit = 5 * time.Minute

// run has all boxes backed up once. Then jobs are asked for until the time is over,
// and those that are under way come to their end.
func (l *load) run(lasts time.Duration) error {
	var all []*simulated
	for i := range 2 * l.boxes {
		addr, err := box.ParseAddr(fmt.Sprintf("10.88.%d.%d", 1+i/200, 1+i%200))
		if err != nil {
			return err
		}
		b := &simulated{load: l, addr: addr, disk: newDisk(l.pool, l.pieces)}
		b.reinstall()
		if i >= l.boxes {
			b.restored = make(memoryDisk, b.disk.Size())
		}
		all = append(all, b)
	}
	fmt.Printf("%d boxes back up, %d restore, disks of %d MiB\n", l.boxes, l.boxes, l.pieces)
	begun := time.Now()
	each(all, func(b *simulated) { b.backup("first") })
	if err := l.report(os.Stdout, "all boxes are backed up for the first time", begun); err != nil {
		return err
	}
	l.done = nil
	before, _, err := l.site.Used()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var admin sync.WaitGroup
	admin.Go(func() { l.look(ctx) })
	begun = time.Now()
	each(all, func(b *simulated) {
		for time.Since(begun) < lasts && b.next() {
		}
	})
	stop()
	admin.Wait()
	err = l.report(os.Stdout, "half of them back up again and again, and half restore", begun)
	return errors.Join(err, l.tellServer(os.Stdout, before, time.Since(begun)))
}

func each(boxes []*simulated, do func(*simulated)) {
	var all sync.WaitGroup
	for _, b := range boxes {
		all.Go(func() { do(b) })
	}
	all.Wait()
}

// reinstall makes all pieces of a box anew that are not those of all boxes.
func (b *simulated) reinstall() {
	for i := 1; i < len(b.disk.salt); i += 2 {
		b.disk.salt[i] = b.salts.next()
	}
}

// next does the box's next job. It returns false if that failed.
func (b *simulated) next() bool {
	b.round++
	if b.restored == nil {
		what := "changed"
		if b.round%4 == 0 {
			what = "new"
			b.reinstall()
		} else { // a twentieth
			for i := range len(b.disk.salt) / 20 {
				b.disk.salt[(b.round*7+i*13)%len(b.disk.salt)] = b.salts.next()
			}
		}
		return b.backup(what)
	}
	if b.round%2 == 0 {
		clear(b.restored[len(b.restored)/3:][:len(b.restored)/20])
		return b.restore("differing")
	}
	for i := range b.restored {
		b.restored[i] = byte(i >> 12)
	}
	return b.restore("full")
}

func (b *simulated) backup(what string) bool {
	d := &rig.Disk{Identity: identity(b.disk.Size()), Target: readOnly{b.disk}}
	return b.act("backup, "+what, box.Backup, d)
}

func (b *simulated) restore(what string) bool {
	d := &rig.Disk{Identity: identity(b.disk.Size()), Target: b.restored}
	if !b.act("restore, "+what, box.Restore, d) {
		return false
	}
	want := make([]byte, pieceSize)
	for off := 0; off < len(b.restored); off += pieceSize {
		b.disk.ReadAt(want, int64(off))
		if !bytes.Equal(want, b.restored[off:][:pieceSize]) {
			return b.ends("restore", time.Now(), fmt.Errorf("what was restored is not the disk, at %d", off))
		}
	}
	return true
}

// act asks for a job, does it, and looks how it ended.
func (b *simulated) act(what string, action box.Action, d *rig.Disk) bool {
	ctx, cancel := context.WithTimeout(context.Background(), jobLimit)
	defer cancel()
	start := time.Now()
	err := func() error {
		id, err := b.site.Ask(ctx, b.addr, action)
		if err != nil {
			return err
		}
		words, err := b.site.Boot(ctx, b.addr)
		if err != nil {
			return err
		}
		a, err := rig.Hello(ctx, words)
		if err != nil {
			return err
		}
		defer a.Close()
		if err := a.Act(ctx, d, copier.RestoreOptions{Options: copier.Options{Workers: 1}}); err != nil {
			return err
		}
		j, err := b.site.Job(ctx, id)
		if err == nil && (j.State != job.Ended || j.Outcome != box.Done || j.Attempt != 1) {
			err = fmt.Errorf("the job is %s, %s, attempt %d: %s", j.State, j.Outcome, j.Attempt, j.Text)
		}
		return err
	}()
	return b.ends(what, start, err)
}

func (b *simulated) ends(what string, start time.Time, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.failed = append(b.failed, fmt.Errorf("%s of %s: %w", what, b.addr, err))
		return false
	}
	b.done = append(b.done, took{what, b.addr, time.Since(start), b.pieces})
	return true
}

// look is an admin who looks at all boxes and jobs each second.
func (l *load) look(ctx context.Context) {
	for {
		for _, list := range []string{"boxes", "jobs"} {
			start := time.Now()
			var answer map[string]any
			err := l.site.Admin.Do(ctx, http.MethodGet, apiclient.Path(list)+"?limit=1000", nil, &answer)
			l.mu.Lock()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				l.failed = append(l.failed, fmt.Errorf("list %s: %w", list, err))
			default:
				l.done = append(l.done, took{what: "an admin lists " + list, wall: time.Since(start)})
			}
			l.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
