package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata" // so that the test does not depend on the machine

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
)

func TestNextUpkeep(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Upkeep.At = "02:30"
	u := &upkeep{cfg: &cfg}
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for after, want := range map[string]string{
		"2026-11-29 02:29": "2026-11-29 02:30",
		"2026-11-29 02:30": "2026-11-30 02:30",
		"2026-12-31 12:00": "2027-01-01 02:30",
		"2027-03-28 00:00": "2027-03-28 03:30", // there is no 02:30 on this day
		"2027-03-28 03:30": "2027-03-29 02:30",
	} {
		if got := u.next(at(after)); !got.Equal(at(want)) {
			t.Errorf("after %s comes %v, not %s", after, got, want)
		}
	}
}

func quietUpkeep(busy func() bool) *upkeep {
	return &upkeep{log: slog.New(slog.NewTextHandler(io.Discard, nil)), now: time.Now, busy: busy, poll: time.Millisecond,
		needs: func(context.Context) ([]dispatch.Need, error) { return nil, nil }}
}

// TestUpkeepGivesWay has a restore begin in the middle of a step. The step must
// end, wait for the restore, and be done from its beginning.
func TestUpkeepGivesWay(t *testing.T) {
	var restoring atomic.Bool
	begun, whole := 0, 0
	u := quietUpkeep(restoring.Load)
	did, err := u.giveWay(t.Context(), func(ctx context.Context) (string, error) {
		if begun++; restoring.Load() {
			t.Error("the step began beside a restore")
		}
		if begun == 1 {
			restoring.Store(true)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
				t.Error("the step goes on beside a restore")
			}
			time.AfterFunc(20*time.Millisecond, func() { restoring.Store(false) })
			return "", context.Cause(ctx)
		}
		whole++
		return "all", nil
	}, func(bool) {})
	if did != "all" || err != nil || begun != 2 || whole != 1 {
		t.Errorf("it did %q, %v, began %d times", did, err, begun)
	}
}

func TestUpkeepTriesEnd(t *testing.T) {
	var restoring atomic.Bool
	u := quietUpkeep(restoring.Load)
	begun := 0
	_, err := u.giveWay(t.Context(), func(ctx context.Context) (string, error) {
		begun++
		restoring.Store(true)
		<-ctx.Done()
		restoring.Store(false)
		return "", context.Cause(ctx)
	}, func(bool) {})
	if !errors.Is(err, errInterrupted) || begun != maxTries {
		t.Errorf("after %d tries: %v", begun, err)
	}
}

