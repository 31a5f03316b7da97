package room

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1e9, 0)

// units are the first n units of a page.
func units(page, n int) (all []Unit) {
	for i := range n {
		all = append(all, Unit{uint32(page), uint32(i)})
	}
	return all
}

// swarmOf makes a swarm of some boxes, each of which has asked once.
func swarmOf(t *testing.T, n int) (*Swarm, []Member) {
	t.Helper()
	s := NewSwarm(10, 1)
	var all []Member
	for i := range n {
		m, page := s.Join(start, fmt.Sprint(i), "")
		if page != 0 {
			t.Fatalf("the first box begins at page %d", page)
		}
		all = append(all, m)
	}
	for _, m := range all {
		asks(t, s, start, m, Ask{Serves: true})
	}
	return s, all
}

func asks(t *testing.T, s *Swarm, now time.Time, m Member, q Ask) Answer {
	t.Helper()
	a, ok := s.Ask(now, m, q)
	if !ok {
		t.Fatalf("box %d is not in the swarm", m)
	}
	return a
}

// TestGivenOnce: a unit is given out once, until it should have spread or its box is gone.
func TestGivenOnce(t *testing.T) {
	s, m := swarmOf(t, 4)
	wants := Ask{Serves: true, Want: units(0, 2)}
	if a := asks(t, s, start, m[0], wants); !slices.Equal(a.Take, units(0, 2)) {
		t.Fatalf("the first box takes %v", a.Take)
	}
	if a := asks(t, s, start, m[1], wants); len(a.Take) > 0 {
		t.Errorf("another one takes %v too", a.Take)
	}
	soon := start.Add(HandedSoon)
	if a := asks(t, s, soon, m[1], wants); len(a.Take) > 0 {
		t.Errorf("another one takes %v after %v, which it does not wait for", a.Take, HandedSoon)
	}
	urgent := wants
	urgent.Urgent = true
	if a := asks(t, s, soon.Add(-1), m[1], urgent); len(a.Take) > 0 {
		t.Errorf("another one that waits takes %v a little before %v", a.Take, HandedSoon)
	}
	if a := asks(t, s, soon, m[1], urgent); !slices.Equal(a.Take, units(0, 2)) {
		t.Errorf("another one that waits takes %v after %v", a.Take, HandedSoon)
	}
	if a := asks(t, s, soon.Add(time.Second), m[2], urgent); len(a.Take) > 0 {
		t.Errorf("a third one takes %v a second after the second one", a.Take)
	}
	s.Leave(m[1])
	if a := asks(t, s, soon.Add(time.Second), m[2], wants); len(a.Take) == 0 {
		t.Error("what a box was given that is gone is not given to others")
	}
	for range 12 { // boxes stay by asking
		soon = soon.Add(time.Second)
		for _, o := range []Member{m[0], m[2], m[3]} {
			asks(t, s, soon, o, Ask{Serves: true})
		}
	}
	if a := asks(t, s, soon, m[3], wants); len(a.Take) == 0 {
		t.Errorf("nothing is given out again after %v", HandedFor)
	}
}

// TestTakesAgain: who lost the answer, or whose request failed, gets the same unit.
func TestTakesAgain(t *testing.T) {
	s, m := swarmOf(t, 4)
	wants := Ask{Serves: true, Want: units(0, 2)}
	for range 3 {
		if a := asks(t, s, start, m[0], wants); !slices.Equal(a.Take, units(0, 2)) {
			t.Fatalf("it takes %v", a.Take)
		}
	}
	wants.Taking = units(0, 2)
	if a := asks(t, s, start, m[0], wants); len(a.Take) > 0 {
		t.Errorf("it takes %v, which it has on the way", a.Take)
	}
}

// TestSlots: the boxes of an image share what the server gives at once, and a box alone has
// it all.
func TestSlots(t *testing.T) {
	for _, n := range []int{1, 2, 5, 16, 40} {
		s, m := swarmOf(t, n)
		all := 0
		for i, b := range m {
			a := asks(t, s, start, b, Ask{Serves: true, Want: units(i%10, MaxWant)})
			all += len(a.Take)
			if most := max(1, min(SwarmSlots/n, MostSlots)); n > 1 && len(a.Take) > most {
				t.Errorf("one of %d boxes takes %d units at once", n, len(a.Take))
			}
		}
		want := min(SwarmSlots, n*max(1, min(SwarmSlots/n, MostSlots)))
		if n == 1 {
			want = AloneSlots
		}
		if all != want {
			t.Errorf("%d boxes take %d units at once, not %d", n, all, want)
		}
	}
}

