// Package demo makes a lab with boxes, backups and a past, for screenshots of the page and for
// tests of it. All of it is the same each time, but for the times, which are told from now on.
// Test only.
package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/store"
)

// Tokens by which one logs in, by their roles.
var Tokens = map[ledger.Role]string{
	ledger.Viewer: "demo-viewer-5f1c0a6b7d2e4f8890ab", ledger.Operator: "demo-operator-91d7c3e5a2b84f60",
	ledger.Admin: "demo-admin-c02a6f4be9134d7f8e55",
}

// plan is a schedule of the lab.
type plan struct {
	name string
	schedule.Config
}

// night is the hour of UTC in which the backups of the night begin. The server of the lab is real, and makes them. They would be in
// the way of tests, so they are at another time of the day if that hour is near.
func night(now time.Time) (hour int, window string) {
	if now.UTC().Hour() < 6 {
		return 14, "08:00-18:00"
	}
	return 2, "20:00-06:00"
}

// schedules are those of the lab.
func schedules(now time.Time) []plan {
	hour, window := night(now)
	return []plan{
		{"nightly", schedule.Config{When: fmt.Sprintf("30 %d * * *", hour), Zone: "UTC", Window: []string{window}, Spread: 2 * time.Hour,
			Late: time.Hour, Action: box.Backup, Boxes: []string{"group:ci", "group:gpu", "group:storage"}}},
		{"weekly-edge", schedule.Config{When: fmt.Sprintf("0 %d * * sun", hour+2), Zone: "UTC", Late: time.Hour, Action: box.Backup,
			Boxes: []string{"group:edge"}}},
		{"monthly-verify", schedule.Config{When: "0 8 1 * *", Zone: "UTC", Late: time.Hour, Action: box.Verify,
			Boxes: []string{"group:storage"}}},
	}
}

// Config is the rest of the server's configuration.
func Config(now time.Time) string {
	text := rest
	for _, s := range schedules(now) {
		text += fmt.Sprintf("\n[schedules.%s]\nwhen = %q\nzone = %q\nboxes = [%s]\naction = %q\n", s.name, s.When, s.Zone, quoted(s.Boxes),
			s.Action)
		if len(s.Window) > 0 {
			text += fmt.Sprintf("window = [%s]\nspread = %q\n", quoted(s.Window), s.Spread)
		}
	}
	return text
}

func quoted(list []string) string {
	var all []string
	for _, s := range list {
		all = append(all, strconv.Quote(s))
	}
	return strings.Join(all, ", ")
}

const rest = `
keep-last = 10
keep-weekly = 8
`

// Make fills the state folder of a server that has not run yet.
func Make(ctx context.Context, state string, now time.Time) ([]*Box, error) {
	boxes := Boxes(now)
	mark(boxes, now)
	all, err := makeStore(ctx, filepath.Join(state, "store"), boxes, now)
	if err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	if err := makeLedger(ctx, filepath.Join(state, "ledger.db"), boxes, all, now); err != nil {
		return nil, fmt.Errorf("make the ledger: %w", err)
	}
	if err := makeFolders(filepath.Join(state, bootcfg.BackupArea), boxes, all, now); err != nil {
		return nil, fmt.Errorf("make the folders of the boxes: %w", err)
	}
	return boxes, nil
}

// Named finds a box by its name.
func Named(boxes []*Box, name string) *Box {
	i := slices.IndexFunc(boxes, func(b *Box) bool { return b.Name == name })
	return boxes[i]
}

