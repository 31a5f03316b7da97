package boxapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

const mib = 1 << 20

// diskOf is a disk to back up.
func diskOf(name string, content []byte) backup.Disk {
	return backup.Disk{Name: name, Source: faults.NewDisk(content), Identity: image.Identity{Size: int64(len(content)), SectorSize: 512}}
}

func newRecord() *image.Record { return &image.Record{Format: image.RecordFormat, Box: theBox} }

// restore restores a disk of a record, and compares the bytes.
func restore(t *testing.T, c chunk.Images, r *image.Record, name string, onto, want []byte) image.Receipt {
	t.Helper()
	im, err := c.OpenImage(t.Context(), r, name)
	must(t, err)
	target := faults.NewDisk(onto)
	job := copier.Job{Name: name, Image: copier.StoredImage{Image: im}, Target: target, SectorSize: 512}
	receipts, err := copier.Restore(t.Context(), []copier.Job{job}, copier.RestoreOptions{})
	must(t, err)
	if !bytes.Equal(target.Bytes(), want) {
		t.Error("the restored disk has other bytes")
	}
	must(t, im.Close())
	return receipts[0]
}

// TestBackupAndRestore makes a backup of two disks, restores them, makes the next
// backup after a change, and restores by delta. Only what changed crosses the network.
func TestBackupAndRestore(t *testing.T) {
	var sent, counted atomic.Int64
	r := newRig(t, nil, func(cfg *boxapi.Config) { cfg.Sent = func(_ string, n int64) { counted.Add(n) } })
	c := r.clientOf(r.let(all), func(cfg *remote.Config) { cfg.HTTP.Transport = &counting{cfg.HTTP.Transport, &sent} })
	one, two := conform.Disks(9 * mib)["mixed"], conform.Disks(5 * mib)["noise"]
	make := func() *image.Record {
		s, rec := c.Begin(), newRecord()
		_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", one), diskOf("sdb", two)}, backup.Options{})
		must(t, errors.Join(err, s.Close()))
		return rec
	}
	first := make()
	if n := counted.Load(); n > sent.Load() || n < sent.Load()*9/10 {
		t.Errorf("the server counts %d bytes of objects where %d bytes were sent", n, sent.Load())
	}
	counted.Store(0)
	restore(t, c, first, "sda", bytes.Repeat([]byte{7}, len(one)), one)
	if n := counted.Load(); n < mib || n > int64(len(one)) {
		t.Errorf("the server counts %d bytes for a restore", n)
	}
	restore(t, c, first, "sdb", bytes.Repeat([]byte{7}, len(two)), two)
	before := bytes.Clone(two)
	copy(two[2*mib:], "changed")
	sent.Store(0)
	second := make()
	if n := sent.Load(); n > mib {
		t.Errorf("the second backup sent %d bytes", n)
	}
	receipt := restore(t, c, first, "sdb", two, before)
	if receipt.Written > 4*mib || receipt.Skipped == 0 {
		t.Errorf("the delta wrote %d bytes and skipped %d", receipt.Written, receipt.Skipped)
	}
	restore(t, c, second, "sdb", before, two)
	if n := len(r.records()); n != 2 {
		t.Errorf("there are %d records", n)
	}
}

// counting counts the bytes of the requests.
type counting struct {
	http.RoundTripper
	sent *atomic.Int64
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.sent.Add(r.ContentLength)
	return c.RoundTripper.RoundTrip(r)
}

// killer kills the server and starts it again at some requests: before a request
// reaches it, or after it has done what was asked, and before the answer.
type killer struct {
	http.RoundTripper
	r    *rig
	mu   sync.Mutex
	n    int
	at   int // requests until the next time
	late bool
	done int
}

func (k *killer) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n++; k.n%k.at != 0 {
		k.mu.Unlock()
		defer k.mu.Lock()
		return k.RoundTripper.RoundTrip(r)
	}
	k.done++
	if k.late = !k.late; k.late {
		if resp, err := k.RoundTripper.RoundTrip(r); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	} else if r.Body != nil {
		r.Body.Close()
	}
	k.r.kill()
	k.r.start()
	return nil, errors.New("the server was killed")
}

// TestServerKilled makes a backup and a restore over a server that is killed again
// and again, at each of several distances.
func TestServerKilled(t *testing.T) {
	disk := conform.Disks(3 * mib)["noise"]
	for _, at := range []int{4} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			r := memory(t)
			g := all
			g.Arming = "0123456789abcdef"
			k := &killer{r: r, at: at}
			c := r.clientOf(r.let(g), func(cfg *remote.Config) {
				k.RoundTripper, cfg.HTTP.Transport = cfg.HTTP.Transport, k
				cfg.Log = func(string, ...any) {}
			})
			rec := newRecord()
			var err error
			for range 50 { // what was put and not committed is lost at each kill
				s := c.Begin()
				_, err = backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", disk)}, backup.Options{})
				must(t, s.Close())
				if !errors.Is(err, chunk.ErrMissing) {
					break
				}
				k.mu.Lock()
				k.at += 4 // a backup needs some requests without a kill
				k.mu.Unlock()
			}
			must(t, err)
			restore(t, c, rec, "sda", make([]byte, len(disk)), disk)
			if got := r.records(); len(got) != 1 || got[0].ID != rec.ID || got[0].Arming != g.Arming {
				t.Errorf("committed %v, there are %d records", rec.ID, len(got))
			}
			if k.done < 4 {
				t.Errorf("the server was killed %d times: this proves nothing", k.done)
			}
		})
	}
}