// TestUpkeepFails has a step fail by itself. It must not be tried again at once.
func TestUpkeepFails(t *testing.T) {
	broken := errors.New("broken")
	begun := 0
	_, err := quietUpkeep(func() bool { return false }).giveWay(t.Context(), func(context.Context) (string, error) {
		begun++
		return "", broken
	}, func(bool) {})
	if !errors.Is(err, broken) || begun != 1 {
		t.Errorf("after %d tries: %v", begun, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := quietUpkeep(func() bool { return true }).giveWay(ctx, nil, func(bool) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("when the server ends: %v", err)
	}
}

// TestUpkeepDay does the steps of a day on a store with three backups of a box, of
// which one is to be kept. Boxes that restore all the time do not keep it from that.
func TestUpkeepDay(t *testing.T) {
	for what, restoring := range map[string]bool{"beside restores": true, "alone": false} {
		t.Run(what, func(t *testing.T) { testUpkeepDay(t, restoring) })
	}
}

// keepOne is a server's configuration that keeps one backup of each box, and its store.
func keepOne(t *testing.T) (Config, *store.Locked) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	cfg.Upkeep.KeepLast = 1
	return cfg, openStore(t, &cfg)
}

func testUpkeepDay(t *testing.T, restoring bool) {
	cfg, s := keepOne(t)
	l, err := ledger.Open(t.Context(), cfg.LedgerFile(), ledger.Options{})
	must(t, err)
	defer l.Close()
	knows(t, l, ledger.Box{Address: addressOf(t, "10.0.0.7")})
	for seed := range 3 {
		commit(t, s, "10.0.0.7", byte(seed))
	}
	var said strings.Builder
	u := &upkeep{
		cfg: &cfg, store: s, ledger: l, log: slog.New(slog.NewTextHandler(&said, nil)), now: time.Now,
		busy: func() bool { return restoring }, poll: time.Millisecond, needs: func(context.Context) ([]dispatch.Need, error) { return nil, nil },
	}
	sunday := time.Date(2026, 11, 29, 3, 30, 0, 0, time.UTC)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	u.day(ctx, sunday)
	for _, want := range []string{`"copy of the ledger"`, "2 of 3 backups are deleted.", "step=collection", "step=scrub"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log does not have %s:\n%s", want, &said)
		}
	}
	if strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("the log has an error:\n%s", &said)
	}
	records, _, err := s.Records(t.Context())
	if err != nil || len(records) != 1 {
		t.Errorf("there are %d backups, %v", len(records), err)
	}
	must(t, s.Check(t.Context()))
	copied, err := ledger.Open(t.Context(), cfg.LedgerCopy(), ledger.Options{})
	must(t, err)
	must(t, copied.Close())
	said.Reset()
	u.day(ctx, sunday.AddDate(0, 0, 1))
	if strings.Contains(said.String(), "step=scrub") {
		t.Errorf("all of the store is read on a Monday:\n%s", &said)
	}
}

// TestRetainBesideDamage has a record that cannot be read. Nothing may be deleted
// then, since the others may be the last of their disks.
func TestRetainBesideDamage(t *testing.T) {
	cfg, s := keepOne(t)
	var last string
	for seed := range 3 {
		last = commit(t, s, "10.0.0.7", byte(seed)).ID
	}
	must(t, os.WriteFile(filepath.Join(cfg.StoreDir(), "records", "10.0.0.7", last), []byte("spoilt"), 0o600))
	u := quietUpkeep(func() bool { return false })
	u.cfg, u.store, u.ledger = &cfg, s, openBook(t, &cfg)
	if did, err := u.retain(t.Context()); err == nil {
		t.Errorf("it did %q", did)
	}
	if records, _, err := s.Records(t.Context()); err != nil || len(records) != 2 {
		t.Errorf("there are %d backups that can be read, %v", len(records), err)
	}
}

func commit(t *testing.T, s *store.Locked, of string, seed byte) *image.Record {
	t.Helper()
	b := s.Begin()
	defer b.Close()
	disk := bytes.Repeat([]byte{seed, 'x'}, 4096)
	r := &image.Record{Format: image.RecordFormat, Box: of, Disks: []image.RecordedDisk{{
		Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Root: conform.SaveImage(t, b, disk), Data: 8192,
	}}}
	must(t, b.Commit(t.Context(), r))
	return r
}

// openBook opens a ledger that knows the box 10.0.0.7.
func openBook(t *testing.T, cfg *Config) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), cfg.LedgerFile(), ledger.Options{})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	knows(t, l, ledger.Box{Address: addressOf(t, "10.0.0.7")})
	return l
}

func addressOf(t *testing.T, s string) box.Addr {
	t.Helper()
	a, err := box.ParseAddr(s)
	must(t, err)
	return a
}

