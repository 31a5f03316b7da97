package room

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pickerOf makes a Picker for n units of page 0, of a byte each, with some peers that have
// all of them.
func pickerOf(n int, peers ...Member) *Picker {
	k := NewPicker(start, 1000, 1)
	for _, u := range units(0, n) {
		k.Add(start, u, 1)
	}
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(peers...)})
	for _, p := range peers {
		k.Has(start, p, Uploads, all(n))
	}
	return k
}

func listed(peers ...Member) (list []Peer) {
	for _, p := range peers {
		list = append(list, Peer{Member: p})
	}
	return list
}

// all says that a peer has the first n units of page 0.
func all(n int) map[uint32][]byte {
	b := make([]byte, (n+7)/8)
	for i := range n {
		b[i/8] |= 1 << (i % 8)
	}
	return map[uint32][]byte{0: b}
}

// fetches begins all that can be fetched now.
func fetches(k *Picker, now time.Time) (all []Fetch) {
	for {
		f, ok := k.Next(now)
		if !ok {
			return all
		}
		all = append(all, f)
	}
}

// TestFetches: a box begins with the head of its window, has no more under way than it may,
// also from one peer, and takes a far peer only where no near one will do.
func TestFetches(t *testing.T) {
	k := pickerOf(20, 1, 2, 3, 4, 5)
	k.Listed(start, []Peer{{1, false}, {2, true}, {3, true}, {4, true}, {5, true}})
	got := fetches(k, start)
	if len(got) != Downloads {
		t.Fatalf("%d fetches are begun", len(got))
	}
	from, seen := map[Member]int{}, map[Unit]bool{}
	for i, f := range got {
		from[f.From]++
		if seen[f.Unit] || i < HeadFirst && f.Unit != (Unit{0, uint32(i)}) {
			t.Errorf("fetch %d is of %v", i, f.Unit)
		}
		seen[f.Unit] = true
	}
	for p, n := range from {
		if n > PerPeer {
			t.Errorf("%d units are fetched from %d", n, p)
		}
	}
	if from[1] > 0 {
		t.Error("a far peer is asked, while near ones have room")
	}
	k = pickerOf(20, 1)
	if got := fetches(k, start); len(got) != PerPeer {
		t.Errorf("%d units are fetched from one peer", len(got))
	}
}

// TestWindow: no more than the window is fetched before it is written, but always one unit.
func TestWindow(t *testing.T) {
	k := NewPicker(start, 10, 1)
	if !k.Room(11) {
		t.Error("there is no room for a first unit that is large")
	}
	k.Add(start, Unit{0, 0}, 6)
	if k.Room(5) || !k.Room(4) {
		t.Error("the window has another size")
	}
	k.Add(start, Unit{0, 1}, 4)
	k.Written(start, Unit{0, 1})
	if k.Room(1) {
		t.Error("a unit behind the head makes room when it is written, so one that is stuck has others run far ahead")
	}
	k.Written(start, Unit{0, 0})
	if !k.Room(10) || k.Done() {
		t.Error("what is written takes room")
	}
	if k.End(); !k.Done() {
		t.Error("all is written, and it is not done")
	}
}

// TestGiven: what the server gives is fetched from it first, and not asked for twice.
func TestGiven(t *testing.T) {
	k := pickerOf(20, 1)
	q, ok := k.Ask(start, 3)
	if !ok || len(q.Want) > 0 || q.Free != 3 || !q.Serves || q.At != (Unit{0, 0}) {
		t.Fatalf("it asks %+v", q)
	}
	k = pickerOf(20)
	q, _ = k.Ask(start, 3)
	if !slices.Equal(q.Want, units(0, 20)) || q.Urgent {
		t.Fatalf("it asks %+v", q)
	}
	k.Told(start, q, Answer{Take: []Unit{{0, 5}, {0, 6}, {7, 7}}})
	got := fetches(k, start)
	if len(got) != 2 || got[0].From != Server || got[0].Unit != (Unit{0, 5}) {
		t.Fatalf("it fetches %v", got)
	}
	if _, ok := k.Ask(start.Add(AskSoon-1), 0); ok {
		t.Error("it asks again at once")
	}
	if q, ok = k.Ask(start.Add(AskSoon), 0); !ok || !slices.Equal(q.Taking, []Unit{{0, 5}, {0, 6}}) || slices.Contains(q.Want, Unit{0, 5}) {
		t.Errorf("it asks %+v", q)
	}
	k.Told(start, q, Answer{Again: time.Second})
	k.Came(start.Add(AskSoon), got[0])
	if q, ok = k.Ask(start.Add(AskSoon+AskNext), 0); !ok || !slices.Equal(q.Taking, []Unit{{0, 6}}) {
		t.Errorf("when a unit came from the server, it asks %+v", q)
	}
	k.Failed(start, got[1], Away)
	if q, _ = k.Ask(start.Add(time.Minute), 0); len(q.Taking) > 0 || !slices.Contains(q.Want, Unit{0, 6}) {
		t.Errorf("when a fetch from the server failed, it asks %+v", q)
	}
}