// mark says what is out of the ordinary.
func mark(boxes []*Box, now time.Time) {
	suspect := Named(boxes, "old-03")
	suspect.Health, suspect.Reason = ledger.Suspect, "The disk sda has 184 reallocated sectors, 120 more than a week ago."
	bad := Named(boxes, "edge-04")
	bad.Health, bad.Reason = ledger.Bad, "Does not switch on since the power cut; a new power supply is ordered (ticket 4711)."
	bad.LastSeen = now.AddDate(0, 0, -12)
	away := Named(boxes, "old-04")
	away.Health, away.Reason, away.LastSeen = ledger.Retired, "Given back to the finance department.", now.AddDate(0, -1, -3)
	rebuilt := Named(boxes, "nas-05")
	rebuilt.Health, rebuilt.Reason = ledger.Maintenance, "The backplane is being changed."
	for _, name := range []string{"gpu-06", "nas-04"} { // no test has them work
		b := Named(boxes, name)
		b.Groups = append(b.Groups, "power-strip")
	}
	moved := Named(boxes, "edge-03")
	moved.Sight = json.RawMessage(fmt.Sprintf(`{"moved": "10.88.1.97", "movedAt": %q}`, now.Add(-29*time.Hour).UTC().Format(time.RFC3339)))
	Named(boxes, "gpu-03").Holder = ledger.Holder{Name: "maria", Reason: "hunting the driver crash of release 7.2",
		Expires: now.Add(26 * time.Hour)}
	Named(boxes, "ci-07").Holder = ledger.Holder{Name: "team-kernel", Reason: "bisect", Expires: now.Add(5 * time.Hour)}
}

// lazy is a file system that waits for no disk.
type lazy struct{ durable.OS }

func (l lazy) Create(path string, mode os.FileMode) (durable.File, error) {
	f, err := l.OS.Create(path, mode)
	return lazyFile{f}, err
}

func (lazy) SyncDir(string) error { return nil }

type lazyFile struct{ durable.File }

func (lazyFile) Sync() error { return nil }

// shelf makes trees of images out of a few pages.
type shelf struct {
	alone  []byte // the beginning of a part that one backup alone has
	s      *store.Session
	chunks []chunk.Ref
	pages  map[string]page
}

type page struct {
	name         object.Name
	data, zero   int64
	unused, size int64
}

func (f *shelf) put(ctx context.Context, kind object.Kind, raw []byte) (object.Name, error) {
	key := object.Key{Kind: kind, Name: object.NameOf(raw)}
	return key.Name, f.s.Put(ctx, object.Encode(key, raw, nil))
}

const variants = 12

// page is one that is used as the class says, from 0 to 10, and of a variant.
func (f *shelf) page(ctx context.Context, class, variant int, size int64) (page, error) {
	id := fmt.Sprint(class, variant, size)
	if p, has := f.pages[id]; has {
		return p, nil
	}
	rnd := rand.New(rand.NewPCG(uint64(class), uint64(variant)))
	out := page{size: size}
	var p chunk.Page
	for at := int64(0); at < size; {
		n := min(int64(1+rnd.IntN(24))*mib, size-at)
		switch {
		case n%mib != 0 || rnd.IntN(10) >= class:
			p.Append(image.Unused, n)
			out.unused += n
		case rnd.IntN(9) == 0:
			p.Append(image.Zero, n)
			out.zero += n
		default:
			p.Append(image.Data, n)
			out.data += n
			for range n / mib {
				p.Chunks = append(p.Chunks, f.chunks[rnd.IntN(len(f.chunks))])
			}
		}
		at += n
	}
	var err error
	if out.name, err = f.put(ctx, object.Page, p.Marshal()); err != nil {
		return out, err
	}
	f.pages[id] = out
	return out, nil
}