// TestJoins: a box begins where most boxes are.
func TestJoins(t *testing.T) {
	s, m := swarmOf(t, 5)
	for i, page := range []uint32{7, 3, 7, 1, 3} {
		asks(t, s, start, m[i], Ask{At: Unit{Page: page}})
	}
	asks(t, s, start, m[1], Ask{At: Unit{Page: 3}, Serves: true, Want: []Unit{{3, 0}}})
	if _, page := s.Join(start, "late", ""); page != 3 {
		t.Errorf("it begins at page %d; most are at 3 and 7, and the last unit was given out of 3", page)
	}
	asks(t, s, start, m[1], Ask{At: Unit{Page: 7}})
	if _, page := s.Join(start, "late", ""); page != 7 {
		t.Errorf("it begins at page %d; most are at 7", page)
	}
	asks(t, s, start, m[1], Ask{At: Unit{Page: 10}})
	if _, page := s.Join(start, "late", ""); page >= 10 {
		t.Errorf("it begins at page %d of 10, since somebody says that it is there", page)
	}
}

// TestTakesAndGivesNothing: a box from which nobody has anything gets few units first of all,
// and holds up nobody.
func TestTakesAndGivesNothing(t *testing.T) {
	s, m := swarmOf(t, 16)
	now := start
	next := 0
	// takes is how many units m[0] gets first of all in two minutes.
	takes := func(q Ask) (got int) {
		for range 120 {
			now = now.Add(time.Second)
			q.Serves, q.Want = true, []Unit{{uint32(next % 10), uint32(next)}}
			next++
			got += len(asks(t, s, now, m[0], q).Take)
			for _, o := range m[1:] {
				asks(t, s, now, o, Ask{Serves: true})
			}
		}
		return got
	}
	trust := max(Trust/16, MinTrust)
	if got := takes(Ask{}); got != trust {
		t.Errorf("it got %d units first of all, and may get %d", got, trust)
	}
	if got := takes(Ask{From: []Count{{m[0], 100}}}); got > 0 {
		t.Errorf("it got %d units, since it says that it had some from itself", got)
	}
	u := Unit{9, 9999}
	if a := asks(t, s, now, m[0], Ask{Serves: true, Want: []Unit{u}, Urgent: true}); !slices.Equal(a.Take, []Unit{u}) {
		t.Fatal("its writing waits, and it gets nothing")
	}
	if a := asks(t, s, now, m[1], Ask{Serves: true, Want: []Unit{u}}); !slices.Equal(a.Take, []Unit{u}) {
		t.Error("another one waits for what it got, although nothing comes from it")
	}
	asks(t, s, now, m[1], Ask{Serves: true, From: []Count{{m[0], 1e6}}})
	if got := takes(Ask{}); got != trust {
		t.Errorf("when somebody had much from it, it gets %d units more, not %d", got, trust)
	}
}

// TestFair: a box that runs ahead does not get all units first of all.
func TestFair(t *testing.T) {
	s, m := swarmOf(t, 4)
	got := 0
	for i := range 200 {
		a := asks(t, s, start, m[0], Ask{Serves: true, Want: units(i%10, MaxWant)[i%60:]})
		got += len(a.Take)
		asks(t, s, start, m[1], Ask{Serves: true, From: []Count{{m[0], len(a.Take)}}})
	}
	if got == 0 || got > 2*FairMore {
		t.Errorf("a box got %d units, of which the others got none", got)
	}
}