// TestFrom: the server is told once how much came from each peer.
func TestFrom(t *testing.T) {
	k := pickerOf(20, 1, 2)
	for _, f := range fetches(k, start) {
		k.Came(start, f)
	}
	q, _ := k.Ask(start, 0)
	if !slices.Equal(q.From, []Count{{1, PerPeer}, {2, PerPeer}}) {
		t.Fatalf("it says %v", q.From)
	}
	again, _ := k.Ask(start.Add(AskEvery), 0) // the answer was lost
	if !slices.Equal(again.From, q.From) {
		t.Errorf("it says %v the next time", again.From)
	}
	k.Told(start.Add(AskEvery), again, Answer{})
	if q, _ = k.Ask(start.Add(2*AskEvery), 0); len(q.From) > 0 {
		t.Errorf("it says %v once more", q.From)
	}
}

// TestFree: of peers from which as much is under way, the one with the most room for uploads is asked, and each unit
// that is asked of it takes of that room.
func TestFree(t *testing.T) {
	k := pickerOf(20, 1, 2, 3)
	k.Has(start, 1, 1, all(20))
	k.Has(start, 2, 3, all(20))
	k.Has(start, 3, 0, all(20))
	var from []Member
	for _, f := range fetches(k, start) {
		from = append(from, f.From)
	}
	if !slices.Equal(from, []Member{2, 1, 3, 2, 1, 3}) {
		t.Errorf("with room for 1, 3 and 0 it asks %v", from)
	}
}

// TestGarbage: who sends wrong bytes is never asked again, and is reported.
func TestGarbage(t *testing.T) {
	k := pickerOf(20, 1)
	k.Failed(start, fetches(k, start)[0], Garbage)
	if q, _ := k.Ask(start, 0); !slices.Equal(q.Bad, []Report{{1, Garbage}}) {
		t.Errorf("it reports %v", q.Bad)
	}
	later := start.Add(10 * BanFor)
	k.Listed(later, nil)
	k.Listed(later, listed(1))
	k.Has(later, 1, Uploads, all(20))
	if got := append(fetches(k, later), fetches(k, later.Add(BanFor))...); len(got) > 0 {
		t.Errorf("it is asked again: %v", got)
	}
	if slices.Contains(k.Poll(later), 1) {
		t.Error("it is asked what it has")
	}
}

// TestFails: a peer that fails twice is left alone for a while. What it says meanwhile does
// not count, so that its units are wanted from the server.
func TestFails(t *testing.T) {
	for _, f := range []Fault{Stalls, Lacks, Away, Slow} {
		k := pickerOf(20, 1)
		got := fetches(k, start)
		k.Failed(start, got[0], f)
		if len(fetches(k, start)) != 1 {
			t.Fatalf("%s: it is not asked again after one failure", f)
		}
		k.Failed(start, got[1], f)
		k.Has(start, 1, Uploads, all(20))
		if got := fetches(k, start.Add(BanFor-1)); len(got) > 0 {
			t.Errorf("%s: it is asked again before %v", f, BanFor)
		}
		q, _ := k.Ask(start, 0)
		if named := slices.Equal(q.Bad, []Report{{1, f}}); named != (f != Away) || len(q.Want) < 18 {
			t.Errorf("%s: it asks %+v", f, q)
		}
		later := start.Add(BanFor)
		k.Has(later, 1, Uploads, all(20))
		if len(fetches(k, later)) == 0 {
			t.Errorf("%s: it is not tried again after %v", f, BanFor)
		}
	}
	k := pickerOf(20, 1)
	k.Failed(start, fetches(k, start)[0], Busy)
	if len(fetches(k, start)) > 0 {
		t.Error("a busy peer is asked again at once")
	}
	if len(fetches(k, start.Add(BusyWait))) == 0 || len(k.bad) > 0 {
		t.Error("a busy peer counts as one that failed")
	}
}

