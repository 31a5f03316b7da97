package ledgerside

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// state is the model of a ledger, in memory.
type state struct {
	boxes     map[box.Addr]ledger.Box
	groups    map[string]ledger.Group
	jobs      map[string]ledger.Job
	sessions  map[ledger.Hash]ledger.Session
	users     map[string]ledger.User
	tokens    map[ledger.Hash]ledger.Token
	schedules map[string]ledger.Schedule
	audit     []ledger.Entry
	last      int64
}

func newState() *state {
	return &state{map[box.Addr]ledger.Box{}, map[string]ledger.Group{}, map[string]ledger.Job{}, map[ledger.Hash]ledger.Session{},
		map[string]ledger.User{}, map[ledger.Hash]ledger.Token{}, map[string]ledger.Schedule{}, nil, 0}
}

func (s *state) clone() *state {
	return &state{maps.Clone(s.boxes), maps.Clone(s.groups), maps.Clone(s.jobs), maps.Clone(s.sessions), maps.Clone(s.users),
		maps.Clone(s.tokens), maps.Clone(s.schedules), slices.Clone(s.audit), s.last}
}

// The kinds of answers that model and ledger must agree on.
const (
	ok      = "done"
	taken   = "exists"
	missing = "not found"
	refused = "refused"
)

func kind(err error) string {
	p := (*problem.Error)(nil)
	switch {
	case err == nil:
		return ok
	case errors.Is(err, ledger.ErrExists):
		return taken
	case errors.Is(err, ledger.ErrNotFound):
		return missing
	case errors.As(err, &p) && p.Kind == problem.Refused:
		return refused
	}
	return err.Error()
}

// op is a change of ledger and model.
type op struct {
	name string
	do   func(*ledger.Tx) error
	same func(*state) string
}

// draws are the few values from which all changes are drawn, so that they meet.
type draws struct{ t *rapid.T }

func (d draws) of(list ...string) string { return rapid.SampledFrom(list).Draw(d.t, "text") }
func (d draws) addr() box.Addr           { return rapid.SampledFrom(addrs).Draw(d.t, "address") }
func (d draws) hash() ledger.Hash        { return hash(byte(d.n(1, 3))) }
func (d draws) n(from, to int) int       { return rapid.IntRange(from, to).Draw(d.t, "number") }
func (d draws) group() string            { return d.of("rack 3", "Rack 3", "lab") }
func (d draws) time() time.Time {
	if d.n(0, 5) == 0 {
		return time.Time{}
	}
	return noon.Add(time.Duration(d.n(0, 5)))
}

func (d draws) some(list ...string) []string {
	out := rapid.SliceOfNDistinct(rapid.SampledFrom(list), 0, len(list), rapid.ID[string]).Draw(d.t, "some")
	slices.Sort(out)
	return slices.Clip(out)
}

