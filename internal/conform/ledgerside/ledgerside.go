// Package ledgerside is the suite of tests for a ledger, whatever database is
// below it.
package ledgerside

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// Conforms tests a ledger. open returns a new and empty one, which ends with the
// test.
func Conforms(t *testing.T, open func(t *testing.T) *ledger.Ledger) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *ledger.Ledger)
	}{
		{"given-up", testGivenUp}, {"view-cannot-change", testViewCannotChange}, {"view-is-one-state", testViewIsOneState},
		{"writers-in-turn", testWritersInTurn}, {"many-at-once", testManyAtOnce}, {"waiting-view", testWaitingView}, {"closed", testClosed},
		{"forms", testForms}, {"limits", testLimits}, {"times", testTimes}, {"hostile-audit", testHostileAudit},
		{"audit-numbers", testAuditNumbers}, {"pages", testPages}, {"wrong-pages", testWrongPages}, {"last-jobs", testLastJobs},
		{"readdress", testReaddress}, {"machines", testMachines}, {"moves", testMoves}, {"logins", testLogins},
		{"store-sizes", testStoreSizes}, {"store-work", testStoreWork},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

var (
	ctx   = context.Background()
	noon  = time.Date(2026, 11, 29, 12, 0, 0, 123456789, time.UTC)
	addrs = []box.Addr{addr("10.0.0.9"), addr("10.0.0.10"), addr("10.0.1.1"), addr("192.168.7.7")}
)

func addr(s string) box.Addr {
	a, err := box.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func hash(n byte) (h ledger.Hash) { h[0], h[31] = n, 0xff; return h }

func aBox(a box.Addr) ledger.Box { return ledger.Box{Address: a, Health: ledger.Good} }

func aJob(id string, a box.Addr) ledger.Job {
	return ledger.Job{ID: id, Box: a, State: "queued", Created: noon, Doc: []byte(`{}`)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func update(t testing.TB, l *ledger.Ledger, f func(*ledger.Tx) error) {
	t.Helper()
	must(t, l.Update(ctx, f))
}

func view(t testing.TB, l *ledger.Ledger, f func(*ledger.Tx) error) {
	t.Helper()
	must(t, l.View(ctx, f))
}

// groups is how many groups a ledger has.
func groups(t testing.TB, l *ledger.Ledger) (n int) {
	t.Helper()
	view(t, l, func(tx *ledger.Tx) error {
		all, err := tx.Groups()
		n = len(all)
		return err
	})
	return n
}

// Nothing is left of an Update that fails, panics, or whose context ends.
func testGivenUp(t *testing.T, l *ledger.Ledger) {
	add := func(tx *ledger.Tx) { must(t, tx.PutGroup(ledger.Group{Name: "rack"})) }
	want := errors.New("given up")
	if err := l.Update(ctx, func(tx *ledger.Tx) error { add(tx); return want }); !errors.Is(err, want) {
		t.Errorf("the error is %v", err)
	}
	func() {
		defer func() {
			if recover() != "oh" {
				t.Error("the panic was lost")
			}
		}()
		l.Update(ctx, func(tx *ledger.Tx) error { add(tx); panic("oh") })
	}()
	ending, cancel := context.WithCancel(ctx)
	if err := l.Update(ending, func(tx *ledger.Tx) error { add(tx); cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if err := l.Update(ending, func(tx *ledger.Tx) error { t.Error("it runs after the end"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if n := groups(t, l); n != 0 {
		t.Errorf("there are %d groups", n)
	}
	update(t, l, func(tx *ledger.Tx) error { add(tx); return nil })
	if n := groups(t, l); n != 1 {
		t.Errorf("there are %d groups", n)
	}
	var kept *ledger.Tx
	update(t, l, func(tx *ledger.Tx) error { kept = tx; return nil })
	if err := kept.PutGroup(ledger.Group{Name: "late"}); err == nil {
		t.Error("a Tx works after its end")
	}
	// A method that finds the group missing is done before it writes, so that its
	// error can be passed over.
	update(t, l, func(tx *ledger.Tx) error {
		b := aBox(addrs[0])
		b.Groups = []string{"rack", "none"}
		if err := tx.PutBox(b); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("the error is %v", err)
		}
		return nil
	})
	view(t, l, func(tx *ledger.Tx) error {
		if _, err := tx.Box(addrs[0]); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("half of a box is there: %v", err)
		}
		return nil
	})
}

func testViewCannotChange(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		return errors.Join(tx.PutBox(aBox(addrs[0])), tx.AddJob(aJob("j", addrs[0])))
	})
	view(t, l, func(tx *ledger.Tx) error {
		for i, err := range []error{
			tx.PutBox(aBox(addrs[1])), tx.SeeBox(addrs[0], noon, nil), tx.PutMachine(ledger.Machine{Name: "m"}), tx.DropMachine("m"),
			tx.DeleteBox(addrs[0]), tx.PutGroup(ledger.Group{Name: "g"}), tx.DeleteGroup("g"),
			tx.AddJob(aJob("k", addrs[0])), tx.UpdateJob(aJob("j", addrs[0])), tx.PutSession(aSession(1, "j")), tx.DeleteSession(hash(1)),
			tx.PutUser(ledger.User{Name: "u", Role: ledger.Admin}), tx.DeleteUser("u"),
			tx.PutToken(ledger.Token{Hash: hash(1), Name: "t", Role: ledger.Admin}), tx.DeleteToken(hash(1)),
			tx.PutSchedule(ledger.Schedule{Name: "s", Spec: "x", Target: "y"}), tx.DeleteSchedule("s"),
			tx.AddAudit(ledger.Entry{Time: noon, What: "x"}), tx.AddStoreSize(ledger.StoreSize{Time: noon}),
			tx.PutStoreWork(ledger.StoreWork{Work: "gc"}),
		} {
			if err == nil || errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("change %d in a View: %v", i, err)
			}
		}
		return nil
	})
	view(t, l, func(tx *ledger.Tx) error {
		if boxes, _, err := tx.Boxes(ledger.BoxFilter{}, ledger.Page{}); err != nil || len(boxes) != 1 {
			t.Errorf("there are %d boxes, %v", len(boxes), err)
		}
		return nil
	})
}

func aSession(n byte, job string) ledger.Session {
	return ledger.Session{Hash: hash(n), Job: job, Attempt: 1, Address: addrs[0], Created: noon, Used: noon}
}

// A View sees one state to its end, and the next one sees all that was committed
// before it began.
func testViewIsOneState(t *testing.T, l *ledger.Ledger) {
	view(t, l, func(tx *ledger.Tx) error {
		before, err := tx.Groups()
		must(t, err)
		update(t, l, func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "g"}) })
		if n := groups(t, l); n != 1 {
			t.Errorf("a new View sees %d groups", n)
		}
		after, err := tx.Groups()
		if err != nil || len(before) != len(after) {
			t.Errorf("the View saw %d groups, then %d: %v", len(before), len(after), err)
		}
		return nil
	})
}

// Writers have their turn in the order in which they came.
func testWritersInTurn(t *testing.T, l *ledger.Ledger) {
	var order []int
	var all sync.WaitGroup
	started := make(chan struct{})
	update(t, l, func(tx *ledger.Tx) error {
		for i := range 10 {
			all.Go(func() {
				started <- struct{}{}
				update(t, l, func(tx *ledger.Tx) error { order = append(order, i); return tx.PutGroup(ledger.Group{Name: "g"}) })
			})
			<-started
			time.Sleep(40 * time.Millisecond) // it comes to its wait
		}
		// Who gives up does not hold up the others.
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- l.Update(soon, func(*ledger.Tx) error { return nil }) }()
		select {
		case err := <-gaveUp:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("it does not give up")
		}
		return nil
	})
	all.Wait()
	for i, got := range order {
		if got != i {
			t.Fatalf("the order was %v", order)
		}
	}
}

