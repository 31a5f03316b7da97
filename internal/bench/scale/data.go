package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
)

// cacheRoot is where the data is kept from one call to the next.
const cacheRoot = "/var/cache/testbox/bench"

// size says how large the data is.
type size struct {
	Boxes   int
	Backups int // of each box
	Jobs    int // of each box
	// Of the first box, of which much more is kept than of the others.
	MostBackups, MostJobs int
	Audit                 int // entries of the audit log
}

const (
	format     = 8       // of the data; it changes when this file makes other data
	diskBytes  = 8 << 30 // of each disk
	groups     = 10
	perPage    = 16      // chunks of a page
	smallChunk = 512     // bytes of a chunk of all nights but the last
	nightChunk = 100_000 // bytes of a chunk of the last night
	perNight   = 4       // chunks that a backup of the last night adds
)

// addrOf is the address of a box. Those of the boxes that work are others.
func addrOf(i int) box.Addr {
	a, err := box.ParseAddr(fmt.Sprintf("10.88.%d.%d", 100+i/200, 1+i%200))
	if err != nil {
		panic(err) // the numbers are small
	}
	return a
}

// data is a folder with a store and a ledger.
type data struct{ dir string }

func (d data) store() string  { return filepath.Join(d.dir, "store") }
func (d data) ledger() string { return filepath.Join(d.dir, "ledger.db") }

// makeData makes what is not there yet, whole or not at all.
func makeData(s size) (data, error) {
	key := sha256.Sum256(fmt.Append(nil, s, format, diskBytes, perPage, smallChunk, nightChunk, perNight))
	d := data{filepath.Join(cacheRoot, "scale-"+hex.EncodeToString(key[:6]))}
	if _, err := os.Stat(d.dir); err == nil {
		return d, nil
	}
	part := data{d.dir + ".part"}
	fmt.Println("making", d.dir)
	begun := time.Now()
	err := errors.Join(os.RemoveAll(part.dir), os.MkdirAll(part.dir, 0o755))
	if err == nil {
		err = errors.Join(makeStore(part.store(), s, begun), makeLedger(part.ledger(), s, begun))
	}
	if err == nil {
		err = os.Rename(part.dir, d.dir)
	}
	if err != nil {
		return d, errors.Join(err, os.RemoveAll(part.dir))
	}
	fmt.Printf("it took %.0f s\n", time.Since(begun).Seconds())
	return d, nil
}

// copyTo makes the state of a server of the data. Packs and records are never written
// twice, so links to them are enough.
func (d data) copyTo(state string) error {
	to := filepath.Join(state, "store")
	return errors.Join(os.RemoveAll(to), measure.Command("cp", "-al", d.store(), to),
		measure.Command("rm", "-f", filepath.Join(to, "lock"), filepath.Join(to, "readers")),
		measure.Command("cp", d.ledger(), filepath.Join(state, "ledger.db")))
}

// lazy is a file system that waits for no disk. The data is made anew if a crash
// spoils it.
type lazy struct{ durable.OS }

// Create implements durable.FS.
func (l lazy) Create(path string, mode os.FileMode) (durable.File, error) {
	f, err := l.OS.Create(path, mode)
	return lazyFile{f}, err
}

// SyncDir implements durable.FS.
func (lazy) SyncDir(string) error { return nil }

type lazyFile struct{ durable.File }

// Sync implements durable.File.
func (lazyFile) Sync() error { return nil }

// backups makes the backups of all boxes.
type backups struct {
	size
	st     *store.Store
	noise  *rand.ChaCha8
	common []object.Name // pages that all boxes have
	own    [][]chunk.Ref // the chunks of the page of each box that changes
}