func none(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func remove[K comparable, V any](m map[K]V, k K) string {
	if _, found := m[k]; !found {
		return missing
	}
	delete(m, k)
	return ok
}

func (d draws) op() op {
	switch n := d.n(0, 16); n {
	case 0, 1, 2:
		b := ledger.Box{Address: d.addr(), Name: d.of("", "", "box", "Box", "other"),
			Health: ledger.Healths[d.n(0, 4)], Reason: d.of("", "why"),
			MACs: none(d.some("52:54:00:00:00:01", "52:54:00:00:00:02")), Labels: none(d.some("a", "A", "ä", "b=c")),
			Groups: none(d.some("rack 3", "lab")), UUID: d.of("", "564d4a2c-11f5-8e2b-dead-beef00112233"),
			Settings: []byte(d.of(`{}`, `{"a":1}`)), Sight: []byte(d.of(`{}`, `{"a":1}`)), FirstSeen: d.time(), LastSeen: d.time()}
		if d.n(0, 1) == 0 {
			b.Holder = ledger.Holder{Name: "eva", Reason: d.of("", "x"), Expires: d.time()}
		}
		return op{"PutBox", func(tx *ledger.Tx) error { return tx.PutBox(b) }, func(s *state) string { return s.putBox(b) }}
	case 3:
		a := d.addr()
		return op{"DeleteBox", func(tx *ledger.Tx) error { return tx.DeleteBox(a) }, func(s *state) string { return remove(s.boxes, a) }}
	case 4:
		g := ledger.Group{Name: d.group(), Settings: []byte(d.of(`{}`, `[1]`))}
		return op{"PutGroup", func(tx *ledger.Tx) error { return tx.PutGroup(g) }, func(s *state) string { s.groups[g.Name] = g; return ok }}
	case 5:
		g := d.group()
		return op{"DeleteGroup", func(tx *ledger.Tx) error { return tx.DeleteGroup(g) }, func(s *state) string { return s.deleteGroup(g) }}
	case 6, 7, 8:
		j := ledger.Job{ID: d.of("j1", "j2", "j3", "J3"), Box: d.addr(), State: d.of("queued", "armed"),
			Created: noon.Add(time.Duration(d.n(0, 3))), Changed: d.time(),
			By: d.of("", "eva"), Key: d.of("", "k", "l"), Doc: []byte(d.of(`1`, `{"x": "ä"}`))}
		if d.n(0, 1) == 0 {
			j.Ended = d.time()
		}
		if n == 8 {
			return op{"UpdateJob", func(tx *ledger.Tx) error {
				old, err := tx.Job(j.ID)
				if err != nil {
					return err
				}
				k := j
				k.Created, k.By, k.Key = old.Created, old.By, old.Key
				return tx.UpdateJob(k)
			}, func(s *state) string { return s.updateJob(j) }}
		}
		return op{"AddJob", func(tx *ledger.Tx) error { return tx.AddJob(j) }, func(s *state) string { return s.addJob(j) }}
	case 9:
		v := ledger.Session{Hash: d.hash(), Job: d.of("j1", "j2"), Attempt: d.n(0, 3), Address: d.addr(), Created: d.time(), Used: d.time()}
		return op{"PutSession", func(tx *ledger.Tx) error { return tx.PutSession(v) }, func(s *state) string {
			if _, found := s.jobs[v.Job]; !found {
				return missing
			}
			s.sessions[v.Hash] = v
			return ok
		}}
	case 10:
		h := d.hash()
		return op{"DeleteSession", func(tx *ledger.Tx) error { return tx.DeleteSession(h) },
			func(s *state) string { return remove(s.sessions, h) }}
	case 11:
		u := ledger.User{Name: d.of("eva", "tom"), Role: ledger.Roles[d.n(0, 2)],
			Password: d.of("", "$argon2id$v=19$m=65536,t=1,p=4$c2FsdA$aGFzaA")}
		return op{"PutUser", func(tx *ledger.Tx) error { return tx.PutUser(u) }, func(s *state) string { s.users[u.Name] = u; return ok }}
	case 12:
		u := d.of("eva", "tom")
		return op{"DeleteUser", func(tx *ledger.Tx) error { return tx.DeleteUser(u) }, func(s *state) string {
			maps.DeleteFunc(s.tokens, func(_ ledger.Hash, t ledger.Token) bool { return t.User == u && s.users[u].Name != "" })
			return remove(s.users, u)
		}}
	case 13:
		v := ledger.Token{Hash: d.hash(), Name: "t", User: d.of("", "eva", "tom"), Role: ledger.Roles[d.n(0, 2)],
			Group: d.of("", "lab"), Expires: d.time()}
		return op{"PutToken", func(tx *ledger.Tx) error { return tx.PutToken(v) }, func(s *state) string { return s.putToken(v) }}
	case 14:
		h := d.hash()
		return op{"DeleteToken", func(tx *ledger.Tx) error { return tx.DeleteToken(h) }, func(s *state) string { return remove(s.tokens, h) }}
	case 15:
		v := ledger.Schedule{Name: d.of("night", "noon"), Spec: "0 2 * * *", Target: d.of("lab", "10.0.0.9"),
			Settings: []byte(`{}`), LastRun: d.time()}
		if d.n(0, 2) == 0 {
			return op{"DeleteSchedule", func(tx *ledger.Tx) error { return tx.DeleteSchedule(v.Name) },
				func(s *state) string { return remove(s.schedules, v.Name) }}
		}
		return op{"PutSchedule", func(tx *ledger.Tx) error { return tx.PutSchedule(v) },
			func(s *state) string { s.schedules[v.Name] = v; return ok }}
	default:
		e := ledger.Entry{Time: noon.Add(time.Duration(d.n(0, 5))), Who: d.of("eva", "tom"), From: "socket",
			What: d.of("arm", "cancel"), On: d.of("", "box")}
		if d.n(0, 3) > 0 {
			return op{"AddAudit", func(tx *ledger.Tx) error { return tx.AddAudit(e) }, func(s *state) string { s.addAudit(e); return ok }}
		}
		e.Time = noon.Add(5)
		before := noon.Add(time.Duration(d.n(0, 5)))
		return op{"DropAudit", func(tx *ledger.Tx) error { _, err := tx.DropAudit(before, e); return err }, func(s *state) string {
			all := len(s.audit)
			s.audit = slices.DeleteFunc(s.audit, func(e ledger.Entry) bool { return e.Time.Before(before) })
			n := all - len(s.audit)
			e.What, e.On = "drop audit entries", fmt.Sprintf("%d entries from before 2026-11-29T12:00:00Z", n)
			if n == 1 {
				e.On = strings.Replace(e.On, "entries", "entry", 1)
			}
			s.addAudit(e)
			return ok
		}}
	}
}

func (s *state) putBox(b ledger.Box) string {
	for a, other := range s.boxes {
		if a != b.Address && b.Name != "" && strings.EqualFold(other.Name, b.Name) {
			return taken
		}
	}
	for _, g := range b.Groups {
		if _, found := s.groups[g]; !found {
			return missing
		}
	}
	s.boxes[b.Address] = b
	return ok
}

func (s *state) deleteGroup(g string) string {
	for _, b := range s.boxes {
		if slices.Contains(b.Groups, g) {
			return refused
		}
	}
	for _, t := range s.tokens {
		if t.Group == g {
			return refused
		}
	}
	return remove(s.groups, g)
}

func (s *state) keyTaken(j ledger.Job) bool {
	for id, other := range s.jobs {
		if id != j.ID && j.Key != "" && other.Key == j.Key && other.By == j.By && other.Box == j.Box {
			return true
		}
	}
	return false
}

func (s *state) addJob(j ledger.Job) string {
	if _, found := s.jobs[j.ID]; found || s.keyTaken(j) {
		return taken
	}
	s.jobs[j.ID] = j
	return ok
}

func (s *state) updateJob(j ledger.Job) string {
	old, found := s.jobs[j.ID]
	if !found {
		return missing
	}
	j.Created, j.By, j.Key = old.Created, old.By, old.Key
	if s.keyTaken(j) {
		return taken
	}
	s.jobs[j.ID] = j
	return ok
}

func (s *state) putToken(v ledger.Token) string {
	if _, found := s.users[v.User]; v.User != "" && !found {
		return missing
	}
	if _, found := s.groups[v.Group]; v.Group != "" && !found {
		return missing
	}
	s.tokens[v.Hash] = v
	return ok
}

func (s *state) addAudit(e ledger.Entry) {
	s.last++
	e.Number = s.last
	s.audit = append(s.audit, e)
}

// testModel makes changes of all kinds at random, some of them given up, and
// compares all that a ledger has with the model.
func testModel(t *testing.T, open func(t *testing.T) *ledger.Ledger) {
	rapid.Check(t, func(rt *rapid.T) {
		l := open(t)
		defer l.Close()
		d, model := draws{rt}, newState()
		told := map[box.Addr]ledger.Box{}
		l.OnBoxes(func(put []ledger.Box, gone []box.Addr) {
			for _, a := range gone {
				delete(told, a)
			}
			for _, b := range put {
				told[b.Address] = b
			}
		})
		giveUp := errors.New("given up")
		for range d.n(1, 12) {
			next := model.clone()
			abort := d.n(0, 4) == 0
			err := l.Update(ctx, func(tx *ledger.Tx) error {
				for range d.n(1, 12) {
					op := d.op()
					want := op.same(next)
					if got := kind(op.do(tx)); got != want {
						rt.Fatalf("%s: %s, not %s", op.name, got, want)
					}
				}
				if abort {
					return giveUp
				}
				return nil
			})
			if abort != errors.Is(err, giveUp) || !abort && err != nil {
				rt.Fatal(err)
			}
			if !abort {
				model = next
			}
			if err := l.View(ctx, func(tx *ledger.Tx) error { return compare(tx, model, d) }); err != nil {
				rt.Fatal(err)
			}
			if err := equal("boxes that were told of", told, model.boxes, nil); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// compare holds a ledger against the model, by lists with filters and pages and
// by the entries one by one.
func compare(tx *ledger.Tx, s *state, d draws) error {
	limit := d.n(1, 4)
	bf := ledger.BoxFilter{Name: d.of("", "", "BOX"), MAC: d.of("", "", "52-54-00-00-00-01"), Label: d.of("", "", "A"),
		Group:  d.of("", "", "lab"),
		Health: ledger.Health(d.of("", "", "good"))}
	boxes, err := all(limit, func(p ledger.Page) ([]ledger.Box, string, error) { return tx.Boxes(bf, p) })
	want := pick(s.boxes, func(b ledger.Box) bool {
		return (bf.Name == "" || strings.EqualFold(b.Name, bf.Name)) && (bf.MAC == "" || slices.Contains(b.MACs, "52:54:00:00:00:01")) &&
			(bf.Label == "" || slices.Contains(b.Labels, bf.Label)) && (bf.Group == "" || slices.Contains(b.Groups, bf.Group)) &&
			(bf.Health == "" || b.Health == bf.Health)
	}, func(a, b ledger.Box) int { return cmp.Compare(a.Address.Hex(), b.Address.Hex()) })
	if err := equal("boxes", boxes, want, err); err != nil {
		return err
	}

	jf := ledger.JobFilter{Open: d.n(0, 2) == 0, By: d.of("", "", "eva"), Key: d.of("", "", "k"), States: d.some("queued", "armed", "held")}
	if d.n(0, 2) == 0 {
		jf.Box = d.addr()
	}
	if d.n(0, 2) == 0 {
		jf.Ended = d.time()
	}
	jobs, err := all(limit, func(p ledger.Page) ([]ledger.Job, string, error) { return tx.Jobs(jf, p) })
	newest := func(a, b ledger.Job) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) }
	wantJobs := pick(s.jobs, func(j ledger.Job) bool {
		return (jf.Box.IsZero() || j.Box == jf.Box) && (!jf.Open || j.Ended.IsZero()) && (jf.By == "" || j.By == jf.By) &&
			(jf.Ended.IsZero() || !j.Ended.IsZero() && !j.Ended.Before(jf.Ended)) &&
			(jf.Key == "" || j.Key == jf.Key) && (len(jf.States) == 0 || slices.Contains(jf.States, j.State))
	}, newest)
	if err := equal("jobs", jobs, wantJobs, err); err != nil {
		return err
	}
	lastJobs, err := tx.LastJobs(addrs)
	wantLast := map[box.Addr]ledger.Job{}
	for _, j := range pick(s.jobs, func(ledger.Job) bool { return true }, newest) {
		if _, found := wantLast[j.Box]; !found {
			wantLast[j.Box] = j
		}
	}
	if err := equal("last jobs", lastJobs, wantLast, err); err != nil {
		return err
	}
	names, err := tx.BoxNames(addrs)
	wantNames := map[box.Addr]string{}
	for _, b := range s.boxes {
		if b.Name != "" {
			wantNames[b.Address] = b.Name
		}
	}
	if err := equal("names of boxes", names, wantNames, err); err != nil {
		return err
	}

	af := ledger.AuditFilter{Who: d.of("", "", "eva"), What: d.of("", "", "arm"), On: d.of("", "", "box")}
	if d.n(0, 1) == 0 {
		af.Since, af.Until = noon.Add(1), noon.Add(4)
	}
	entries, err := all(limit, func(p ledger.Page) ([]ledger.Entry, string, error) { return tx.Audit(af, p) })
	var wantEntries []ledger.Entry
	for _, e := range slices.Backward(s.audit) {
		if (af.Who == "" || e.Who == af.Who) && (af.What == "" || e.What == af.What) && (af.On == "" || e.On == af.On) &&
			(af.Since.IsZero() || !e.Time.Before(af.Since) && e.Time.Before(af.Until)) {
			wantEntries = append(wantEntries, e)
		}
	}
	if err := equal("audit", entries, wantEntries, err); err != nil {
		return err
	}
	return errors.Join(compareLists(tx, s), compareOnes(tx, s))
}

func compareLists(tx *ledger.Tx, s *state) error {
	var errs []error
	groups, err := tx.Groups()
	errs = append(errs, equal("groups", groups, byName(s.groups), err))
	users, err := tx.Users()
	errs = append(errs, equal("users", users, byName(s.users), err))
	schedules, err := tx.Schedules()
	errs = append(errs, equal("schedules", schedules, byName(s.schedules), err))
	for _, user := range []string{"", "eva"} {
		tokens, err := tx.Tokens(user)
		errs = append(errs, equal("tokens", tokens, pick(s.tokens, func(t ledger.Token) bool { return user == "" || t.User == user },
			func(a, b ledger.Token) int { return slices.Compare(a.Hash[:], b.Hash[:]) }), err))
	}
	for _, job := range []string{"j1", "j2"} {
		sessions, err := tx.Sessions(job)
		errs = append(errs, equal("sessions", sessions, pick(s.sessions, func(v ledger.Session) bool { return v.Job == job },
			func(a, b ledger.Session) int { return slices.Compare(a.Hash[:], b.Hash[:]) }), err))
	}
	return errors.Join(errs...)
}

func compareOnes(tx *ledger.Tx, s *state) error {
	var errs []error
	for _, a := range addrs {
		got, err := tx.Box(a)
		errs = append(errs, equalOne("box", got, s.boxes, a, err))
	}
	for _, id := range []string{"j1", "j2", "j3", "J3"} {
		got, err := tx.Job(id)
		errs = append(errs, equalOne("job", got, s.jobs, id, err))
	}
	for n := range byte(4) {
		session, err := tx.Session(hash(n))
		errs = append(errs, equalOne("session", session, s.sessions, hash(n), err))
		token, err := tx.Token(hash(n))
		errs = append(errs, equalOne("token", token, s.tokens, hash(n), err))
	}
	for _, name := range []string{"eva", "tom"} {
		got, err := tx.User(name)
		errs = append(errs, equalOne("user", got, s.users, name, err))
	}
	return errors.Join(errs...)
}

func equalOne[K comparable, V any](what string, got V, in map[K]V, key K, err error) error {
	want, found := in[key]
	if !found {
		if !errors.Is(err, ledger.ErrNotFound) {
			return fmt.Errorf("%s %v is there: %+v, %v", what, key, got, err)
		}
		return nil
	}
	return equal(what, got, want, err)
}

func equal(what string, got, want any, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s: got\n%+v\nand not\n%+v", what, got, want)
	}
	return nil
}

// all reads all pages of a list.
func all[T any](limit int, list func(ledger.Page) ([]T, string, error)) (out []T, err error) {
	for p := (ledger.Page{Limit: limit}); ; {
		page, next, err := list(p)
		if err != nil {
			return nil, err
		}
		if len(page) > limit || next != "" && len(page) != limit {
			return nil, fmt.Errorf("a page of %d has %d entries", limit, len(page))
		}
		out = append(out, page...)
		if next == "" {
			return out, nil
		}
		p.After = next
	}
}

// pick lists the values of a map that are wanted, in an order.
func pick[K comparable, V any](m map[K]V, wanted func(V) bool, order func(a, b V) int) (out []V) {
	for _, v := range m {
		if wanted(v) {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, order)
	return out
}

func byName[V any](m map[string]V) (out []V) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[name])
	}
	return out
}