// Eight writers lose nothing of each other, and no View sees half of an Update.
func testManyAtOnce(t *testing.T, l *ledger.Ledger) {
	const writers, times = 8, 25
	set := func(tx *ledger.Tx, n int64) error {
		s := ledger.Schedule{Name: "a", Spec: "x", Target: fmt.Sprint(n)}
		err := tx.PutSchedule(s)
		s.Name = "b"
		return errors.Join(err, tx.PutSchedule(s))
	}
	get := func(tx *ledger.Tx, i int) (int64, error) {
		all, err := tx.Schedules()
		if err != nil || len(all) != 2 {
			return 0, errors.Join(err, fmt.Errorf("%d schedules", len(all)))
		}
		return strconv.ParseInt(all[i].Target, 10, 64)
	}
	update(t, l, func(tx *ledger.Tx) error { return set(tx, 0) })
	done := make(chan struct{})
	var reading, writing sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			for last := int64(-1); ; {
				select {
				case <-done:
					return
				default:
				}
				if err := l.View(ctx, func(tx *ledger.Tx) error {
					a, err := get(tx, 0)
					time.Sleep(time.Millisecond)
					b, err2 := get(tx, 1)
					if a != b || a < last {
						err = fmt.Errorf("a View sees %d and %d, after %d", a, b, last)
					}
					last = a
					return errors.Join(err, err2)
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range writers {
		writing.Go(func() {
			for range times {
				if err := l.Update(ctx, func(tx *ledger.Tx) error {
					n, err := get(tx, 0)
					return errors.Join(err, set(tx, n+1))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	view(t, l, func(tx *ledger.Tx) error {
		n, err := get(tx, 0)
		if n != writers*times {
			t.Errorf("%d changes are there, of %d", n, writers*times)
		}
		return err
	})
}

// A View that waits for others gives up with its context.
func testWaitingView(t *testing.T, l *ledger.Ledger) {
	end := make(chan struct{})
	var reading sync.WaitGroup
	for range 50 {
		reading.Go(func() {
			view(t, l, func(tx *ledger.Tx) error {
				<-end
				_, err := tx.Groups()
				return err
			})
		})
	}
	time.Sleep(20 * time.Millisecond)
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := l.View(soon, func(*ledger.Tx) error { return nil }); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it waited for %s", took)
	}
	update(t, l, func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "g"}) }) // waits for none of them
	close(end)
	reading.Wait()
}

func testClosed(t *testing.T, l *ledger.Ledger) {
	inside, end := make(chan struct{}), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		update(t, l, func(tx *ledger.Tx) error {
			close(inside)
			<-end
			return tx.PutGroup(ledger.Group{Name: "g"})
		})
	})
	<-inside
	closed := make(chan error, 1)
	go func() { closed <- l.Close(); close(closed) }()
	select {
	case err := <-closed:
		t.Errorf("Close did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	running.Wait()
	must(t, <-closed)
	must(t, l.Close())
	for _, f := range []func(context.Context, func(*ledger.Tx) error) error{l.Update, l.View} {
		if err := f(ctx, func(*ledger.Tx) error { return nil }); !errors.Is(err, ledger.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// Whatever form an address, MAC or UUID comes in, there is one that is kept.
func testForms(t *testing.T, l *ledger.Ledger) {
	b := ledger.Box{Address: addrs[0], Name: "Box-1.lab", UUID: "564D4A2C11F58E2BDEADBEEF00112233",
		Health: ledger.Suspect, Reason: "Lüfter <b>",
		MACs:   []string{"52-54-00-AB-CD-EF", "5254.00ab.cdee", "52:54:00:ab:cd:ef"},
		Labels: []string{"z", "a=1", "z"}, Groups: []string{"rack 3"},
		Holder:   ledger.Holder{Name: "eva", Reason: "bisects", Expires: noon.In(time.FixedZone("x", 7200))},
		Settings: []byte("{\"power\": \"\u2028' OR 1=1; --\"}"), FirstSeen: noon, LastSeen: noon.Add(1)}
	want := b
	want.Sight = []byte("{}")
	want.UUID, want.MACs = "564d4a2c-11f5-8e2b-dead-beef00112233", []string{"52:54:00:ab:cd:ee", "52:54:00:ab:cd:ef"}
	want.Labels, want.Holder.Expires = []string{"a=1", "z"}, noon
	update(t, l, func(tx *ledger.Tx) error { return errors.Join(tx.PutGroup(ledger.Group{Name: "rack 3"}), tx.PutBox(b)) })
	view(t, l, func(tx *ledger.Tx) error {
		got, err := tx.Box(addrs[0])
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		for _, f := range []ledger.BoxFilter{{Name: "bOX-1.LAB"}, {MAC: "5254.00ab.cdef"}, {UUID: want.UUID}, {UUID: b.UUID},
			{Label: "a=1"}, {Group: "rack 3"}, {Health: ledger.Suspect, Label: "z", Group: "rack 3"}} {
			if found, _, err := tx.Boxes(f, ledger.Page{}); err != nil || len(found) != 1 || !reflect.DeepEqual(found[0], want) {
				t.Errorf("%+v finds %+v, %v", f, found, err)
			}
		}
		for _, f := range []ledger.BoxFilter{{Name: "box-1"}, {MAC: "52:54:00:00:00:00"}, {Label: "a"}, {Group: "rack"}, {Health: ledger.Good},
			{Name: "' OR ''='"}, {Label: "%"}, {Label: "z", Group: "none"}} {
			if found, _, err := tx.Boxes(f, ledger.Page{}); err != nil || len(found) != 0 {
				t.Errorf("%+v finds %+v, %v", f, found, err)
			}
		}
		return err
	})
}

// What is too long or no text is refused, and what is as long as it may be is
// kept as it is.
func testLimits(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		return errors.Join(tx.PutBox(aBox(addrs[0])), tx.AddJob(aJob("j", addrs[0])))
	})
	long := func(n int) string { return strings.Repeat("ä", n/2) + strings.Repeat("x", n%2) }
	object := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	many := make([]string, ledger.MaxMarks+1)
	for i := range many {
		many[i] = fmt.Sprintf("label %d", i)
	}
	hostile := []string{"a\x00b", "a\nb", "\x1b[31m", "\xff", "a\u202eb", "a\u2028", "\u200b"}
	// Each has a text of one limit.
	texts := []struct {
		what  string
		limit int
		put   func(tx *ledger.Tx, s string) error
	}{
		{"reason", ledger.MaxText, func(tx *ledger.Tx, s string) error { b := aBox(addrs[0]); b.Reason = s; return tx.PutBox(b) }},
		{"holder", ledger.MaxWho, func(tx *ledger.Tx, s string) error { b := aBox(addrs[0]); b.Holder.Name = s; return tx.PutBox(b) }},
		{"holder's reason", ledger.MaxText, func(tx *ledger.Tx, s string) error {
			b := aBox(addrs[0])
			b.Holder = ledger.Holder{Name: "eva", Reason: s}
			return tx.PutBox(b)
		}},
		{"label", ledger.MaxName, func(tx *ledger.Tx, s string) error { b := aBox(addrs[0]); b.Labels = []string{s}; return tx.PutBox(b) }},
		{"state", ledger.MaxWord, func(tx *ledger.Tx, s string) error { j := aJob("j", addrs[0]); j.State = s; return tx.UpdateJob(j) }},
		{"by", ledger.MaxWho, func(tx *ledger.Tx, s string) error { j := aJob(fresh(), addrs[0]); j.By = s; return tx.AddJob(j) }},
		{"key", ledger.MaxKey, func(tx *ledger.Tx, s string) error { j := aJob(fresh(), addrs[0]); j.Key = s; return tx.AddJob(j) }},
		{"user", ledger.MaxName, func(tx *ledger.Tx, s string) error { return tx.PutUser(ledger.User{Name: s, Role: ledger.Admin}) }},
		{"password", ledger.MaxText, func(tx *ledger.Tx, s string) error {
			return tx.PutUser(ledger.User{Name: "u", Role: ledger.Admin, Password: s})
		}},
		{"token", ledger.MaxName, func(tx *ledger.Tx, s string) error {
			return tx.PutToken(ledger.Token{Hash: hash(1), Name: s, Role: ledger.Admin})
		}},
		{"group", ledger.MaxName, func(tx *ledger.Tx, s string) error { return tx.PutGroup(ledger.Group{Name: s}) }},
		{"schedule", ledger.MaxName, func(tx *ledger.Tx, s string) error {
			return tx.PutSchedule(ledger.Schedule{Name: s, Spec: "x", Target: "y"})
		}},
		{"spec", ledger.MaxText, func(tx *ledger.Tx, s string) error {
			return tx.PutSchedule(ledger.Schedule{Name: "s", Spec: s, Target: "y"})
		}},
		{"target", ledger.MaxText, func(tx *ledger.Tx, s string) error {
			return tx.PutSchedule(ledger.Schedule{Name: "s", Spec: "x", Target: s})
		}},
		{"machine", ledger.MaxName, func(tx *ledger.Tx, s string) error { return tx.PutMachine(ledger.Machine{Name: s}) }},
	}
	for _, x := range texts {
		update(t, l, func(tx *ledger.Tx) error { return x.put(tx, long(x.limit)) })
		for _, s := range append(hostile, long(x.limit+1)) {
			refusedInput(t, l, fmt.Sprintf("%s %.20q", x.what, s), func(tx *ledger.Tx) error { return x.put(tx, s) })
		}
	}
	documents := []struct {
		what  string
		limit int
		put   func(tx *ledger.Tx, doc []byte) error
	}{
		{"box", ledger.MaxSettings, func(tx *ledger.Tx, d []byte) error { b := aBox(addrs[0]); b.Settings = d; return tx.PutBox(b) }},
		{"sight", ledger.MaxSight, func(tx *ledger.Tx, d []byte) error { b := aBox(addrs[0]); b.Sight = d; return tx.PutBox(b) }},
		{"last sight", ledger.MaxSight, func(tx *ledger.Tx, d []byte) error { return tx.SeeBox(addrs[0], noon, d) }},
		{"machine", ledger.MaxSight, func(tx *ledger.Tx, d []byte) error { return tx.PutMachine(ledger.Machine{Name: "m", Doc: d}) }},
		{"group", ledger.MaxSettings, func(tx *ledger.Tx, d []byte) error { return tx.PutGroup(ledger.Group{Name: "g", Settings: d}) }},
		{"schedule", ledger.MaxSettings, func(tx *ledger.Tx, d []byte) error {
			return tx.PutSchedule(ledger.Schedule{Name: "s", Spec: "x", Target: "y", Settings: d})
		}},
		{"job", ledger.MaxDocument, func(tx *ledger.Tx, d []byte) error { j := aJob("j", addrs[0]); j.Doc = d; return tx.UpdateJob(j) }},
	}
	for _, x := range documents {
		update(t, l, func(tx *ledger.Tx) error { return x.put(tx, object(x.limit)) })
		for _, d := range [][]byte{object(x.limit + 1), []byte("{"), []byte("\"\xff\""), []byte("{} {}"), []byte("\x00")} {
			refusedInput(t, l, x.what+" document", func(tx *ledger.Tx) error { return x.put(tx, d) })
		}
	}
	wrong := func(change func(b *ledger.Box)) func(tx *ledger.Tx) error {
		return func(tx *ledger.Tx) error { b := aBox(addrs[0]); change(&b); return tx.PutBox(b) }
	}
	for i, put := range []func(tx *ledger.Tx) error{
		wrong(func(b *ledger.Box) { b.Address = box.Addr{} }), wrong(func(b *ledger.Box) { b.Name = "10.0.0.1" }),
		wrong(func(b *ledger.Box) { b.Name = "a b" }), wrong(func(b *ledger.Box) { b.Name = strings.Repeat("a", 254) }),
		wrong(func(b *ledger.Box) { b.Health = "fine" }), wrong(func(b *ledger.Box) { b.Health = "" }),
		wrong(func(b *ledger.Box) { b.UUID = "12" }), wrong(func(b *ledger.Box) { b.MACs = []string{"52:54"} }),
		wrong(func(b *ledger.Box) { b.Labels = many }), wrong(func(b *ledger.Box) { b.Labels = []string{""} }),
		wrong(func(b *ledger.Box) { b.Labels = []string{" a"} }), wrong(func(b *ledger.Box) { b.Holder.Reason = "nobody's" }),
		func(tx *ledger.Tx) error { return tx.AddJob(aJob("", addrs[0])) },
		func(tx *ledger.Tx) error { return tx.AddJob(aJob("../x", addrs[0])) },
		func(tx *ledger.Tx) error { return tx.AddJob(aJob(strings.Repeat("a", ledger.MaxID+1), addrs[0])) },
		func(tx *ledger.Tx) error { return tx.AddJob(aJob("k", box.Addr{})) },
		func(tx *ledger.Tx) error { j := aJob("k", addrs[0]); j.Doc = nil; return tx.AddJob(j) },
		func(tx *ledger.Tx) error { j := aJob("k", addrs[0]); j.Created = time.Time{}; return tx.AddJob(j) },
		func(tx *ledger.Tx) error { j := aJob("j", addrs[0]); j.Created = noon.Add(1); return tx.UpdateJob(j) },
		func(tx *ledger.Tx) error { j := aJob("j", addrs[0]); j.Key = "other"; return tx.UpdateJob(j) },
		func(tx *ledger.Tx) error { return tx.PutSession(ledger.Session{Job: "j", Address: addrs[0]}) },
		func(tx *ledger.Tx) error { s := aSession(1, "j"); s.Attempt = -1; return tx.PutSession(s) },
		func(tx *ledger.Tx) error { return tx.PutUser(ledger.User{Name: "u", Role: "root"}) },
		func(tx *ledger.Tx) error { return tx.PutToken(ledger.Token{Name: "t", Role: ledger.Admin}) },
		func(tx *ledger.Tx) error { return tx.PutToken(ledger.Token{Hash: hash(1), Name: "t"}) },
		func(tx *ledger.Tx) error { return tx.AddAudit(ledger.Entry{Time: noon}) },
		func(tx *ledger.Tx) error { return tx.AddAudit(ledger.Entry{What: "x"}) },
	} {
		refusedInput(t, l, fmt.Sprintf("input %d", i), put)
	}
}

var freshIDs int

func fresh() string { freshIDs++; return fmt.Sprintf("fresh-%d", freshIDs) }

func refusedInput(t *testing.T, l *ledger.Ledger, what string, put func(tx *ledger.Tx) error) {
	t.Helper()
	err := l.Update(ctx, put)
	if p := (*problem.Error)(nil); !errors.As(err, &p) || p.Kind != problem.Wrong {
		t.Errorf("%s: the error is %v", what, err)
	} else if len(err.Error()) > 1000 {
		t.Errorf("%s: the error has %d bytes", what, len(err.Error()))
	}
}

func testTimes(t *testing.T, l *ledger.Ledger) {
	last := time.Unix(0, 1<<63-1).UTC()
	for _, at := range []time.Time{{}, noon, time.Now(), time.Unix(0, 1), last, noon.In(time.FixedZone("x", -3600))} {
		update(t, l, func(tx *ledger.Tx) error {
			return tx.PutSchedule(ledger.Schedule{Name: "s", Spec: "x", Target: "y", LastRun: at})
		})
		view(t, l, func(tx *ledger.Tx) error {
			got, err := tx.Schedules()
			if want := at.UTC().Round(0); len(got) != 1 || got[0].LastRun != want {
				t.Errorf("%v comes back as %+v", want, got)
			}
			return err
		})
	}
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(-1, 0), last.Add(1), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		refusedInput(t, l, at.String(), func(tx *ledger.Tx) error {
			return tx.PutSchedule(ledger.Schedule{Name: "s", Spec: "x", Target: "y", LastRun: at})
		})
	}
	update(t, l, func(tx *ledger.Tx) error {
		return errors.Join(tx.PutBox(aBox(addrs[0])), tx.SeeBox(addrs[0], noon, []byte(`{"a":1}`)),
			tx.SeeBox(addrs[0], noon.Add(-time.Hour), []byte(`{"a":2}`)))
	})
	view(t, l, func(tx *ledger.Tx) error {
		b, err := tx.Box(addrs[0])
		if b.LastSeen != noon || string(b.Sight) != `{"a":2}` {
			t.Errorf("the box was last seen at %v as %s", b.LastSeen, b.Sight)
		}
		return err
	})
}

// No text from outside keeps an entry out of the audit log.
func testHostileAudit(t *testing.T, l *ledger.Ledger) {
	for in, want := range map[string]string{
		"a\x00b\nc\x1b[0m":                   "a\ufffdb\ufffdc\ufffd[0m",
		"\xff\xfe":                           "\ufffd\ufffd",
		"<script>alert('ä')</script>":        "<script>alert('ä')</script>",
		strings.Repeat("x", ledger.MaxText):  strings.Repeat("x", ledger.MaxText),
		strings.Repeat("ä", ledger.MaxText):  strings.Repeat("ä", ledger.MaxText/2) + "...",
		strings.Repeat("€", ledger.MaxText):  strings.Repeat("€", ledger.MaxText/3) + "...",
		strings.Repeat("\x00", 1<<20):        strings.Repeat("\ufffd", ledger.MaxText/3) + "...",
		strings.Repeat("x", 1000) + "\x80yz": strings.Repeat("x", ledger.MaxText) + "...",
	} {
		update(t, l, func(tx *ledger.Tx) error {
			return tx.AddAudit(ledger.Entry{Time: noon, Who: in, From: in, What: in, On: in, Why: in})
		})
		view(t, l, func(tx *ledger.Tx) error {
			got, _, err := tx.Audit(ledger.AuditFilter{}, ledger.Page{Limit: 1})
			if e := got[0]; e.Who != want || e.From != want || e.What != want || e.On != want || e.Why != want {
				t.Errorf("%.30q becomes %.60q", in, e.Why)
			}
			return err
		})
	}
}

// A number is never given twice, also after all entries were dropped.
func testAuditNumbers(t *testing.T, l *ledger.Ledger) {
	for i := range 5 {
		update(t, l, func(tx *ledger.Tx) error {
			return tx.AddAudit(ledger.Entry{Time: noon.Add(time.Duration(i) * time.Hour), Who: "eva", What: "arm"})
		})
	}
	by := ledger.Entry{Time: noon.Add(100 * time.Hour), Who: "root", From: "socket", Why: "old"}
	update(t, l, func(tx *ledger.Tx) error {
		if n, err := tx.DropAudit(noon.Add(90*time.Hour), by); err != nil || n != 5 {
			t.Errorf("%d were dropped, %v", n, err)
		}
		return nil
	})
	want := by
	want.Number, want.What, want.On = 6, "drop audit entries", "5 entries from before 2026-12-03T06:00:00Z"
	view(t, l, func(tx *ledger.Tx) error {
		if got, _, err := tx.Audit(ledger.AuditFilter{}, ledger.Page{}); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%+v, %v", got, err)
		}
		return nil
	})
	for _, before := range []time.Time{{}, by.Time.Add(1)} {
		refusedInput(t, l, "a removal of what is to come", func(tx *ledger.Tx) error { _, err := tx.DropAudit(before, by); return err })
	}
}

// Pages have each entry once, also if many have one time, and if others come and
// go between two pages.
func testPages(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		for i := range 60 {
			j := aJob(fmt.Sprintf("j%02d", i), addrs[i%2])
			j.Created = noon.Add(time.Duration(i/20) * time.Second)
			if err := tx.AddJob(j); err != nil {
				return err
			}
		}
		return nil
	})
	var got []string
	page := ledger.Page{Limit: 7}
	for round := 0; ; round++ {
		var next string
		view(t, l, func(tx *ledger.Tx) error {
			jobs, n, err := tx.Jobs(ledger.JobFilter{Box: addrs[1]}, page)
			for _, j := range jobs {
				got = append(got, j.ID)
			}
			if next = n; next != "" && len(jobs) != page.Limit {
				t.Errorf("a page has %d jobs", len(jobs))
			}
			return err
		})
		if next == "" {
			break
		}
		page.After = next
		update(t, l, func(tx *ledger.Tx) error {
			j := aJob(fmt.Sprintf("new%d", round), addrs[1])
			j.Created = noon.Add(time.Hour)
			return tx.AddJob(j)
		})
	}
	for i, id := range got {
		if want := fmt.Sprintf("j%02d", 59-2*i); id != want {
			t.Fatalf("place %d has %s, not %s", i, id, want)
		}
	}
	if len(got) != 30 {
		t.Errorf("%d jobs were listed", len(got))
	}
}

func testWrongPages(t *testing.T, l *ledger.Ledger) {
	for _, after := range []string{"x", "-", "1-", "1-../x", "'", "99999999999999999999-a", strings.Repeat("9", 5000), "0A", "\x00"} {
		for _, f := range []func(tx *ledger.Tx, p ledger.Page) error{
			func(tx *ledger.Tx, p ledger.Page) error { _, _, err := tx.Boxes(ledger.BoxFilter{}, p); return err },
			func(tx *ledger.Tx, p ledger.Page) error { _, _, err := tx.Jobs(ledger.JobFilter{}, p); return err },
			func(tx *ledger.Tx, p ledger.Page) error { _, _, err := tx.Audit(ledger.AuditFilter{}, p); return err },
		} {
			refusedInput(t, l, fmt.Sprintf("%.20q", after), func(tx *ledger.Tx) error { return f(tx, ledger.Page{After: after}) })
		}
	}
	refusedInput(t, l, "states", func(tx *ledger.Tx) error {
		_, _, err := tx.Jobs(ledger.JobFilter{States: make([]string, 100000)}, ledger.Page{})
		return err
	})
}

func testLastJobs(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		for i := range 9 {
			j := aJob(fmt.Sprintf("j%d", i), addrs[i%3])
			j.Created = noon.Add(time.Duration(i/6) * time.Second) // some of one time
			if err := tx.AddJob(j); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, l, func(tx *ledger.Tx) error {
		last, err := tx.LastJobs(addrs)
		if len(last) != 3 || last[addrs[0]].ID != "j6" || last[addrs[1]].ID != "j7" || last[addrs[2]].ID != "j8" {
			t.Errorf("%+v", last)
		}
		return err
	})
}

// A box that moved takes its jobs along, all in one Update.
func testReaddress(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		b := aBox(addrs[0])
		b.Name = "box-1"
		return errors.Join(tx.PutBox(b), tx.AddJob(aJob("j", addrs[0])))
	})
	update(t, l, func(tx *ledger.Tx) error {
		b, err := tx.Box(addrs[0])
		must(t, err)
		j, err := tx.Job("j")
		must(t, err)
		b.Address, j.Box = addrs[1], addrs[1]
		if err := tx.PutBox(b); !errors.Is(err, ledger.ErrExists) {
			t.Errorf("two boxes have one name: %v", err)
		}
		return errors.Join(tx.DeleteBox(addrs[0]), tx.PutBox(b), tx.UpdateJob(j))
	})
	view(t, l, func(tx *ledger.Tx) error {
		boxes, _, err := tx.Boxes(ledger.BoxFilter{Name: "BOX-1"}, ledger.Page{})
		jobs, _, err2 := tx.Jobs(ledger.JobFilter{Box: addrs[1]}, ledger.Page{})
		if len(boxes) != 1 || boxes[0].Address != addrs[1] || len(jobs) != 1 {
			t.Errorf("%+v, %+v", boxes, jobs)
		}
		return errors.Join(err, err2)
	})
}