// disk makes the image of a disk as it is in a night.
func (f *shelf) disk(ctx context.Context, d *Disk, night int) (image.RecordedDisk, error) {
	layout, err := json.Marshal(d.layout)
	if err != nil {
		return image.RecordedDisk{}, err
	}
	root := &chunk.Root{Size: d.Size, SectorSize: d.SectorSize, Layout: layout}
	r := image.RecordedDisk{Name: d.name, Kernel: d.name, Disk: d.Identity}
	for i, at := 0, int64(0); at < d.Size; i, at = i+1, at+chunk.RegionSize {
		class := 0
		for n, p := range d.layout.Parts {
			if at < p.Off || at >= p.Off+p.Len {
				continue
			}
			// The front of a file system is full, and the rest is used here and there.
			where, used := float64(at-p.Off)/float64(p.Len), d.parts[n].used
			rnd := rand.New(rand.NewPCG(d.seed, uint64(i)))
			switch {
			case where < used*0.7:
				class = 7 + rnd.IntN(4)
			case rnd.Float64() < used*0.6:
				class = 1 + rnd.IntN(5)
			}
		}
		changes := 0 // until this night
		if class > 0 {
			for n := 1; n <= night; n++ {
				if rand.NewPCG(d.seed<<32|uint64(i), uint64(n)).Uint64()%40 == 0 {
					changes = n
				}
			}
		}
		p, err := f.page(ctx, class, (i+changes)%variants, min(chunk.RegionSize, d.Size-at))
		if err != nil {
			return r, err
		}
		root.Pages = append(root.Pages, p.name)
		r.Data, r.Zero, r.Unused = r.Data+p.data, r.Zero+p.zero, r.Unused+p.unused
	}
	r.Root, err = f.put(ctx, object.Root, root.Marshal())
	rnd := rand.New(rand.NewPCG(d.seed, uint64(night)<<20))
	r.Stored = int64(float64(r.Data) * (0.002 + 0.012*rnd.Float64()))
	if night == 0 {
		r.Stored = int64(float64(r.Data) * (0.38 + 0.1*rnd.Float64()))
	}
	return r, err
}

// nights are how many days ago backups were made, the oldest first.
var nights = []int{63, 56, 49, 42, 35, 28, 21, 14, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}

func (b *Box) has(night, ago int) bool {
	switch b.group {
	case "edge", "legacy":
		return ago%7 == 0 && ago > 0
	}
	return b.Name != "ci-10" || night < 0 // it is new
}

type taken struct {
	box    *Box
	record *image.Record
}

func makeStore(ctx context.Context, path string, boxes []*Box, now time.Time) (all []taken, err error) {
	if err := errors.Join(os.RemoveAll(path), store.InitDir(ctx, path)); err != nil {
		return nil, err
	}
	blobs, err := dir.Open(lazy{}, path)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, store.Config{Blobs: blobs, State: lazy{}, Dir: path})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	f := &shelf{s: st.Begin(), pages: map[string]page{}}
	defer f.s.Close()
	f.s.Trusted = true
	noise := rand.NewChaCha8([32]byte{7})
	for range 24 {
		raw := make([]byte, mib)
		noise.Read(raw[:300<<10]) // the rest is zero, and so easy to compress
		name, err := f.put(ctx, object.Chunk, raw)
		if err != nil {
			return nil, err
		}
		f.chunks = append(f.chunks, chunk.Ref{Name: name, Len: mib})
	}
	midnight := now.UTC().Truncate(24 * time.Hour)
	for night, ago := range nights {
		for _, b := range boxes {
			at := midnight.AddDate(0, 0, -ago).Add(2*time.Hour + 30*time.Minute + time.Duration(b.n)*211*time.Second)
			if !b.has(night, ago) || !at.Before(now) || at.After(b.LastSeen.Add(24*time.Hour)) {
				continue
			}
			r := &image.Record{Format: image.RecordFormat, Box: b.Address.String(), Host: b.Name, Arming: arming(b.n, night), UUID: b.UUID,
				Time: at, Firmware: b.firmware(ago)}
			for _, d := range b.Disks {
				rd, err := f.disk(ctx, d, night)
				if err != nil {
					return nil, err
				}
				r.Disks = append(r.Disks, rd)
			}
			switch {
			case night == 0 && b.n%3 == 0:
				r.Note, r.Pinned = "fresh installation, before anything was tested", true
			case ago == 14 && b.group == "gpu":
				r.Note, r.Baseline, r.Pinned = "release 7.1 with driver 550.90", true, true
			case ago == 3 && b.group == "ci":
				r.Note, r.Baseline = "clean runner image", true
			}
			if ago == 0 && b.group == "gpu" || ago == 1 && b.Name == "nas-04" {
				r.Boot = bootTest(b, at)
			}
			if b.Name == damagedBox && ago == 14 {
				if err := f.spoil(ctx, path, r); err != nil {
					return nil, err
				}
			}
			if err := f.s.Commit(ctx, r); err != nil {
				return nil, err
			}
			all = append(all, taken{b, r})
		}
	}
	return all, f.damage(path)
}