func makeStore(path string, s size, now time.Time) (err error) {
	ctx := context.Background()
	if err := store.InitDir(ctx, path); err != nil {
		return err
	}
	blobs, err := dir.Open(lazy{}, path)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Config{Blobs: blobs, State: lazy{}, Dir: path})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	b := &backups{size: s, st: st, noise: rand.NewChaCha8([32]byte{1}), own: make([][]chunk.Ref, s.Boxes)}
	if err := b.most(ctx, now); err != nil {
		return err
	}
	for night := range s.Backups {
		at := now.AddDate(0, 0, night-s.Backups)
		if night < s.Backups-1 {
			err = b.night(ctx, night, at)
		} else {
			err = b.lastNight(ctx, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// most backs up the first box every hour before all others.
func (b *backups) most(ctx context.Context, now time.Time) error {
	s := b.st.Begin()
	defer s.Close()
	s.Trusted = true
	n := b.MostBackups - b.Backups
	for i := range n {
		changed := 1
		if i == 0 {
			changed = perPage
		}
		r, err := b.backup(ctx, s, 0, changed, smallChunk, now.AddDate(0, 0, -b.Backups-1).Add(time.Duration(i-n)*time.Hour))
		if err == nil {
			err = s.Commit(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// night backs up all boxes. The packs are as large as upkeep would have made them,
// since everything is stored before the first record is.
func (b *backups) night(ctx context.Context, night int, at time.Time) error {
	s := b.st.Begin()
	defer s.Close()
	s.Trusted = true
	var records []*image.Record
	for i := range b.Boxes {
		changed := 1
		if b.own[i] == nil {
			changed = perPage
		}
		r, err := b.backup(ctx, s, i, changed, smallChunk, at)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	for _, r := range records {
		if err := s.Commit(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// lastNight backs up all boxes one after the other, so that each of them leaves its
// own packs.
func (b *backups) lastNight(ctx context.Context, at time.Time) error {
	for i := range b.Boxes {
		s := b.st.Begin()
		s.Trusted = true
		r, err := b.backup(ctx, s, i, perNight, nightChunk, at)
		if err == nil {
			err = s.Commit(ctx, r)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// backup stores the objects of a backup of a box, of which some chunks have changed.
func (b *backups) backup(ctx context.Context, s *store.Session, i, changed, length int, at time.Time) (*image.Record, error) {
	put := func(kind object.Kind, raw []byte) (object.Name, error) {
		key := object.Key{Kind: kind, Name: object.NameOf(raw)}
		return key.Name, s.Put(ctx, object.Encode(key, raw, nil))
	}
	if b.own[i] == nil {
		b.own[i] = make([]chunk.Ref, perPage)
	}
	for n := range changed {
		raw := make([]byte, length)
		b.noise.Read(raw)
		name, err := put(object.Chunk, raw)
		if err != nil {
			return nil, err
		}
		at := n
		if changed == 1 {
			at = int(b.noise.Uint64() % perPage)
		}
		b.own[i][at] = chunk.Ref{Name: name, Len: length}
	}
	d := image.RecordedDisk{Name: "sda", Kernel: "sda", Stored: int64(changed * length),
		Disk: image.Identity{Size: diskBytes, SectorSize: 512, Model: "ST8000NM0055-1RM112", Serial: fmt.Sprintf("ZA1%05d", i)}}
	for _, c := range b.own[i] {
		d.Data += int64(c.Len)
	}
	page := &chunk.Page{Chunks: b.own[i]}
	page.Append(image.Data, d.Data)
	page.Append(image.Unused, chunk.RegionSize-d.Data)
	name, err := put(object.Page, page.Marshal())
	if err != nil {
		return nil, err
	}
	root := &chunk.Root{Size: diskBytes, SectorSize: 512, Pages: []object.Name{name}}
	for n := 1; n < diskBytes/chunk.RegionSize; n++ {
		zero := int64(n) * 4096
		if n > len(b.common) {
			p := &chunk.Page{}
			p.Append(image.Zero, zero)
			p.Append(image.Unused, chunk.RegionSize-zero)
			name, err := put(object.Page, p.Marshal())
			if err != nil {
				return nil, err
			}
			b.common = append(b.common, name)
		}
		d.Zero += zero
		root.Pages = append(root.Pages, b.common[n-1])
	}
	d.Unused = diskBytes - d.Data - d.Zero
	if d.Root, err = put(object.Root, root.Marshal()); err != nil {
		return nil, err
	}
	return &image.Record{Format: image.RecordFormat, Box: addrOf(i).String(), Host: fmt.Sprintf("box-%04d", i), Arming: box.NewArming(),
		UUID: uuidOf(i), Time: at.Add(time.Duration(i) * time.Second), Disks: []image.RecordedDisk{d}}, nil
}

func uuidOf(i int) string { return fmt.Sprintf("564d4a2c-11f5-8e2b-dead-%012d", i) }

// makeLedger makes a ledger with all boxes and all their jobs, which have ended.
func makeLedger(path string, s size, now time.Time) (err error) {
	ctx := context.Background()
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	err = l.Update(ctx, func(tx *ledger.Tx) error {
		for i := range groups {
			if err := tx.PutGroup(ledger.Group{Name: fmt.Sprint("rack", i)}); err != nil {
				return err
			}
		}
		for i := range s.Boxes {
			if err := tx.PutBox(ledger.Box{Address: addrOf(i), Name: fmt.Sprintf("box-%04d", i), UUID: uuidOf(i),
				MACs:   []string{rig.CardOf(addrOf(i)), fmt.Sprintf("52:54:00:01:%02x:%02x", i>>8, i&0xff)},
				Labels: []string{"gpu", fmt.Sprint("row=", i%7)}, Groups: []string{fmt.Sprint("rack", i%groups)}, Health: ledger.Good,
				FirstSeen: now.AddDate(-1, 0, 0), LastSeen: now}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = l.Update(ctx, func(tx *ledger.Tx) error { return addMost(tx, s, now) })
	}
	for round := 0; round < s.Jobs && err == nil; round++ {
		err = l.Update(ctx, func(tx *ledger.Tx) error {
			for i := range s.Boxes {
				row, err := endedJob(i, round, now.AddDate(0, 0, -1).Add(time.Duration((round-s.Jobs)*s.Boxes+i)*time.Second))
				if err == nil {
					err = tx.AddJob(row)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return err
}

// addMost adds the older jobs of the first box, the audit log, and how large the store was.
func addMost(tx *ledger.Tx, s size, now time.Time) error {
	n := s.MostJobs - s.Jobs
	begun := now.AddDate(0, 0, -1).Add(-time.Duration(s.Jobs*s.Boxes) * time.Second)
	for i := range n {
		row, err := endedJob(0, -1-i, begun.Add(time.Duration(i-n)*time.Minute))
		if err == nil {
			err = tx.AddJob(row)
		}
		if err != nil {
			return err
		}
	}
	for i := range s.Audit {
		if err := tx.AddAudit(ledger.Entry{Time: now.Add(time.Duration(i-s.Audit) * 10 * time.Minute), Who: fmt.Sprintf("person-%d", i%30),
			From: "10.88.1.1", What: "put box", On: addrOf(i % s.Boxes).String(), Why: "a benchmark"}); err != nil {
			return err
		}
	}
	const days, often = 1800, 96 // a figure of each day, and at the end four an hour
	for i := range int64(days + 14*often) {
		at := now.AddDate(0, 0, -days-14).Add(time.Duration(i) * 24 * time.Hour)
		if i >= days {
			at = now.AddDate(0, 0, -14).Add(time.Duration(i-days) * 24 * time.Hour / often)
		}
		z := ledger.StoreSize{Time: at, Stored: i << 24, Data: i << 26, Room: 1 << 40, Free: 1<<40 - i<<24, Backups: i}
		if err := tx.AddStoreSize(z); err != nil {
			return err
		}
	}
	return nil
}

// endedJob is a backup that was done, as the ledger has it.
func endedJob(i, round int, at time.Time) (ledger.Job, error) {
	by := "nightly"
	if round%2 == 1 {
		by = fmt.Sprintf("schedule s%d", i%groups)
	}
	j := job.New(job.Order{ID: at.UTC().Format("20060102-150405-") + fmt.Sprintf("%04d", i), Box: addrOf(i), Action: box.Backup, By: by,
		Arming: box.NewArming()}, job.Seed{}, at)
	j.State, j.Since, j.Settled, j.Step, j.Attempt = job.Ended, j.Asked.Add(10*time.Minute), true, 5, 1
	j.Heard, j.Disarmed, j.Outcome, j.Up = j.Since, j.Since, box.Done, job.UpNotAsked
	doc, err := json.Marshal(map[string]any{
		"format": 1, "job": j, "key": fmt.Sprint("night ", round), "options": dispatch.Options{}, "made": at.UTC().Format("20060102-150405"),
		"sent": 400_000,
		"receipts": []image.Receipt{{Image: "sda", Disk: "sda", Read: 2 << 30, Zero: 1 << 28, Unused: 6 << 30,
			Identity: image.Identity{Size: diskBytes, SectorSize: 512, Model: "ST8000NM0055-1RM112", Serial: fmt.Sprintf("ZA1%05d", i)},
			Root:     object.NameOf([]byte(j.ID)).String(), Stages: []image.Stage{{Name: "read", Bytes: 2 << 30, Elapsed: time.Minute, Busy: 0.5}}}},
	})
	return ledger.Job{ID: j.ID, Box: j.Box, State: string(j.State), Created: j.Asked, Changed: j.Since, Ended: j.Since, By: j.By,
		Key: fmt.Sprint("night ", round), Doc: doc}, err
}