// TestDeafBox: a box that reaches no peer gets everything, a few units at once, and nobody
// waits for these.
func TestDeafBox(t *testing.T) {
	s, m := swarmOf(t, 8)
	given := asks(t, s, start, m[1], Ask{Serves: true, Want: units(0, 2)}).Take
	a := asks(t, s, start, m[0], Ask{Serves: true, Deaf: true, Want: units(0, 4)})
	if len(given) == 0 || !slices.Equal(a.Take, units(0, DeafSlots)) {
		t.Errorf("it takes %v, after another one took %v", a.Take, given)
	}
	a = asks(t, s, start, m[0], Ask{Serves: true, Deaf: true, Want: []Unit{{1, 0}}})
	if b := asks(t, s, start, m[2], Ask{Serves: true, Want: []Unit{{1, 0}}}); len(a.Take) != 1 || len(b.Take) != 1 {
		t.Errorf("it takes %v, and another one %v", a.Take, b.Take)
	}
}

// TestDeafGives: others are not told of a deaf box, unless they had something from it.
func TestDeafGives(t *testing.T) {
	told := func(gave bool) bool {
		s, m := swarmOf(t, 3)
		if take := asks(t, s, start, m[0], Ask{Serves: true, Want: units(0, 1)}).Take; len(take) != 1 {
			t.Fatalf("it takes %v", take)
		}
		if gave {
			asks(t, s, start, m[1], Ask{Serves: true, From: []Count{{m[0], 1}}})
		}
		asks(t, s, start, m[0], Ask{Serves: true, Deaf: true})
		for _, o := range m { // nobody is gone
			asks(t, s, start.Add(PeersEvery-AskEvery), o, Ask{Serves: true, Deaf: o == m[0]})
		}
		a := asks(t, s, start.Add(2*PeersEvery-AskEvery), m[2], Ask{Serves: true})
		if !a.Fresh {
			t.Fatal("there is no new list of peers")
		}
		return slices.ContainsFunc(a.Peers, func(p Peer) bool { return p.Member == m[0] })
	}
	if told(false) {
		t.Error("others are told of a deaf box that gave nothing")
	}
	if !told(true) {
		t.Error("others are not told of a deaf box that gave something")
	}
}

// TestAccused: two boxes must say that a peer gives garbage. Who accuses many is not believed.
func TestAccused(t *testing.T) {
	s, m := swarmOf(t, 8)
	bad := func(who Member, f Fault) Ask { return Ask{Serves: true, Bad: []Report{{who, f}, {who, f}}} }
	asks(t, s, start, m[1], bad(m[0], Garbage))
	asks(t, s, start, m[1], bad(m[0], Garbage))
	asks(t, s, start, m[0], bad(m[0], Garbage))
	asks(t, s, start, m[2], bad(m[0], Stalls))
	asks(t, s, start, m[2], bad(99, Garbage))
	if d := s.Dropped(); len(d) > 0 {
		t.Fatalf("dropped: %v", d)
	}
	asks(t, s, start, m[2], bad(m[0], Garbage))
	asks(t, s, start, m[3], bad(m[0], Garbage))
	if d := s.Dropped(); !slices.Equal(d, []Report{{m[0], Garbage}}) || len(s.Dropped()) > 0 {
		t.Errorf("dropped: %v", d)
	}
	if told(s, m[1:], m[0]) {
		t.Error("boxes are still told of it")
	}
	for _, who := range m[1:] { // two boxes that accuse everybody
		asks(t, s, start, m[6], bad(who, Garbage))
		asks(t, s, start, m[7], bad(who, Garbage))
	}
	if d := s.Dropped(); len(d) > MaxAccused {
		t.Errorf("two boxes had %d dropped", len(d))
	}
}

// TestJoinsAgain: a box that joins again, or twice, stays the same one. It cannot accuse alone,
// and is not believed of more boxes than before. One that was dropped stays so.
func TestJoinsAgain(t *testing.T) {
	s, m := swarmOf(t, 8)
	bad := func(who Member) Ask { return Ask{Serves: true, Bad: []Report{{who, Garbage}}} }
	again := func(box string) Member {
		m, _ := s.Join(start, box, "")
		asks(t, s, start, m, Ask{Serves: true})
		return m
	}
	for i := range 6 {
		evil := again("7")
		asks(t, s, start, evil, bad(m[i]))
		asks(t, s, start, m[7], bad(m[i]))
		if i%2 == 0 {
			s.Leave(evil)
		}
	}
	if d := s.Dropped(); len(d) > 0 {
		t.Fatalf("one box alone had %v dropped", d)
	}
	for i := range 6 {
		asks(t, s, start, m[6], bad(m[i]))
	}
	if d := s.Dropped(); len(d) > MaxAccused {
		t.Errorf("two boxes had %d dropped", len(d))
	}
	s, m = swarmOf(t, 4)
	other := again("0")
	asks(t, s, start, m[1], bad(m[0]))
	asks(t, s, start, m[2], bad(other))
	if d := s.Dropped(); !slices.Equal(d, []Report{{other, Garbage}}) {
		t.Errorf("dropped: %v", d)
	}
	for _, who := range []Member{m[0], other, again("0")} {
		if told(s, m[1:], who) {
			t.Error("boxes are still told of it")
		}
	}
	mine := again("3")
	if told(s, m[3:], mine) || !told(s, m[1:3], mine) {
		t.Error("a box is told of itself, or others are not")
	}
}