// screen is the last screen of a boot test.
//
//go:embed screen.png
var screen []byte

// bootTest is the boot test of a backup, half an hour after it.
func bootTest(b *Box, at time.Time) *image.BootTest {
	t := &image.BootTest{Time: at.Add(31 * time.Minute), Verdict: image.BootPassed, Sign: image.SignLogin, Firmware: "uefi", Seconds: 41 + b.n,
		Text: fmt.Sprintf("%s wrote a line that asks for a login: %q", b.Name, b.Name+" login:"), Picture: screen}
	if b.Name == "nas-04" {
		t.Verdict, t.Sign, t.Seconds, t.Picture = image.BootFailed, image.SignRead, 300, nil
		t.Text = "The firmware read the first sectors of sda, and then nothing for 5 minutes."
	}
	return t
}

// damagedBox has a backup that the store lacks a part of.
const damagedBox = "edge-05"

// spoil gives a backup a part that no other has, which damage finds again.
func (f *shelf) spoil(ctx context.Context, path string, r *image.Record) error {
	rnd := rand.NewChaCha8([32]byte{9})
	p, root := chunk.Page{}, chunk.Root{Size: r.Disks[0].Disk.Size, SectorSize: r.Disks[0].Disk.SectorSize}
	for range 12 {
		raw := make([]byte, mib)
		rnd.Read(raw)
		name, err := f.put(ctx, object.Chunk, raw)
		if err != nil {
			return err
		}
		f.alone = raw[:64]
		p.Append(image.Data, mib)
		p.Chunks = append(p.Chunks, chunk.Ref{Name: name, Len: mib})
	}
	p.Append(image.Unused, chunk.RegionSize-12*mib)
	page, err := f.put(ctx, object.Page, p.Marshal())
	if err != nil {
		return err
	}
	for at := int64(0); at < root.Size; at += chunk.RegionSize {
		one, size := page, min(chunk.RegionSize, root.Size-at)
		if at > 0 {
			other, err := f.page(ctx, 0, 0, size)
			if err != nil {
				return err
			}
			one = other.name
		}
		root.Pages = append(root.Pages, one)
	}
	r.Disks[0].Root, err = f.put(ctx, object.Root, root.Marshal())
	r.Disks[0].Data, r.Disks[0].Zero, r.Disks[0].Unused = 12*mib, 0, root.Size-12*mib
	return err
}

// damage changes a byte of the part that spoil made.
func (f *shelf) damage(path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		if at := bytes.Index(raw, f.alone); err == nil && at >= 0 {
			raw[at+100] ^= 1
			err = os.WriteFile(name, raw, 0o644)
		}
		return err
	})
}

// arming is the same each time.
func arming(n, night int) box.Arming {
	sum := sha256.Sum256(fmt.Append(nil, "arming ", n, night))
	a := box.NewArming()
	const digits = "0123456789abcdef"
	out := []byte(a)
	for i, c := range out {
		if c != '-' {
			out[i] = digits[sum[i%32]&15]
		}
	}
	if _, err := box.ParseArming(string(out)); err != nil {
		return a
	}
	return box.Arming(out)
}