// TestLies: a peer that says it has a unit, and does not send it, is not believed about it.
func TestLies(t *testing.T) {
	k := pickerOf(1, 1)
	k.Failed(start, fetches(k, start)[0], Lacks)
	k.Has(start, 1, Uploads, all(1))
	if got := fetches(k, start); len(got) > 0 {
		t.Errorf("it is asked again: %v", got)
	}
	if q, _ := k.Ask(start, 0); !slices.Equal(q.Want, units(0, 1)) {
		t.Errorf("the box wants %v", q.Want)
	}
	// One that lies about a third of its units, and sends the others, is left alone too.
	k = pickerOf(200, 1)
	n := 0
	for ; n < 100; n++ {
		got := fetches(k, start)
		if len(got) == 0 {
			break
		}
		for i, f := range got {
			if (n+i)%3 == 0 {
				k.Failed(start, f, Lacks)
			} else {
				k.Came(start, f)
			}
		}
	}
	if n > 20 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestOverdue: a fetch that takes too long is given up.
func TestOverdue(t *testing.T) {
	k := NewPicker(start, 1e9, 1)
	k.Add(start, Unit{0, 0}, 2e6)
	k.Add(start, Unit{0, 1}, 2e6)
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(1), Take: []Unit{{0, 1}}})
	k.Has(start, 1, Uploads, all(2))
	got := fetches(k, start)
	limit := start.Add(UnitWait + 2*MBWait)
	if late := k.Overdue(limit); len(got) != 2 || len(late) > 0 {
		t.Fatalf("of %v these are given up before their time: %v", got, late)
	}
	if late := k.Overdue(limit.Add(1)); len(late) != 1 || late[0].From != 1 {
		t.Errorf("given up: %v; the server has all the time that package remote gives it", late)
	}
	if len(k.Overdue(limit.Add(2))) > 0 {
		t.Error("one is given up twice")
	}
}

// TestTwice: a unit that does not come is asked of a second source, the last ones at once, and
// the slow source is named.
func TestTwice(t *testing.T) {
	k := pickerOf(1, 1, 2)
	first := fetches(k, start)
	if len(first) != 1 || len(fetches(k, start.Add(TwiceAfter-1))) > 0 {
		t.Fatal("a unit is asked of a second source at once")
	}
	late := start.Add(TwiceAfter)
	second := fetches(k, late)
	if len(second) != 1 || second[0].From == first[0].From || len(fetches(k, late)) > 0 {
		t.Fatalf("first %v, then %v", first, second)
	}
	if others := k.Came(late, second[0]); !slices.Equal(others, first) || len(k.out) > 0 {
		t.Errorf("to be given up: %v", others)
	}
	if _, p := k.peer(first[0].From); p.failures == 0 {
		t.Error("the slow one counts as sound")
	}
	if k.Came(late, first[0]) != nil || len(k.out) > 0 {
		t.Error("a fetch that was given up counts")
	}
	k = pickerOf(LastUnits, 1, 2, 3, 4)
	k.End()
	got := fetches(k, start)
	if len(got) != Downloads {
		t.Fatalf("%d of the last units are asked for", len(got))
	}
	k.Came(start, got[0])
	if again := fetches(k, start); len(again) != 1 {
		t.Errorf("the last units are not asked of a second source: %v", again)
	}
}

// TestUrgent: when the writing waits for a unit, the server hears it.
func TestUrgent(t *testing.T) {
	k := pickerOf(2, 1)
	k.Has(start, 1, Uploads, map[uint32][]byte{0: {2}})
	if q, _ := k.Ask(start, 0); q.Urgent || !slices.Equal(q.Want, units(0, 1)) {
		t.Errorf("at first it asks %+v", q)
	}
	if q, _ := k.Ask(start.Add(HeadWait), 0); !q.Urgent || !slices.Equal(q.Want, units(0, 1)) {
		t.Errorf("after %v it asks %+v", HeadWait, q)
	}
	k = pickerOf(2, 1) // it is on the way from a peer that stalls
	fetches(k, start)
	if q, _ := k.Ask(start.Add(TwiceAfter), 0); !q.Urgent || !slices.Equal(q.Want, units(0, 1)) {
		t.Errorf("when a peer stalls, it asks %+v", q)
	}
}

