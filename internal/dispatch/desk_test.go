package dispatch

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/wire"
)

const (
	uuidA = "4c4c4544-0042-3510-8054-b7c04f564d31"
	uuidB = "4c4c4544-0042-3510-8054-b7c04f564d32"
	junk  = "03000200-0400-0500-0006-000700080009"
	macA  = "52:54:00:aa:aa:aa"
	macB  = "52:54:00:bb:bb:bb"
)

func TestMachines(t *testing.T) {
	a, b, both := []string{macA}, []string{macB}, []string{macA, macB}
	none := []string{"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "x"}
	for name, c := range map[string]struct {
		uuid   string // that is known
		macs   []string
		is     string // what the agent says
		has    []string
		accept bool
		work   bool
		learns string // UUID
		marks  []string
	}{
		"nothing is known":             {"", nil, uuidA, a, false, true, uuidA, a},
		"the same":                     {uuidA, a, strings.ToUpper(uuidA), a, false, true, uuidA, a},
		"another UUID":                 {uuidA, a, uuidB, a, false, false, uuidA, a},
		"a UUID in the other order":    {bootcfg.OtherOrder(uuidA), a, uuidA, b, false, true, uuidA, both},
		"another UUID, accepted":       {uuidA, a, uuidB, b, true, true, uuidB, b},
		"another network card":         {uuidA, a, uuidA, b, false, true, uuidA, both},
		"a UUID of many":               {junk, a, uuidB, a, false, true, uuidB, a},
		"it says a UUID of many":       {uuidA, a, junk, a, false, true, uuidA, a},
		"a UUID of many, other card":   {junk, a, junk, b, false, false, junk, a},
		"no UUID, other card":          {"", a, "", b, false, false, "", a},
		"no UUID, one card of several": {"", both, "", b, false, true, "", both},
		"no cards":                     {"", a, "", none, false, true, "", a},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.start(&knife{})
				r.put(func(tx *ledger.Tx) error {
					return tx.PutBox(ledger.Box{Address: here, Health: ledger.Good, UUID: c.uuid, MACs: c.macs, Labels: []string{"kept"}})
				})
				s := r.add(here, box.RefreshInfo, opts(Options{AcceptMachine: c.accept}))
				a := r.boot(here)
				a.hello.UUID, a.hello.MACs = c.is, c.has
				w := a.says()
				if (w == job.Work) != c.work {
					t.Errorf("the agent is told to %s", w)
				}
				if !c.work {
					if j := r.job(s.ID, job.Ended, box.Refused); !strings.Contains(j.Text, "Accept the machine") {
						t.Errorf("the job says %q", j.Text)
					}
				}
				b := r.box(here)
				if b.UUID != c.learns || !slices.Equal(b.MACs, c.marks) || !slices.Equal(b.Labels, []string{"kept"}) ||
					b.LastSeen.IsZero() == c.work {
					t.Errorf("the ledger has %+v", b)
				}
			})
		})
	}
}

