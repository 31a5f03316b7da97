package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

// reads has an agent make a backup of a disk that gave so many MB in a second.
func (r *rig) reads(rate int64, outcome box.Outcome) Status {
	r.Helper()
	id := r.add(here, box.Backup).ID
	a := r.boot(here).works().commits()
	bytes := rate * 1e6 * 20
	return a.results(id, outcome, []image.Receipt{{
		Image: "sda", Disk: "sda", Identity: image.Identity{Serial: "S1"}, Read: bytes,
		Stages: []image.Stage{{Name: "read", Bytes: bytes, Elapsed: time.Hour, Active: 20 * time.Second}},
	}})
}

// TestSlowDisk: a disk that reads much slower than it used to makes its box suspect, with
// a warning of the job. That is said once, and also by a server that was restarted.
func TestSlowDisk(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		good := func() {
			r.put(func(tx *ledger.Tx) error {
				b, err := tx.Box(here)
				if err != nil {
					return err
				}
				b.Health, b.Reason = ledger.Good, ""
				return tx.PutBox(b)
			})
		}
		for range 5 {
			r.reads(150, box.Done)
		}
		r.reads(40, box.Refused) // does not count
		good()
		r.reads(60, box.Done)
		r.kill()
		r.start(&knife{})
		if j := r.reads(50, box.BadSectors); len(j.Warnings) > 0 || r.box(here).Health != ledger.Good {
			t.Errorf("after two slow backups: %q, %+v", j.Warnings, r.box(here))
		}
		j := r.reads(40, box.Done)
		const want = "the disk sda (serial number S1) reads 40 MB/s, and it used to read 150 MB/s"
		if b := r.box(here); b.Health != ledger.Suspect || b.Reason != fmt.Sprintf("Job %s: %s", j.ID, want) {
			t.Errorf("the box is %s: %s", b.Health, b.Reason)
		}
		if len(j.Warnings) != 1 || j.Warnings[0] != want || j.Outcome != box.Done {
			t.Errorf("the job: %+v", j)
		}
		said := 0
		for _, e := range r.audit("box is suspect") {
			if strings.Contains(e.Why, want) {
				said++
			}
		}
		if said != 1 {
			t.Errorf("the audit log says it %d times", said)
		}

		good()
		for range 8 { // it stays as slow as it is
			r.reads(40, box.Done)
		}
		if b := r.box(here); b.Health != ledger.Good {
			t.Errorf("it is said again: %s", b.Reason)
		}
		for range 3 {
			r.reads(15, box.Done)
		}
		if b := r.box(here); b.Health != ledger.Suspect || !strings.Contains(b.Reason, "it used to read 40 MB/s") {
			t.Errorf("it became slower again, and the box is %s: %s", b.Health, b.Reason)
		}
	})
}

// TestManySlowDisks: what is said of slow disks never makes a result too long for the
// ledger.
func TestManySlowDisks(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		for n := range 8 {
			id := r.add(here, box.Backup).ID
			a := r.boot(here).works().commits()
			res := &wire.Result{Outcome: box.Done}
			for i := range wire.MaxReceipts {
				active := map[bool]time.Duration{true: 2 * time.Second, false: time.Hour}[n < 5]
				id := image.Identity{Serial: fmt.Sprint(i, strings.Repeat("<", 300))}
				res.Receipts = append(res.Receipts, image.Receipt{Disk: "sda", Identity: id,
					Stages: []image.Stage{{Name: "read", Bytes: 1 << 30, Active: active}}})
			}
			if _, err := r.server().Result(ctx, a.hello.Token, a.from, res); err != nil {
				t.Fatal(err)
			}
			r.job(id, job.Ended, box.Done)
		}
	})
}