// TestNoPeers: a box whose peers do not answer fetches all from the server, tries them again
// later, and one alone is not deaf.
func TestNoPeers(t *testing.T) {
	run := func(k *Picker, d time.Duration, answers func(Member) bool) (deafAt time.Duration) {
		for at := time.Duration(0); at < d; at += 100 * time.Millisecond {
			now := start.Add(at)
			for _, m := range k.Poll(now) {
				if answers(m) {
					k.Has(now, m, Uploads, nil)
				} else {
					k.HasNot(now, m, Away)
				}
			}
			if q, ok := k.Ask(now, 0); ok {
				k.Told(now, q, Answer{})
				if q.Deaf {
					return at
				}
			}
			k.Next(now)
		}
		return 0
	}
	k := NewPicker(start, 1000, 1)
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(1, 2)})
	if at := run(k, time.Minute, func(Member) bool { return false }); at < DeafAfter || at > DeafAfter+AskEvery {
		t.Errorf("it is deaf after %v", at)
	}
	k = NewPicker(start, 1000, 1)
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(1, 2)})
	if at := run(k, time.Minute, func(m Member) bool { return m == 2 }); at > 0 {
		t.Errorf("it is deaf after %v, although one answers", at)
	}
	k = NewPicker(start, 1000, 1)
	if at := run(k, time.Minute, func(m Member) bool { return true }); at > 0 {
		t.Errorf("it is deaf after %v, and has no peers", at)
	}
	// Peers that answer, and give nothing, are no better.
	k = pickerOf(2, 1)
	k.Has(start, 1, Uploads, nil)
	if at := run(k, time.Minute, func(m Member) bool { return true }); at < DeafAfter || at > DeafAfter+HeadWait+AskEvery {
		t.Errorf("it is deaf after %v when nothing comes", at)
	}
	if k.Deaf(k.looked.Add(DeafFor)) {
		t.Error("it is deaf for ever")
	}
}

// TestSlowRoom: a box whose peers are slow is not deaf. If all boxes of a slow room read from the server, the
// room would be slower still.
func TestSlowRoom(t *testing.T) {
	const each = 3 * time.Second // a fetch
	k := NewPicker(start, 8, 1)
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(1, 2)})
	type flight struct {
		f   Fetch
		end time.Time
	}
	var out []flight
	next := uint32(0)
	for now := start; now.Before(start.Add(5 * time.Minute)); now = now.Add(100 * time.Millisecond) {
		for ; k.Room(1); next++ {
			k.Add(now, Unit{At: next}, 1)
		}
		for _, m := range k.Poll(now) {
			k.Has(now, m, Uploads, map[uint32][]byte{0: bytes.Repeat([]byte{255}, 1000)})
		}
		for f, ok := k.Next(now); ok; f, ok = k.Next(now) {
			out = append(out, flight{f, now.Add(each)})
		}
		for len(out) > 0 && !out[0].end.After(now) {
			k.Came(now, out[0].f)
			k.Written(now, out[0].f.Unit)
			out = out[1:]
		}
		if k.Deaf(now) || k.starved >= DeafAfter/2 {
			t.Fatalf("after %v, with %d units, it starves for %v, deaf %v", now.Sub(start), next, k.starved, k.Deaf(now))
		}
	}
	if next < 300 {
		t.Errorf("only %d units came", next)
	}
}

