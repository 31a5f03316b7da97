package boxapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	"testbox-imaging/internal/testenv"
)

// badLine passes connections on to a server, and breaks each after some bytes. Some
// are not closed, but pass on nothing any more.
type badLine struct {
	to     string
	l      net.Listener
	mu     sync.Mutex // guards random
	random *rand.Rand
	broken atomic.Int64
}

func newBadLine(t *testing.T, to string) *badLine {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	b := &badLine{to: to, l: l, random: rand.New(rand.NewPCG(1, 2))}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.pass(c)
		}
	}()
	return b
}

func (b *badLine) pass(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", b.to)
	if err != nil {
		return
	}
	defer s.Close()
	b.mu.Lock()
	up, down, silent := int64(b.random.IntN(3*mib)), int64(b.random.IntN(3*mib)), b.random.IntN(4) == 0
	b.mu.Unlock()
	end := make(chan bool, 2)
	go func() { io.CopyN(s, c, up); end <- true }()
	go func() { io.CopyN(c, s, down); end <- true }()
	<-end
	b.broken.Add(1)
	if silent {
		time.Sleep(2 * time.Second)
	}
}

// TestBadLine makes a backup and a restore over connections that break in the middle
// of anything.
func TestBadLine(t *testing.T) {
	testenv.Long(t, "5 seconds")
	r := newRig(t, nil, func(c *boxapi.Config) { c.Quiet = time.Second })
	line := newBadLine(t, r.addr)
	g := all
	g.Arming = "0123456789abcdef"
	c := r.clientOf(r.let(g), func(cfg *remote.Config) {
		cfg.Base, cfg.Quiet = "https://"+line.l.Addr().String(), time.Second
	})
	disk := conform.Disks(10 * mib)["noise"]
	s, rec := c.Begin(), newRecord()
	_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", disk)}, backup.Options{})
	must(t, errors.Join(err, s.Close()))
	restore(t, c, rec, "sda", make([]byte, len(disk)), disk)
	if n := len(r.records()); n != 1 {
		t.Errorf("there are %d records", n)
	}
	if n := line.broken.Load(); n < 5 {
		t.Errorf("only %d connections broke: this proves little", n)
	}
}

// TestManyBoxes: many boxes make backups and restore them at once, with little memory
// for all.
func TestManyBoxes(t *testing.T) {
	r := newRig(t, nil, func(c *boxapi.Config) { c.Memory = 16 * mib })
	const boxes = 24
	errs := make(chan error, boxes)
	for n := range boxes {
		g := all
		g.Box = fmt.Sprintf("10.0.1.%d", n)
		c := r.client(g)
		disk := bytes.Clone(conform.Disks(mib)["noise"])
		copy(disk, g.Box)
		go func() { errs <- backupAndRestore(t, c, g.Box, disk) }()
	}
	for range boxes {
		must(t, <-errs)
	}
	if n := len(r.records()); n != boxes {
		t.Errorf("there are %d records", n)
	}
}

func backupAndRestore(t *testing.T, c *remote.Client, box string, disk []byte) error {
	s, rec := c.Begin(), newRecord()
	rec.Box = box
	_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", disk)}, backup.Options{})
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	im, err := c.OpenImage(t.Context(), rec, "sda")
	if err != nil {
		return err
	}
	target := faults.NewDisk(make([]byte, len(disk)))
	job := copier.Job{Name: "sda", Image: copier.StoredImage{Image: im}, Target: target, SectorSize: 512}
	_, err = copier.Restore(t.Context(), []copier.Job{job}, copier.RestoreOptions{})
	if err == nil && !bytes.Equal(target.Bytes(), disk) {
		err = errors.New("the restored disk has other bytes")
	}
	return errors.Join(err, im.Close())
}

// countedChecks are images of a store that count how often a chunk is checked there.
type countedChecks struct {
	chunk.Images
	checks atomic.Int64
}

func (c *countedChecks) OpenImage(ctx context.Context, r *image.Record, disk string) (*chunk.Image, error) {
	im, err := c.Images.OpenImage(ctx, r, disk)
	if err != nil {
		return nil, err
	}
	return chunk.OpenImage(ctx, &countedGetter{im.Getter(), im.Getter().(chunk.Aware), c}, im.Name)
}

type countedGetter struct {
	chunk.Getter
	chunk.Aware
	c *countedChecks
}

func (g *countedGetter) Check(ctx context.Context, at chunk.Place, buf []byte) error {
	g.c.checks.Add(1)
	return g.Getter.Check(ctx, at, buf)
}

// TestLockStep: 16 boxes that check the same image at once cost the store about as many
// looks as one.
func TestLockStep(t *testing.T) {
	const boxes = 16
	counted := &countedChecks{}
	r := newRig(t, nil, func(c *boxapi.Config) { counted.Images, c.Images = c.Images, counted })
	s, rec := r.store.Begin(), newRecord()
	_, err := backup.Make(t.Context(), s, rec, []backup.Disk{diskOf("sda", conform.Disks(16 * mib)["noise"])}, backup.Options{})
	must(t, errors.Join(err, s.Close()))
	check := func(c *remote.Client) (n, bad int, err error) {
		im, err := c.OpenImage(t.Context(), rec, "sda")
		if err != nil {
			return 0, 0, err
		}
		region, err := im.Region(t.Context(), 0)
		if err != nil {
			return 0, 0, err
		}
		var at []chunk.Place
		for i := range region.Len() {
			p, _ := region.Place(i)
			at = append(at, p)
		}
		err = im.Getter().(chunk.Bulk).CheckAll(t.Context(), at, nil, func(err error) error {
			if n++; err != nil {
				bad++
			}
			return nil
		})
		return n, bad, errors.Join(err, im.Close())
	}
	clients := make([]*remote.Client, boxes)
	for i := range clients {
		clients[i] = r.client(all)
	}
	var room sync.WaitGroup
	for _, c := range clients {
		room.Go(func() {
			if n, bad, err := check(c); n < 20 || bad > 0 || err != nil {
				t.Errorf("%d of %d chunks are bad: %v", bad, n, err)
			}
		})
	}
	room.Wait()
	n, _, err := check(clients[0])
	must(t, err)
	if looks := counted.checks.Load(); looks < int64(n) || looks > 2*int64(n) {
		t.Errorf("%d chunks were looked at %d times", n, looks)
	}
}