// TestCommitOnce kills the server after a commit and before its answer. There is one
// backup, and the client learns its id. Without an arming the server cannot know.
func TestCommitOnce(t *testing.T) {
	r := memory(t)
	g := all
	g.Arming = "0123456789abcdef"
	k := &killer{r: r, at: 1 << 30}
	c := r.clientOf(r.let(g), func(cfg *remote.Config) { k.RoundTripper, cfg.HTTP.Transport = cfg.HTTP.Transport, k })
	s := c.Begin()
	disk := conform.Disks(mib)["noise"]
	saved, err := copier.Save(t.Context(), faults.NewDisk(disk), s, nil, copier.SourceOptions{})
	must(t, err)
	saved.Disk.Name, saved.Disk.Disk = "sda", image.Identity{Size: mib, SectorSize: 512}
	rec := newRecord()
	rec.Disks = []image.RecordedDisk{saved.Disk}
	k.n, k.at = 0, 1
	go func() {
		for k.r.countRecords() == 0 {
			time.Sleep(time.Millisecond)
		}
		k.mu.Lock()
		k.at = 1 << 30
		k.mu.Unlock()
	}()
	must(t, s.Commit(t.Context(), rec))
	got := r.records()
	if len(got) != 1 || got[0].ID != rec.ID {
		t.Errorf("committed %q, there are %d records", rec.ID, len(got))
	}
	if k.done == 0 {
		t.Error("the server was not killed: this proves nothing")
	}
	must(t, s.Close())
}

// TestSlowCommit: a commit that takes longer than the server answers at once is done
// once, although the client asks again and again.
func TestSlowCommit(t *testing.T) {
	var commits atomic.Int64
	r := newRig(t, nil, func(c *boxapi.Config) {
		begin := c.Begin
		c.Answer, c.Begin = 50*time.Millisecond, func() chunk.Session { return &slowCommit{begin(), &commits} }
	})
	c := r.client(all)
	s, rec := c.Begin(), newRecord()
	_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", conform.Disks(mib)["noise"])}, backup.Options{})
	must(t, errors.Join(err, s.Close()))
	if got := r.records(); len(got) != 1 || got[0].ID != rec.ID || commits.Load() != 1 {
		t.Errorf("there are %d records after %d commits", len(got), commits.Load())
	}
}

type slowCommit struct {
	chunk.Session
	commits *atomic.Int64
}

func (s *slowCommit) Commit(ctx context.Context, r *image.Record) error {
	s.commits.Add(1)
	time.Sleep(500 * time.Millisecond)
	return s.Session.Commit(ctx, r)
}

func (r *rig) countRecords() int {
	r.mu.Lock()
	s := r.store
	r.mu.Unlock()
	records, _, _ := s.Records(context.Background())
	return len(records)
}

// TestAway: a server that is away for longer than the client waits ends what it
// does, and one that comes back in time does not.
func TestAway(t *testing.T) {
	r := memory(t)
	c := r.clientOf(r.let(all), func(cfg *remote.Config) { cfg.Away = 5 * time.Second })
	s := c.Begin()
	o := object1(1)
	must(t, s.Put(t.Context(), o))
	r.kill()
	go func() {
		time.Sleep(700 * time.Millisecond)
		r.start()
	}()
	must(t, s.Put(t.Context(), object1(2)))
	r.kill()
	quick := r.clientOf(r.let(all), func(cfg *remote.Config) { cfg.Away = 300 * time.Millisecond })
	start := time.Now()
	err := quick.Begin().Put(t.Context(), o)
	var away *remote.AwayError
	if took := time.Since(start); !errors.As(err, &away) || took > 3*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start = time.Now()
	wantErr(t, "a cancelled call", s.Put(ctx, o), context.DeadlineExceeded)
	if took := time.Since(start); took > time.Second {
		t.Errorf("it ended after %v", took)
	}
	r.start()
	must(t, s.Close())
}

// TestWrongKey: a server with another key gets nothing, at once.
func TestWrongKey(t *testing.T) {
	r := memory(t)
	_, other := newKey(t)
	c := r.clientOf(r.let(all), func(cfg *remote.Config) { cfg.HTTP = remote.NewHTTP(other) })
	start := time.Now()
	wantErr(t, "another key", c.Begin().Put(t.Context(), object1(1)), wire.ErrKey)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestIdle: an image that nobody has read for long is closed, and opened again by
// the next read.
func TestIdle(t *testing.T) {
	closed := make(chan bool, 100)
	r := newRig(t, nil, func(c *boxapi.Config) {
		c.Idle, c.Images = 300*time.Millisecond, &watchedImages{c.Images, closed}
	})
	c := r.client(all)
	s, rec := c.Begin(), newRecord()
	disk := conform.Disks(mib)["noise"]
	_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", disk)}, backup.Options{})
	must(t, err)
	im, err := c.OpenImage(t.Context(), rec, "sda")
	must(t, err)
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the image was not closed")
	}
	_, err = im.Page(t.Context(), 0)
	must(t, err)
	must(t, errors.Join(im.Close(), s.Close()))
}

// watchedImages tells when an image is closed.
type watchedImages struct {
	chunk.Images
	closed chan bool
}

func (w *watchedImages) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	im, err := w.Images.OpenImage(ctx, r, disk)
	if err != nil {
		return nil, err
	}
	return chunk.OpenImage(ctx, &watchedGetter{im.Getter(), w.closed}, im.Name)
}

type watchedGetter struct {
	chunk.Getter
	closed chan bool
}

func (g *watchedGetter) Close() error {
	g.closed <- true
	return g.Getter.Close()
}