func TestWelcome(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Name: "box1", Health: ledger.Good})
		})
		r.store.add(there, "", "sda")
		for range mostKnown + 3 {
			r.store.add(here, "", "sda")
		}
		r.list(here, "sda sdb\n")
		s := r.add(here, box.Backup, opts(Options{AllUsed: true}))
		w := r.boot(here).works().work
		if w.Host != "box1" || w.ID != s.ID || w.Selection == nil || *w.Selection != "sda sdb\n" || !w.AllUsed || w.Inventory ||
			w.Record != nil || w.Committed != nil || len(w.Known) != mostKnown || w.Known[0].Box != here.String() || w.Known[0].ID <= w.Known[1].ID {
			t.Errorf("the job is %+v", w)
		}
		if !strings.Contains(r.text(here, "box1"), here.String()) {
			t.Error("the file with the box's name is missing")
		}
		// The box loses power when the backup is committed.
		r.store.add(here, s.Arming, "sda")
		a := r.boot(here)
		w = a.works().work
		if w.Committed == nil || w.Committed.Arming != s.Arming || w.Attempt != 2 {
			t.Errorf("the job is %+v", w)
		}
		if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.InfoText, []byte("all of it")); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"../x", "maintenance.log", ""} {
			if err := r.server().Inventory(ctx, a.hello.Token, a.from, name, nil); !errors.Is(err, wire.ErrRefused) {
				t.Errorf("a file %q is taken: %v", name, err)
			}
		}
		if got := r.text(here, box.InfoText); got != "all of it" {
			t.Errorf("the inventory is %q", got)
		}
		if err := os.MkdirAll(filepath.Join(r.dir, here.String(), box.InfoZip, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.InfoZip, nil); !errors.Is(err, wire.ErrFailed) {
			t.Errorf("a file that cannot be written: %v", err)
		}
		a.ends(box.Done)
		if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.InfoText, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an agent without a session saves an inventory: %v", err)
		}
		r.add(here, box.RefreshInfo)
		if !r.boot(here).works().work.Inventory {
			t.Error("the agent is not told of the inventory")
		}
	})
}

func TestWhichBackup(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		foreign := r.store.add(there, "", "sda")
		old, base, newest := r.store.add(here, "", "sda"), r.store.add(here, "", "sda"), r.store.add(here, "", "sda")
		for _, c := range []struct {
			opt  Options
			want *image.Record
			text string
		}{
			{Options{}, newest, ""},
			{Options{Image: old.ID}, old, ""},
			{Options{Image: here.String() + "@" + old.ID}, old, ""},
			{Options{Image: foreign.ID}, nil, "no backup"},
			{Options{Image: there.String() + "@" + foreign.ID}, nil, "--from " + there.String()},
			{Options{Image: there.String() + "@" + foreign.ID, AcceptMachine: true}, nil, "--from " + there.String() + " --image " + foreign.ID},
			{Options{Image: "20000101-000000"}, nil, "no backup"},
			{Options{From: there.String()}, foreign, ""},
			{Options{From: there.String(), Image: foreign.ID}, foreign, ""},
			{Options{From: there.String(), Image: old.ID}, nil, "no backup " + old.ID + " of " + there.String()},
			{Options{From: "golden"}, nil, "no backup at all of golden"},
		} {
			all, err := r.server().Add(ctx, Request{Boxes: []box.Addr{here}, Action: box.Verify, Options: c.opt, By: "ann"})
			if c.text != "" {
				if !isRefusal(err, c.text) {
					t.Errorf("%+v: %v", c.opt, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			a := r.boot(here).works()
			if a.work.Record != c.want {
				t.Errorf("%+v: the agent is given %s of %s", c.opt, a.work.Record.ID, a.work.Record.Box)
			}
			if g, err := r.server().Grant(ctx, a.hello.Token, a.from); err != nil || !g.MayRead(c.want.Box, c.want.ID, "sda") {
				t.Errorf("%+v: %v", c.opt, err)
			}
			a.ends(box.Done)
			j := r.job(all[0].ID, job.Ended, box.Done)
			if want := (&imageRef{c.want.Box, c.want.ID}).of(here); j.Backup != want {
				t.Errorf("the job has used %q, and %q is wanted", j.Backup, want)
			}
		}
		base.Baseline = true
		s := r.add(here, box.Restore)
		a := r.boot(here).works()
		if a.work.Record != base {
			t.Errorf("the agent is given %s", a.work.Record.ID)
		}
		// The backup is deleted before the next attempt.
		a.ends(box.Failed)
		r.store.mu.Lock()
		r.store.all = slices.DeleteFunc(r.store.all, func(x *image.Record) bool { return x == base })
		r.store.mu.Unlock()
		if w := r.boot(here).says(); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		if j := r.job(s.ID, job.Ended, box.Refused); j.Class != job.ClassImage || !strings.Contains(j.Text, "was deleted") {
			t.Errorf("the job says %q", j.Text)
		}
		r.armed(here, false)
	})
}

// What makes no sense of another box's backup, and of hooks, is refused.
func TestGoldenWrongUse(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(there, "", "sda")
		for text, q := range map[string]Request{
			"uses no backup":      {Action: box.Backup, Options: Options{From: there.String()}},
			"is a box of the req": {Action: box.Restore, Options: Options{From: here.String()}},
			"name no backup":      {Action: box.Restore, Options: Options{From: there.String(), Image: there.String() + "@latest"}},
			"name no backup of":   {Action: box.Restore, Options: Options{From: "../x"}},
			"are not for a":       {Action: box.Verify, Options: Options{From: there.String(), Hooks: box.Hooks}},
			"no hook":             {Action: box.Restore, Options: Options{From: there.String(), Hooks: []box.Hook{"x"}}},
			"named twice": {Action: box.Restore, Options: Options{From: there.String(),
				Hooks: []box.Hook{box.HookSSHKeys, box.HookSSHKeys}}},
			"has no name": {Action: box.Restore, Options: Options{From: there.String(), Hooks: []box.Hook{box.HookHostname}}},
		} {
			q.Boxes, q.By = []box.Addr{here}, "ann"
			if _, err := r.server().Add(ctx, q); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", text, err)
			}
		}
		s := r.add(here, box.Restore, opts(Options{From: there.String(), Hooks: []box.Hook{box.HookSSHKeys, box.HookMachineID}}))
		if got := box.JoinHooks(s.Options.Hooks); got != "machine-id,ssh-keys" {
			t.Errorf("the hooks are %s", got)
		}
		if e := r.audit("use a box's backup for another"); len(e) != 1 || e[0].On != there.String() ||
			!strings.Contains(e[0].Why, here.String()) {
			t.Errorf("the other box's history has %+v", e)
		}
		if e := r.audit("add a job"); len(e) != 1 || !strings.Contains(e[0].Why, "from a backup of "+there.String()) {
			t.Errorf("this box's history has %+v", e)
		}
	})
}