// The machines that nobody knows have a bound.
func testMachines(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		for i := range ledger.MaxMachines {
			must(t, tx.PutMachine(ledger.Machine{Name: fmt.Sprintf("m%04d", i), LastSeen: noon}))
		}
		return tx.DropMachine("nobody")
	})
	err := l.Update(ctx, func(tx *ledger.Tx) error { return tx.PutMachine(ledger.Machine{Name: "one more"}) })
	if kind(err) != refused {
		t.Errorf("one more: %v", err)
	}
	update(t, l, func(tx *ledger.Tx) error {
		return errors.Join(tx.PutMachine(ledger.Machine{Name: "m0001", LastSeen: noon.Add(1), Doc: []byte(`{"a":1}`)}), tx.DropMachine("m0000"),
			tx.PutMachine(ledger.Machine{Name: "one more"}))
	})
	view(t, l, func(tx *ledger.Tx) error {
		all, err := tx.Machines()
		if len(all) != ledger.MaxMachines || all[0].Name != "m0001" || all[0].LastSeen != noon.Add(1) || string(all[0].Doc) != `{"a":1}` ||
			string(all[1].Doc) != `{}` {
			t.Errorf("%d machines, the first is %+v", len(all), all[0])
		}
		return err
	})
}

// A box whose address changes is noted until all has followed, and no change meets another.
func testMoves(t *testing.T, l *ledger.Ledger) {
	update(t, l, func(tx *ledger.Tx) error {
		return tx.AddMove(ledger.Move{Address: addrs[1], Old: addrs[0], Begun: noon})
	})
	err := l.Update(ctx, func(tx *ledger.Tx) error {
		for _, m := range []ledger.Move{{Address: addrs[1], Old: addrs[2]}, {Address: addrs[2], Old: addrs[0]},
			{Address: addrs[2], Old: addrs[1]}, {Address: addrs[0], Old: addrs[2]}} {
			if got := kind(tx.AddMove(m)); got != taken {
				t.Errorf("%+v: %s", m, got)
			}
		}
		if got := kind(tx.DropMove(addrs[0])); got != missing {
			t.Errorf("dropped by the old address: %s", got)
		}
		return nil
	})
	must(t, err)
	refusedInput(t, l, "no old address", func(tx *ledger.Tx) error { return tx.AddMove(ledger.Move{Address: addrs[2]}) })
	refusedInput(t, l, "the same address", func(tx *ledger.Tx) error { return tx.AddMove(ledger.Move{Address: addrs[2], Old: addrs[2]}) })
	view(t, l, func(tx *ledger.Tx) error {
		all, err := tx.Moves()
		if len(all) != 1 || all[0] != (ledger.Move{Address: addrs[1], Old: addrs[0], Begun: noon}) {
			t.Errorf("%+v", all)
		}
		return err
	})
	update(t, l, func(tx *ledger.Tx) error { return tx.DropMove(addrs[1]) })
	update(t, l, func(tx *ledger.Tx) error {
		return tx.AddMove(ledger.Move{Address: addrs[2], Old: addrs[1], Begun: noon})
	})
}