func makeLedger(ctx context.Context, path string, boxes []*Box, all []taken, now time.Time) (err error) {
	l, err := ledger.Open(ctx, path, ledger.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.Update(ctx, func(tx *ledger.Tx) error {
		for _, k := range kinds {
			settings, err := groups[k.group].JSON()
			if err == nil {
				err = tx.PutGroup(ledger.Group{Name: k.group, Settings: settings})
			}
			if err != nil {
				return err
			}
		}
		strip, err := setting.Settings{Most: new(1)}.JSON()
		if err == nil {
			err = tx.PutGroup(ledger.Group{Name: "power-strip", Settings: strip})
		}
		if err != nil {
			return err
		}
		for _, b := range boxes {
			if err := tx.PutBox(b.Box); err != nil {
				return err
			}
		}
		for _, role := range ledger.Roles {
			name := map[ledger.Role]string{ledger.Viewer: "dashboard", ledger.Operator: "maria", ledger.Admin: "root-of-the-lab"}[role]
			err := errors.Join(tx.PutUser(ledger.User{Name: name, Role: role}),
				tx.PutToken(ledger.Token{Hash: sha256.Sum256([]byte(Tokens[role])), Name: "browser", User: name, Role: role}))
			if err != nil {
				return err
			}
		}
		if err := tx.PutToken(ledger.Token{Hash: sha256.Sum256([]byte("jenkins")), Name: "jenkins", Role: ledger.Operator, Group: "ci",
			Expires: now.AddDate(0, 3, 0).UTC()}); err != nil {
			return err
		}
		for i, t := range all {
			row, err := endedJob(t, i, now)
			if err == nil {
				err = tx.AddJob(row)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(failures(tx, boxes, now), audit(tx, now), machines(tx, now), growth(tx, all, now), starts(tx, all, now))
	})
}

// groups are how the groups are set. One alone is limited.
var groups = map[string]setting.Settings{
	"gpu":    {Keep: setting.Keep{Last: 20, Monthly: 12}},
	"edge":   {Keep: setting.Keep{Last: 5}},
	"legacy": {Keep: setting.Keep{All: true}},
}

// growth is what the store had in the last year, and how its upkeep went.
func growth(tx *ledger.Tx, all []taken, now time.Time) error {
	var data int64
	for _, t := range all {
		for _, d := range t.record.Disks {
			data += d.Data
		}
	}
	const room, days = int64(8 << 40), 365
	rnd := rand.New(rand.NewPCG(3, 4))
	stored := int64(900 * gib)
	for i := range days + 1 {
		at := now.UTC().AddDate(0, 0, i-days)
		stored += int64((9 + 6*rnd.Float64()) * gib)
		if i%60 == 59 {
			stored -= int64((160 + 60*rnd.Float64()) * gib) // old backups were deleted
		}
		if i == days {
			// The server looks at the real store when it starts, which is small. This is later, and so counts.
			at = time.Now().UTC().Add(20 * time.Second)
		}
		share := float64(i+60) / (days + 60)
		err := tx.AddStoreSize(ledger.StoreSize{Time: at, Stored: stored, Data: int64(float64(data) * share), Room: room,
			Free: room - stored - 210*gib, Backups: int64(float64(len(all)) * share)})
		if err != nil {
			return err
		}
	}
	night := now.UTC().Truncate(24 * time.Hour).Add(5 * time.Hour)
	if night.After(now) {
		night = night.AddDate(0, 0, -1)
	}
	return errors.Join(
		tx.PutStoreWork(ledger.StoreWork{Work: "copy-ledger", Begun: night, Ended: night.Add(2 * time.Second), Outcome: "done"}),
		tx.PutStoreWork(ledger.StoreWork{Work: "retention", Begun: night.Add(2 * time.Second), Ended: night.Add(9 * time.Second),
			Outcome: "done", Found: "21 backups were deleted, 456 stay"}),
		tx.PutStoreWork(ledger.StoreWork{Work: "gc", Begun: night.Add(10 * time.Second), Ended: night.Add(19 * time.Minute), Outcome: "done",
			Found: "182 GiB were got back from 94 packs"}))
}

// starts are what the schedules did last.
func starts(tx *ledger.Tx, all []taken, now time.Time) error {
	var plans []*schedule.Plan
	made := map[string]int{"weekly-edge": 5, "monthly-verify": 5}
	for _, s := range schedules(now) {
		p, err := schedule.New(s.name, s.Config)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	for _, t := range all {
		if now.Sub(t.record.Time) < 24*time.Hour {
			made["nightly"]++
		}
	}
	if _, err := schedule.Sync(tx, plans, now); err != nil {
		return err
	}
	known, err := schedule.Entries(tx)
	if err != nil {
		return err
	}
	midnight := now.UTC().Truncate(24 * time.Hour)
	hour, _ := night(now)
	begin := time.Duration(hour) * time.Hour
	for _, p := range plans {
		e := known[p.Name]
		e.Made = made[p.Name]
		switch p.Name {
		case "nightly":
			e.Start = midnight.Add(begin + 30*time.Minute)
		case "weekly-edge":
			e.Start = midnight.AddDate(0, 0, -int(midnight.Weekday())).Add(begin + 2*time.Hour)
		default:
			e.Start = midnight.AddDate(0, 0, 1-midnight.Day()).Add(8 * time.Hour)
			e.Pause = &schedule.Pause{By: "maria", Since: now.Add(-50 * time.Hour).UTC(), Why: "The backplane of nas-05 is being changed."}
		}
		if e.Start.After(now) {
			e.Start = e.Start.AddDate(0, 0, -1)
		}
		if err := p.Put(tx, e); err != nil {
			return err
		}
	}
	return nil
}

func endedJob(t taken, i int, now time.Time) (ledger.Job, error) {
	r := t.record
	took := 4*time.Minute + time.Duration(t.box.n*17)*time.Second
	j := job.New(job.Order{ID: r.Time.UTC().Add(-took).Format("20060102-150405-") + fmt.Sprintf("%04d", i), Box: t.box.Address,
		Action: box.Backup,
		By:     "schedule nightly", Arming: r.Arming}, job.Seed{}, r.Time.Add(-took))
	j.State, j.Since, j.Settled, j.Step, j.Attempt = job.Ended, r.Time, true, 5, 1
	j.Heard, j.Disarmed, j.Outcome, j.Up = r.Time, r.Time, box.Done, job.UpNotAsked
	doc := map[string]any{"format": 1, "options": dispatch.Options{}, "made": r.ID}
	var receipts []image.Receipt
	sent := int64(0)
	for n, d := range r.Disks {
		rate := 1.9e9
		switch t.box.Disks[n].transport {
		case "mmc":
			rate = 210e6
		case "ata":
			rate = 480e6
		}
		if t.box.Disks[n].rotates {
			rate = 165e6
		}
		rnd := rand.New(rand.NewPCG(uint64(t.box.n), uint64(r.Time.Unix()/86400)))
		rate *= 0.93 + 0.1*rnd.Float64()
		if t.box.Name == "old-03" {
			rate *= 1 - min(0.6, max(0, 0.6-now.Sub(r.Time).Hours()/24/60))
		}
		active := time.Duration(float64(d.Data+d.Zero) / rate * float64(time.Second))
		receipts = append(receipts, image.Receipt{Image: d.Name, Disk: d.Kernel, Identity: d.Disk, Read: d.Data + d.Zero, Zero: d.Zero,
			Unused: d.Unused,
			Root:   d.Root.String(), Stages: []image.Stage{{Name: "read", Bytes: d.Data + d.Zero, Elapsed: active * 5 / 4, Active: active,
				Busy: 0.8}}})
		sent += d.Stored
	}
	doc["receipts"], doc["sent"] = receipts, sent
	return rowOf(j, doc)
}

func rowOf(j job.Job, doc map[string]any) (ledger.Job, error) {
	doc["job"] = j
	text, err := json.Marshal(doc)
	return ledger.Job{ID: j.ID, Box: j.Box, State: string(j.State), Created: j.Asked, Changed: j.Since, Ended: j.Since, By: j.By,
		Doc: text}, err
}

// failures are jobs that did not go well.
func failures(tx *ledger.Tx, boxes []*Box, now time.Time) error {
	for i, f := range []struct {
		box     string
		ago     time.Duration
		action  box.Action
		outcome box.Outcome
		class   job.Class
		by      string
		text    string
	}{
		{"old-03", 30 * time.Hour, box.Backup, box.Failed, job.ClassBox, "maria",
			"The disk sda gave no answer for 2 minutes, at byte 81,604,378,624."},
		{"nas-02", 7 * time.Hour, box.Verify, box.Differs, "", "schedule monthly-verify", ""},
		{"edge-04", 12 * 24 * time.Hour, box.Backup, box.Expired, job.ClassBox, "schedule weekly-edge",
			"The box did not start within 24 hours."},
		{"ci-05", 3 * time.Hour, box.Restore, box.Done, "", "token jenkins", ""},
		{"ci-06", 150 * time.Minute, box.Restore, box.Done, "", "token jenkins", ""},
		{"gpu-05", 26 * time.Hour, box.Restore, job.Cancelled, job.ClassAdmin, "maria", "The wrong box, sorry."},
		{"edge-02", 4 * time.Hour, box.RefreshInfo, box.Done, "", "root-of-the-lab", ""},
	} {
		b := Named(boxes, f.box)
		at := now.Add(-f.ago).UTC().Truncate(time.Second)
		j := job.New(job.Order{ID: at.Format("20060102-150405-") + fmt.Sprintf("f%03d", i), Box: b.Address, Action: f.action, By: f.by,
			Arming: arming(b.n, 1000+i)},
			job.Seed{}, at.Add(-11*time.Minute))
		j.State, j.Since, j.Settled, j.Step, j.Attempt, j.Outcome, j.Class, j.Text, j.Up = job.Ended, at, true, 6, 1, f.outcome, f.class,
			f.text, job.UpNotAsked
		j.Heard, j.Disarmed = at, at
		row, err := rowOf(j, map[string]any{"format": 1, "options": dispatch.Options{}})
		if err == nil {
			err = tx.AddJob(row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func audit(tx *ledger.Tx, now time.Time) error {
	for i, e := range []ledger.Entry{
		{Who: "root-of-the-lab", From: "socket", What: "set user", On: "maria", Why: "operator"},
		{Who: "root-of-the-lab", From: "socket", What: "add token", On: "jenkins", Why: "operator of the group ci"},
		{Who: "root-of-the-lab", From: "10.88.0.4", What: "set group", On: "power-strip", Why: "one at a time, the fuse is small"},
		{Who: "maria", From: "10.88.0.50", What: "set backup", On: "10.88.1.12@20261116-023331", Why: "pinned, note"},
		{Who: "maria", From: "10.88.0.50", What: "hold box", On: "10.88.1.13", Why: "hunting the driver crash of release 7.2"},
		{Who: "token jenkins", From: "10.88.0.9", What: "add a job", On: "10.88.1.26", Why: "restore for build 8812"},
		{Who: "maria", From: "10.88.0.50", What: "cancel a job", On: "10.88.1.15", Why: "The wrong box, sorry."},
		{Who: "root-of-the-lab", From: "10.88.0.4", What: "set box", On: "10.88.1.40", Why: "retired: Given back to the finance department."},
		{Who: "root-of-the-lab", From: "10.88.0.4", What: "pause schedule", On: "weekly-edge", Why: "network work in room 3"},
		{Who: "root-of-the-lab", From: "10.88.0.4", What: "resume schedule", On: "weekly-edge"},
	} {
		e.Time = now.Add(-time.Duration(62-6*i) * time.Hour).UTC()
		if err := tx.AddAudit(e); err != nil {
			return err
		}
	}
	return nil
}

// machines are some that nobody knows, and two that are boxes.
func machines(tx *ledger.Tx, now time.Time) error {
	for _, m := range []struct {
		mac, arch, addr, uuid string
		ago                   time.Duration
		asks                  []sight.Ask
	}{
		{"3c:ec:ef:77:01:9a", "UEFI x86-64", "10.88.1.201", "03d502e0-045e-05a3-7606-b10700080009", 9 * time.Minute, []sight.Ask{
			{Over: "dhcp", Asked: "DISCOVER for UEFI x86-64", Given: "shimx64.efi"}, {Over: "tftp", Asked: "pxelinux.cfg/default",
				Given: "pxelinux.cfg/default"}}},
		{"3c:ec:ef:77:01:9c", "UEFI x86-64", "10.88.1.202", "03d502e0-045e-05a3-7606-b1070008000b", 11 * time.Minute, []sight.Ask{
			{Over: "dhcp", Asked: "DISCOVER for UEFI x86-64", Given: "shimx64.efi"}, {Over: "tftp", Asked: "pxelinux.cfg/default",
				Given: "pxelinux.cfg/default"}}},
		{"00:1b:21:44:ce:02", "BIOS", "10.88.1.77", "", 3 * time.Hour, []sight.Ask{{Over: "tftp", Asked: "pxelinux.0", Given: "pxelinux.0"},
			{Over: "tftp", Asked: "pxelinux.cfg/default", Given: "pxelinux.cfg/default"}}},
		{"b4:2e:99:a0:17:55", "UEFI ARM 64", "", "", 26 * time.Hour, []sight.Ask{{Over: "dhcp", Asked: "DISCOVER for UEFI ARM 64"}}},
		{"52:54:00:58:01:22", "UEFI x86-64", "10.88.1.97", "", 5 * time.Hour, []sight.Ask{{Over: "tftp", Asked: "pxelinux.cfg/0A580161"}}},
		{"52:54:00:58:01:0c", "UEFI x86-64", "10.88.1.12", "", 2 * time.Hour, []sight.Ask{{Over: "tftp", Asked: "shimx64.efi",
			Given: "shimx64.efi"}, {Over: "tftp", Asked: "pxelinux.cfg/0A58010C", Given: "pxelinux.cfg/0A58010C"}}},
	} {
		at := now.Add(-m.ago).UTC()
		for i := range m.asks {
			m.asks[i].Time = at.Add(time.Duration(i-len(m.asks)) * time.Second)
		}
		one := sight.Machine{Identity: sight.Identity{MAC: m.mac, Arch: m.arch, UUID: m.uuid}, First: at.Add(-40 * time.Hour), Last: at,
			Asks: m.asks}
		if m.addr != "" {
			one.Addr = netip.MustParseAddr(m.addr)
		}
		doc, err := one.Document()
		if err == nil {
			err = tx.PutMachine(ledger.Machine{Name: m.mac, LastSeen: at, Doc: doc})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeFolders makes logs and inventories.
func makeFolders(root string, boxes []*Box, all []taken, now time.Time) error {
	area, err := sharedir.Open(durable.OS{}, root)
	if err != nil {
		return err
	}
	for _, b := range boxes {
		f, err := area.Box(b.Address)
		if err != nil {
			return err
		}
		at := b.LastSeen.Add(-time.Hour).UTC().Truncate(time.Second)
		inv := b.inventory(at)
		err = errors.Join(os.WriteFile(f.Path(box.InfoJSON), inv.JSON(), 0o644), os.WriteFile(f.Path(box.InfoText), inv.Text(), 0o644),
			os.WriteFile(f.Path(box.FirmwareFile), b.note(at).Marshal(), 0o644))
		if err != nil {
			return err
		}
		clock := at
		log := f.Log(b.Name, sharedir.LogOptions{Now: func() time.Time { return clock }})
		for _, t := range all {
			if t.box != b {
				continue
			}
			clock = t.record.Time.Add(-4 * time.Minute)
			log.Hello()
			log.Info("action backup of arming %s", t.record.Arming)
			for _, d := range t.record.Disks {
				clock = clock.Add(90 * time.Second)
				log.Info("disk %s: %d of %d bytes are used", d.Name, d.Data+d.Zero, d.Disk.Size)
			}
			clock = t.record.Time
			log.Announce("backup %s is committed", t.record.ID)
		}
		if err := log.Flush(); err != nil {
			return err
		}
	}
	return nil
}