// While the store cannot be read, an agent is asked to try again.
func TestStoreFails(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		s := r.add(here, box.Backup)
		fails := func(err error) {
			r.store.mu.Lock()
			r.store.fail = err
			r.store.mu.Unlock()
		}
		broken := errors.New("the bucket is away")
		fails(broken)
		a := r.boot(here)
		if w := a.asks(); w != "" {
			t.Errorf("the agent is told to %s", w)
		}
		r.job(s.ID, job.Armed, "")
		fails(nil)
		a.works().commits()
		fails(broken)
		if _, err := r.server().Result(ctx, a.hello.Token, a.from, &wire.Result{Outcome: box.Done}); !errors.Is(err, broken) {
			t.Errorf("a result is taken that nobody can prove: %v", err)
		}
		if _, err := r.server().Add(ctx, Request{Boxes: []box.Addr{there}, Action: box.Restore, By: "ann"}); !errors.Is(err, broken) {
			t.Errorf("a restore is taken: %v", err)
		}
		fails(nil)
		a.ends(box.Done)
		r.job(s.ID, job.Ended, box.Done)
	})
}

// A disk-devices.lst that cannot be used is not taken for none, which means all disks.
func TestBrokenList(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		s := r.add(here, box.Backup)
		r.list(here, strings.Repeat("x", wire.MaxDisksFile+1))
		if w := r.boot(here).says(); w != job.Restart {
			t.Errorf("the agent is told to %s", w)
		}
		if j := r.job(s.ID, job.Ended, box.Refused); j.Class != job.ClassAdmin || !strings.Contains(j.Text, box.DisksFile) {
			t.Errorf("the job says %q, class %s", j.Text, j.Class)
		}
	})
}