// knows stores boxes in a ledger, as good ones.
func knows(t *testing.T, l *ledger.Ledger, boxes ...ledger.Box) {
	t.Helper()
	must(t, l.Update(t.Context(), func(tx *ledger.Tx) error {
		for _, b := range boxes {
			if b.Health == "" {
				b.Health = ledger.Good
			}
			if err := tx.PutBox(b); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestRetainByBox: what is set for a box goes before its groups, and these before the configuration.
// Of boxes whose settings cannot be read and of those that nobody knows, nothing is deleted.
func TestRetainByBox(t *testing.T) {
	cfg, s := keepOne(t)
	l := openBook(t, &cfg)
	must(t, l.Update(t.Context(), func(tx *ledger.Tx) error {
		return errors.Join(tx.PutGroup(ledger.Group{Name: "few", Settings: json.RawMessage(`{"keep":"last=2"}`)}),
			tx.PutGroup(ledger.Group{Name: "many", Settings: json.RawMessage(`{"keep":"last=3"}`)}),
			tx.PutGroup(ledger.Group{Name: "odd", Settings: json.RawMessage(`{"keep":"last=2","from":"a newer version"}`)}))
	}))
	want := map[string]int{
		"10.0.0.7": 1, "10.0.0.8": 2, "10.0.0.9": 3, "10.0.0.10": 4, "10.0.0.11": 4, "10.0.0.12": 4, "10.0.0.13": 1, "10.0.0.99": 4,
	}
	knows(t, l,
		ledger.Box{Address: addressOf(t, "10.0.0.8"), Groups: []string{"few"}},
		ledger.Box{Address: addressOf(t, "10.0.0.9"), Groups: []string{"few", "many"}},
		ledger.Box{Address: addressOf(t, "10.0.0.10"), Groups: []string{"few"}, Settings: json.RawMessage(`{"keep":"all"}`)},
		ledger.Box{Address: addressOf(t, "10.0.0.11"), Groups: []string{"odd"}},
		ledger.Box{Address: addressOf(t, "10.0.0.12"), Settings: json.RawMessage(`{"keep":"last=1","from":"a newer version"}`)},
		ledger.Box{Address: addressOf(t, "10.0.0.13"), Groups: []string{"odd"}, Settings: json.RawMessage(`{"keep":"last=1"}`)})
	for name := range want {
		for seed := range 4 {
			commit(t, s, name, byte(seed))
		}
	}
	var said strings.Builder
	u := quietUpkeep(func() bool { return false })
	u.cfg, u.store, u.ledger, u.log = &cfg, s, l, slog.New(slog.NewTextHandler(&said, nil))
	did, err := u.retain(t.Context())
	if err != nil || did != "9 of 32 backups are deleted; 4 backups of boxes that the server does not know stay." {
		t.Errorf("it did %q, %v", did, err)
	}
	records, _, err := s.Records(t.Context())
	must(t, err)
	got := map[string]int{}
	for _, r := range records {
		got[r.Box]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("the boxes have %v, and %v is wanted", got, want)
	}
	for _, text := range []string{"10.0.0.12", "the group odd"} {
		if !strings.Contains(said.String(), text) {
			t.Errorf("the log does not have %s:\n%s", text, &said)
		}
	}
	must(t, l.Close())
	if did, err := u.retain(t.Context()); err == nil {
		t.Errorf("without a ledger it did %q", did)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRetainNeeded: retention keeps what a job needs, and deletes nothing while it is
// not known what jobs need.
func TestRetainNeeded(t *testing.T) {
	cfg, s := keepOne(t)
	needed := commit(t, s, "10.0.0.7", 1)
	for seed := range 2 {
		commit(t, s, "10.0.0.7", byte(2+seed))
	}
	u := quietUpkeep(func() bool { return false })
	u.cfg, u.store, u.ledger = &cfg, s, openBook(t, &cfg)
	broken := errors.New("broken")
	u.needs = func(context.Context) ([]dispatch.Need, error) { return nil, broken }
	if did, err := u.retain(t.Context()); !errors.Is(err, broken) {
		t.Errorf("it did %q, %v", did, err)
	}
	u.needs = func(context.Context) ([]dispatch.Need, error) {
		return []dispatch.Need{{Box: "10.0.0.7", ID: needed.ID}}, nil
	}
	if did, err := u.retain(t.Context()); err != nil || did != "1 of 3 backups are deleted." {
		t.Errorf("it did %q, %v", did, err)
	}
	if _, err := s.Record(t.Context(), "10.0.0.7", needed.ID); err != nil {
		t.Error(err)
	}
}