// told reports whether boxes are told of a peer.
func told(s *Swarm, boxes []Member, of Member) bool {
	now := start.Add(PeersEvery)
	for _, b := range s.order {
		b.seen, b.listed = now, time.Time{}
	}
	for _, b := range boxes {
		a, _ := s.Ask(now, b, Ask{Serves: true})
		if slices.ContainsFunc(a.Peers, func(p Peer) bool { return p.Member == of }) {
			return true
		}
	}
	return false
}

// TestPeersOf: a box is told of near boxes that are where it is, of some others, and never of
// one that does not serve, or of itself.
func TestPeersOf(t *testing.T) {
	s := NewSwarm(100, 1)
	var all []Member
	for i := range 60 {
		m, _ := s.Join(start, fmt.Sprint(i), fmt.Sprint(i%3))
		all = append(all, m)
	}
	silent := all[3]
	for i, m := range all {
		q := Ask{Serves: m != silent, Free: 1, Deaf: m == all[6], At: Unit{Page: uint32(i)}}
		asks(t, s, start, m, q)
	}
	for i, m := range all {
		s.members[m].listed = time.Time{}
		a := asks(t, s, start, m, Ask{Serves: true, At: Unit{Page: uint32(i)}})
		if !a.Fresh || len(a.Peers) != MaxPeers {
			t.Fatalf("box %d is told of %d peers", m, len(a.Peers))
		}
		near := 0
		for _, p := range a.Peers {
			if p.Member == m || p.Member == silent && i < 3 || p.Member == all[6] && i < 6 {
				t.Errorf("box %d is told of %d", m, p.Member)
			}
			if p.Near != ((int(p.Member)-int(m))%3 == 0) {
				t.Errorf("box %d is told that %d is near: %v", m, p.Member, p.Near)
			}
			if p.Near {
				near++
			}
		}
		if near < MaxPeers-Strangers {
			t.Errorf("box %d is told of %d near peers", m, near)
		}
		if again := asks(t, s, start.Add(PeersEvery-1), m, Ask{Serves: true, At: Unit{Page: uint32(i)}}); again.Fresh {
			t.Errorf("box %d is told of other peers before %v", m, PeersEvery)
		}
	}
	one := all[0]
	of := s.members[one].peers[0]
	s.Leave(of)
	if a := asks(t, s, start, one, Ask{Serves: true}); !a.Fresh || slices.ContainsFunc(a.Peers, func(p Peer) bool { return p.Member == of }) {
		t.Error("a box is not told at once that a peer is gone")
	}
}

// TestNewcomer: boxes that know few others are told at once of one that has come, and not again.
func TestNewcomer(t *testing.T) {
	s, all := swarmOf(t, 2)
	for _, m := range all {
		asks(t, s, start, m, Ask{Serves: true})
	}
	third, _ := s.Join(start, "third", "")
	if a := asks(t, s, start, all[0], Ask{Serves: true}); a.Fresh {
		t.Errorf("a box is told of peers %v before the third one serves anybody", a.Peers)
	}
	asks(t, s, start, third, Ask{Serves: true})
	for _, m := range all {
		if a := asks(t, s, start, m, Ask{Serves: true}); !a.Fresh || len(a.Peers) != 2 {
			t.Errorf("box %d is told of %v", m, a.Peers)
		}
		if a := asks(t, s, start, m, Ask{Serves: true}); a.Fresh {
			t.Errorf("box %d is told again", m)
		}
	}
}