func TestLines(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.put(func(tx *ledger.Tx) error {
			return tx.PutBox(ledger.Box{Address: here, Name: "box1", Health: ledger.Good})
		})
		r.add(here, box.Backup)
		a := r.boot(here).works()
		lines := []wire.Line{{Kind: wire.LineHello}, {Text: "first"}, {Text: "second"}, {Kind: wire.LineAnnounce, Text: "third"},
			{Kind: wire.LineError, Text: "fourth"}}
		a.reports(false, lines...)
		a.number--
		a.reports(false, wire.Line{Text: "again"}) // the same number
		log, all := r.text(here, box.LogFile), r.text(box.Addr{}, box.LogFile)
		stamp := "2000-01-01T00:00:00+00:00: " + here.String() + ": "
		rule := "===================="
		want := []string{rule + " 2000-01-01T00:00:00+00:00: " + here.String() + ": box1 " + rule, stamp + "info: first",
			stamp + "info: second", stamp + "info: third", stamp + "error: fourth"}
		if !strings.HasSuffix(log, strings.Join(want, "\n")) || strings.Contains(log, "again") {
			t.Errorf("the log is\n%s\nwant\n%s", log, strings.Join(want, "\n"))
		}
		if !strings.Contains(all, "third") || !strings.Contains(all, "fourth") || strings.Contains(all, "second") {
			t.Errorf("the log of all boxes is\n%s", all)
		}
		d := r.server()
		d.mu.Lock()
		for _, task := range d.tasks {
			task.log.limit = 10000
		}
		d.mu.Unlock()
		for range 50 {
			a.reports(false, wire.Line{Text: strings.Repeat("much ", 100)})
		}
		log = r.text(here, box.LogFile)
		if len(log) > 20000 || strings.Count(log, "is left out") != 1 {
			t.Errorf("the log has %d bytes", len(log))
		}
		a.ends(box.Failed)
		r.kill() // the next server knows the name, too
		r.start(&knife{})
		time.Sleep(time.Second)
		b := r.boot(here).works() // another session has its own limit
		b.reports(false, wire.Line{Text: "of the next one"})
		if !strings.Contains(r.text(here, box.LogFile), "of the next one") {
			t.Error("the next session writes nothing")
		}
	})
}

// A result of any size is kept as far as the ledger takes it.
func TestLargeResult(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		r.store.add(here, "", "sda")
		huge := image.Receipt{Image: "sda", Differ: make([]image.Range, 1000), Bad: make([]image.Range, 1000)}
		for n, res := range []*wire.Result{
			{Receipts: slices.Repeat([]image.Receipt{huge}, 4)},
			{Receipts: slices.Repeat([]image.Receipt{huge}, 250)},
			{Receipts: []image.Receipt{{Image: strings.Repeat("x", 7<<20)}}},
			{Receipts: receipt, Warnings: slices.Repeat([]string{strings.Repeat("w", wire.MaxText)}, 5000)},
			{Receipts: receipt, Warnings: slices.Repeat([]string{strings.Repeat("<", wire.MaxText)}, 5000)}, // six bytes in JSON
		} {
			s := r.add(here, box.Verify)
			a := r.boot(here).works()
			res.Outcome = box.Refused
			if _, err := r.server().Result(ctx, a.hello.Token, a.from, res); err != nil {
				t.Fatal(err)
			}
			j := r.job(s.ID, job.Ended, box.Refused)
			if n == 0 && (len(j.Receipts) != 4 || len(j.Receipts[0].Differ) < 100) || n == 2 && len(j.Warnings) != 1 {
				t.Errorf("result %d: %d receipts, %d warnings", n, len(j.Receipts), len(j.Warnings))
			}
			data, _ := json.Marshal(j)
			if len(data) > ledger.MaxDocument {
				t.Errorf("the job has %d bytes", len(data))
			}
		}
	})
}