// TestHeadMissing: a box is not deaf as long as its peers give more than the server, although the
// unit that it waits for does not come. When they have nothing else for it, it is.
func TestHeadMissing(t *testing.T) {
	k := NewPicker(start, 200, 1)
	k.Told(start, Ask{}, Answer{Fresh: true, Peers: listed(1)})
	for i := range uint32(200) {
		k.Add(start, Unit{At: i}, 1)
	}
	has := append([]byte{254}, bytes.Repeat([]byte{255}, 24)...) // all but the first
	came, deafAt := 0, time.Duration(0)
	for at := time.Duration(0); deafAt == 0 && at < time.Minute; at += 100 * time.Millisecond {
		now := start.Add(at)
		for _, m := range k.Poll(now) {
			k.Has(now, m, Uploads, map[uint32][]byte{0: has})
		}
		if f, ok := k.Next(now); ok {
			k.Came(now, f)
			came++
		}
		if k.Deaf(now) {
			deafAt = at
		}
	}
	if came != 199 || deafAt < 20*time.Second || deafAt > 20*time.Second+2*DeafAfter {
		t.Errorf("%d units came, and it is deaf after %v", came, deafAt)
	}
}

// TestAnyOrder: whatever peers and server say, and however fetches end, a Picker keeps its
// limits, and gets all units when the server gives what it wants.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := start
		k := NewPicker(now, int64(rapid.IntRange(1, 30).Draw(t, "window")), 1)
		order := units(0, rapid.IntRange(1, 40).Draw(t, "units"))
		added, written := 0, 0
		var out []Fetch
		had := map[Unit]bool{}
		garbage := map[Member]bool{}
		member := rapid.Map(rapid.IntRange(0, 40), func(i int) Member { return Member(i) })
		begin := func() {
			for _, f := range fetches(k, now) {
				if had[f.Unit] || garbage[f.From] || k.entry(f.Unit) == nil {
					t.Fatalf("%v is fetched; it was had: %v, or comes from who gave garbage", f, had[f.Unit])
				}
				out = append(out, f)
			}
			from := map[Member]int{}
			for _, f := range out {
				from[f.From]++
				if f.From != Server && from[f.From] > PerPeer {
					t.Fatalf("%d fetches are under way from %d", from[f.From], f.From)
				}
			}
			if len(out) > Downloads || len(out) != len(k.out) {
				t.Fatalf("%d fetches are under way, and the picker knows of %d", len(out), len(k.out))
			}
		}
		drop := func(gone []Fetch) {
			out = slices.DeleteFunc(out, func(f Fetch) bool { return slices.Contains(gone, f) })
		}
		finish := func(f Fetch, why Fault) {
			drop([]Fetch{f})
			if why != "" {
				k.Failed(now, f, why)
				garbage[f.From] = garbage[f.From] || why == Garbage && f.From != Server
				return
			}
			had[f.Unit] = true
			drop(k.Came(now, f))
		}
		move := func() {
			for added < len(order) && k.Room(1) {
				k.Add(now, order[added], 1)
				if added++; added == len(order) {
					k.End()
				}
			}
			for written < len(order) && had[order[written]] {
				k.Written(now, order[written])
				written++
			}
		}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			move()
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				k.Listed(now, listed(rapid.SliceOfN(member, 0, 12).Draw(t, "list")...))
			case 1:
				bits := rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "bits")
				k.Has(now, member.Draw(t, "has"), rapid.IntRange(0, 255).Draw(t, "free"), map[uint32][]byte{0: bits})
			case 2:
				k.HasNot(now, member.Draw(t, "hasNot"), rapid.SampledFrom([]Fault{Away, Busy, Stalls, Lacks}).Draw(t, "why"))
			case 3:
				if q, ok := k.Ask(now, 1); ok {
					k.Told(now, q, Answer{Take: q.Want[:min(len(q.Want), rapid.IntRange(0, 3).Draw(t, "take"))]})
				}
			case 4:
				drop(k.Overdue(now))
			case 5:
				if len(out) > 0 {
					f := out[rapid.IntRange(0, len(out)-1).Draw(t, "which")]
					finish(f, rapid.SampledFrom([]Fault{"", "", Away, Lacks, Garbage, Stalls, Busy}).Draw(t, "end"))
				}
			}
			begin()
		}
		k.Listed(now, nil)
		for range 2000 {
			now = now.Add(100 * time.Millisecond)
			move()
			if k.Done() {
				return
			}
			drop(k.Overdue(now))
			if q, ok := k.Ask(now, 1); ok {
				k.Told(now, q, Answer{Take: q.Want[:min(len(q.Want), 2)]})
			}
			begin()
			for _, f := range slices.Clone(out) {
				if f.From == Server {
					finish(f, "")
				}
			}
		}
		t.Fatalf("%d of %d units were written", written, len(order))
	})
}