// TestSilent: a box that asks no more is out, and is told so.
func TestSilent(t *testing.T) {
	s, m := swarmOf(t, 2)
	now := start.Add(Silent)
	asks(t, s, now, m[0], Ask{Serves: true})
	now = now.Add(AskEvery)
	asks(t, s, now, m[0], Ask{Serves: true})
	if _, ok := s.Ask(now, m[1], Ask{}); ok || s.Members() != 1 {
		t.Errorf("a silent box is still there; there are %d", s.Members())
	}
}

// TestAnyAsks: whatever boxes say, a swarm keeps its limits and its memory.
func TestAnyAsks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSwarm(rapid.IntRange(0, 4).Draw(t, "pages"), 1)
		now := start
		unit := rapid.Custom(func(t *rapid.T) Unit {
			return Unit{rapid.Uint32Range(0, 5).Draw(t, "page"), rapid.Uint32Range(0, 3).Draw(t, "at")}
		})
		box := rapid.SampledFrom([]string{"", "a", "b"})
		who := rapid.Map(rapid.IntRange(0, 8), func(i int) Member { return Member(i) })
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			if rapid.IntRange(0, 5).Draw(t, "what") == 0 {
				if _, page := s.Join(now, box.Draw(t, "box"), box.Draw(t, "zone")); page < 0 || page >= int(s.pages) {
					t.Fatalf("a box begins at page %d of %d", page, s.pages)
				}
				continue
			}
			q := Ask{
				At: unit.Draw(t, "at"), Taking: rapid.SliceOfN(unit, 0, 4).Draw(t, "taking"), Want: rapid.SliceOfN(unit, 0, 200).Draw(t, "want"),
				Urgent: rapid.Bool().Draw(t, "urgent"), Deaf: rapid.Bool().Draw(t, "deaf"), Serves: rapid.Bool().Draw(t, "serves"),
				Free: rapid.IntRange(-5, 5).Draw(t, "free"),
			}
			for range rapid.IntRange(0, 3).Draw(t, "reports") {
				q.From = append(q.From, Count{who.Draw(t, "from"), rapid.IntRange(-1e9, 1e9).Draw(t, "n")})
				q.Bad = append(q.Bad, Report{who.Draw(t, "bad"), Garbage})
			}
			m := who.Draw(t, "who")
			a, ok := s.Ask(now, m, q)
			if !ok {
				continue
			}
			if len(a.Take) > AloneSlots || len(a.Peers) > MaxPeers {
				t.Fatalf("%+v", a)
			}
			for i, u := range a.Take {
				if u.Page >= s.pages || !slices.Contains(q.Want, u) || slices.Contains(a.Take[:i], u) {
					t.Fatalf("%v is given to who wants %v", a.Take, q.Want)
				}
			}
			for _, p := range a.Peers {
				if o := s.members[p.Member]; p.Member == m || o == nil || !o.gives() {
					t.Fatalf("box %d is told of %d", m, p.Member)
				}
			}
		}
	})
}

// TestCut: units are what Cut promises, whatever the chunks are.
func TestCut(t *testing.T) {
	if u := Cut([]int{3, 3, 3, 9, 1, 1, 1, 1}, 3, 6); !slices.Equal(u, []int{2, 1, 1, 3, 1}) {
		t.Errorf("cut into %v", u)
	}
	rapid.Check(t, func(t *rapid.T) {
		chunks := rapid.SliceOf(rapid.IntRange(1, 100)).Draw(t, "chunks")
		most, bytes := rapid.IntRange(1, 10).Draw(t, "most"), rapid.IntRange(1, 300).Draw(t, "bytes")
		at, before := 0, 0
		for _, n := range Cut(chunks, most, bytes) {
			size := 0
			for _, c := range chunks[at : at+n] {
				size += c
			}
			if n < 1 || n > most || n > 1 && size > bytes || before > 0 && before < most && size > 0 && sum(chunks[at-before:at+1]) <= bytes {
				t.Fatalf("unit of %d chunks and %d bytes at %d", n, size, at)
			}
			at, before = at+n, n
		}
		if at != len(chunks) {
			t.Fatalf("%d of %d chunks are in units", at, len(chunks))
		}
	})
}

func sum(n []int) (s int) {
	for _, v := range n {
		s += v
	}
	return s
}