// TestErrorCounters: a disk that has counted more errors since the inventory before makes
// its box suspect, unless an admin has said something else of the box.
func TestErrorCounters(t *testing.T) {
	text := func(format int, disks ...inventory.Disk) []byte {
		return (&inventory.Inventory{Format: format, Disks: disks}).JSON()
	}
	disk := func(raw, note string) inventory.Disk {
		return inventory.Disk{Name: "sda", Identity: image.Identity{Serial: "S1"}, Health: inventory.Health{Status: "good", Note: note,
			Attributes: []inventory.Attribute{{ID: 197, Name: "pending sectors", Raw: raw}}}}
	}
	long := disk("0", "")
	long.Name, long.Health.Status, long.Health.Note = strings.Repeat("ü", 400), "failing", strings.Repeat("ü", 2000)
	for name, c := range map[string]struct {
		past, now []byte // nil means none
		health    ledger.Health
		want      string // reason; "" if the box stays as it is
	}{
		"more errors": {text(1, disk("0", "")), text(1, disk("8", "")), ledger.Good,
			"the disk sda (serial number S1) has counted more pending sectors: 8, and 0 before"},
		"the same":            {text(1, disk("8", "")), text(1, disk("8", "")), ledger.Good, ""},
		"the first inventory": {nil, text(1, disk("8", "")), ledger.Good, ""},
		"an admin has spoken": {text(1, disk("0", "")), text(1, disk("8", "")), ledger.Maintenance, ""},
		"a damaged one":       {[]byte("{"), text(1, disk("8", "")), ledger.Good, ""},
		"a damaged new one":   {text(1, disk("0", "")), []byte("x"), ledger.Good, ""},
		"another format":      {text(1, disk("0", "")), text(2, disk("8", "")), ledger.Good, ""},
		"too many disks":      {text(1, disk("0", "")), []byte(`{"format":1,"disks":[` + strings.Repeat("{},", 1<<20) + `{}]}`), ledger.Good, ""},
		"a long text":         {nil, text(1, long), ledger.Good, "ü"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start(&knife{})
				r.add(here, box.RefreshInfo)
				a := r.boot(here).works()
				r.put(func(tx *ledger.Tx) error {
					b, err := tx.Box(here)
					if err != nil {
						return err
					}
					if b.Health = c.health; b.Health != ledger.Good {
						b.Reason = "by hand"
					}
					return tx.PutBox(b)
				})
				for i, data := range [][]byte{c.past, c.now} {
					if data == nil {
						continue
					}
					if got := r.box(here); i == 1 && got.Health != c.health {
						t.Errorf("the box is %s after the first inventory: %s", got.Health, got.Reason)
					}
					if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.InfoJSON, data); err != nil {
						t.Fatal(err)
					}
				}
				b := r.box(here)
				if c.want == "" && b.Health != c.health {
					t.Errorf("the box is %s: %s", b.Health, b.Reason)
				}
				if c.want != "" && (b.Health != ledger.Suspect || !strings.Contains(b.Reason, c.want)) {
					t.Errorf("the box is %s: %s", b.Health, b.Reason)
				}
				if got := r.text(here, box.InfoJSON); got != strings.TrimSpace(string(c.now)) {
					t.Errorf("the box's folder has an inventory of %d bytes, and %d were sent", len(got), len(c.now))
				}
				if w := a.ends(box.Done); w != job.Restart {
					t.Errorf("the agent is told to %s", w)
				}
			})
		})
	}
}

// TestInventoryBefore keeps the latest inventory that told of another machine, also when many follow
// that tell of the same one.
func TestInventoryBefore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.add(here, box.RefreshInfo)
		a := r.boot(here).works()
		text := func(memory int64, at int) []byte {
			inv := &inventory.Inventory{Format: 1, Memory: memory, Time: time.Unix(int64(at), 0).UTC()}
			return inv.JSON()
		}
		send := func(data []byte) {
			if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.InfoJSON, data); err != nil {
				t.Fatal(err)
			}
		}
		old := text(1<<30, 1)
		send(old)
		send(text(1<<30, 2)) // the same machine replaces the inventory
		last := text(1<<30, 3)
		send(last)
		for at := range 3 {
			send(text(2<<30, 10+at))
			if got := r.text(here, box.InfoBefore); got != strings.TrimSpace(string(last)) {
				t.Errorf("the inventory before is %s", got)
			}
		}
		send([]byte("no inventory"))
		send(text(2<<30, 20))
		if got := r.text(here, box.InfoBefore); got != strings.TrimSpace(string(last)) {
			t.Errorf("after one that cannot be read, the inventory before is %s", got)
		}
		a.ends(box.Done)
	})
}
