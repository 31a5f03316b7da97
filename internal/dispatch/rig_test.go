package dispatch

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wire"
)

var ctx = context.Background()

var limits = job.Limits{Attempts: 3, Silence: 5 * time.Minute, Arming: 30 * time.Minute, Up: 20 * time.Minute, Protocol: wire.Version}

func boxAddr(n int) box.Addr {
	a, err := box.ParseAddr(fmt.Sprintf("10.%d.%d.%d", 1+n>>16, n>>8&0xff, n&0xff))
	if err != nil {
		panic(err)
	}
	return a
}

// errDead is what a server gets that was killed.
var errDead = errors.New("the server was killed")

// knife kills a server at a call, before or after it is carried out. Later calls of
// that server do nothing.
type knife struct {
	mu    sync.Mutex
	at    int  // the call; 0 is none
	after bool // it is carried out, but nobody learns it
	n     int
	dead  bool
	cut   func(name string) error // another fault; nil is none
}

func (k *knife) call(name string, f func() error) error {
	k.mu.Lock()
	if k.dead {
		k.mu.Unlock()
		return errDead
	}
	k.n++
	dies := k.n == k.at
	k.dead = dies
	cut := k.cut
	k.mu.Unlock()
	if dies && !k.after {
		return errDead
	}
	if cut != nil {
		if err := cut(name); err != nil {
			return err
		}
	}
	err := f()
	if dies {
		return errDead
	}
	return err
}

func (k *knife) isDead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

// faultyBook is a ledger whose calls a knife can cut.
type faultyBook struct {
	*knife
	l *ledger.Ledger
}

func (b faultyBook) Update(ctx context.Context, change func(*ledger.Tx) error) error {
	return b.call("update", func() error { return b.l.Update(ctx, change) })
}

func (b faultyBook) View(ctx context.Context, read func(*ledger.Tx) error) error {
	if b.isDead() {
		return errDead
	}
	return b.l.View(ctx, read)
}

// bootFile is what a box has for a boot file.
type bootFile struct {
	job    job.Job
	secret string
}

// fakeBoots are the boot files of all boxes. They outlive the server.
type fakeBoots struct {
	mu    sync.Mutex
	files map[box.Addr]bootFile
	busy  map[box.Addr]bool
	ready map[box.Action]error
	// server is the server's own address.
	server box.Addr
	arms   int
}

func (b *fakeBoots) get(a box.Addr) (bootFile, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.files[a]
	return f, ok
}

// remove removes a boot file by hand.
func (b *fakeBoots) remove(a box.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.files, a)
}

// put puts a boot file there by hand.
func (b *fakeBoots) put(a box.Addr, f bootFile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[a] = f
}

// cutBoots are the boot files as one server sees them.
type cutBoots struct {
	*knife
	b *fakeBoots
	t testing.TB
}

// alone notices two calls for one box at once.
func (c cutBoots) alone(a box.Addr, f func()) {
	c.b.mu.Lock()
	if c.b.busy[a] {
		c.t.Errorf("two calls for the boot file of %s at once", a)
	}
	c.b.busy[a] = true
	c.b.mu.Unlock()
	time.Sleep(time.Millisecond)
	c.b.mu.Lock()
	c.b.busy[a] = false
	f()
	c.b.mu.Unlock()
}

func (c cutBoots) Arm(_ context.Context, j job.Job, _ Options, secret string) error {
	return c.call("arm", func() error {
		c.alone(j.Box, func() { c.b.files[j.Box], c.b.arms = bootFile{j, secret}, c.b.arms+1 })
		return nil
	})
}

func (c cutBoots) Disarm(_ context.Context, a box.Addr, arming box.Arming) error {
	return c.call("disarm", func() error {
		c.alone(a, func() {
			if c.b.files[a].job.Arming == arming {
				delete(c.b.files, a)
			}
		})
		return nil
	})
}

func (c cutBoots) Armed(_ context.Context, a box.Addr, arming box.Arming, secret string) bool {
	f, is := c.b.get(a)
	return is && f.job.Arming == arming && f.secret == secret
}

func (c cutBoots) CheckBoxes(all []box.Addr) error {
	if slices.Contains(all, c.b.server) {
		return problem.Refusef("%s is the storage server", c.b.server)
	}
	return nil
}

func (c cutBoots) Ready(a box.Action) error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.b.ready[a]
}

// fakeStore has the records of all boxes, the newest first.
type fakeStore struct {
	mu   sync.Mutex
	all  []*image.Record
	fail error
}

func (s *fakeStore) Of(_ context.Context, a box.Addr) (list []*image.Record, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.Box == a.String() {
			list = append(list, r)
		}
	}
	return list, s.fail
}

func (s *fakeStore) Find(_ context.Context, a box.Addr, name string) (*image.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, id, other := strings.Cut(name, "@")
	if !other {
		owner, id = a.String(), name
	}
	var found *image.Record
	for _, r := range s.all {
		switch {
		case r.Box != owner || id != "" && r.ID != id:
		case found == nil || id == "" && r.Baseline:
			found = r
		}
	}
	if found == nil && s.fail == nil {
		return nil, fs.ErrNotExist
	}
	return found, s.fail
}

// add puts a backup into the store.
func (s *fakeStore) add(a box.Addr, arming box.Arming, names ...string) *image.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Date(2026, 11, 1, 0, 0, len(s.all), 0, time.UTC)
	r := &image.Record{Format: image.RecordFormat, ID: at.Format("20060102-150405"), Box: a.String(), Arming: arming, Time: at}
	for _, n := range names {
		disk := image.Identity{Size: 4096, SectorSize: 512}
		r.Disks = append(r.Disks, image.RecordedDisk{Name: n, Root: object.Name{1}, Disk: disk, Data: 4096})
	}
	s.all = append([]*image.Record{r}, s.all...)
	return r
}

func (s *fakeStore) of(arming box.Arming) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.Arming == arming {
			n++
		}
	}
	return n
}

// openLedger opens a ledger for a test. Opening takes longer than all else, so that
// several rigs can have one.
func openLedger(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// rig is a server with boxes around it. It lives in a bubble with its own time.
type rig struct {
	testing.TB
	ledger *ledger.Ledger
	boots  *fakeBoots
	store  *fakeStore
	area   *sharedir.Area
	dir    string
	cfg    Config
	log    *syncBuffer

	mu     sync.Mutex
	d      *Dispatch
	k      *knife
	powers map[box.Addr]int
	broken error  // of the power command
	only   string // the name of the only box that has one, if not all do
	// turn is for how long a power command waits for its turn, and begun is how many began after that.
	turn  time.Duration
	begun int
	// runs is what a try to restart a box leads to. nil is what broken says.
	runs     func(ctx context.Context, b ledger.Box, try int) (Switched, error)
	switched []string
	probes   map[box.Addr]bool
	forgot   map[string]bool
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// bubble runs a test with a rig in a bubble.
func bubble(t *testing.T, f func(*rig)) {
	t.Helper()
	l := openLedger(t)
	synctest.Test(t, func(t *testing.T) { newRig(t, l).run(f) })
}

func newRig(t testing.TB, l *ledger.Ledger) *rig {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, sharedir.Marker), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	area, err := sharedir.Open(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, ledger: l, area: area, dir: dir, store: &fakeStore{}, log: &syncBuffer{},
		boots:  &fakeBoots{files: map[box.Addr]bootFile{}, busy: map[box.Addr]bool{}, ready: map[box.Action]error{}},
		powers: map[box.Addr]int{}, probes: map[box.Addr]bool{}, forgot: map[string]bool{}}
	r.cfg = Config{Backups: r.store, Area: area, Limits: limits, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Probe: func(_ context.Context, b ledger.Box) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.probes[b.Address] {
				return nil
			}
			return errors.New("no answer")
		},
		Forget: func(token string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.forgot[token] = true
		}}
	return r
}

// power gives boxes a power command.
func (r *rig) power() { r.cfg.Power = fakePower{r} }

// fakePower is the power command of all boxes of a rig.
type fakePower struct{ *rig }

func (p fakePower) Has(b ledger.Box, _ []ledger.Group) bool { return p.only == "" || b.Name == p.only }

func (p fakePower) Restart(ctx context.Context, b ledger.Box, _ []ledger.Group, try int, may func() error) (Switched, error) {
	p.mu.Lock()
	p.powers[b.Address]++
	broken, runs, turn := p.broken, p.runs, p.turn
	p.mu.Unlock()
	if turn > 0 {
		time.Sleep(turn)
		if err := may(); err != nil {
			return Switched{By: "fake"}, err
		}
		p.mu.Lock()
		p.begun++
		p.mu.Unlock()
	}
	if runs != nil {
		return runs(ctx, b, try)
	}
	return Switched{By: "fake"}, broken
}

func (p fakePower) Switch(ctx context.Context, b ledger.Box, _ []ledger.Group, a power.Action, may func() error) (Switched, error) {
	p.mu.Lock()
	turn := p.turn
	p.mu.Unlock()
	time.Sleep(turn)
	if may != nil {
		if err := may(); err != nil {
			return Switched{By: "fake"}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switched = append(p.switched, fmt.Sprint(b.Address, " ", a))
	return Switched{By: "fake", Output: "says " + string(a)}, p.broken
}

// answers lets a box's own system answer probes.
func (r *rig) answers(a box.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probes[a] = true
}

func (r *rig) run(f func(*rig)) {
	f(r)
	if d := r.server(); d != nil && !r.k.isDead() {
		d.Close()
	}
}

// start starts a server, which a knife may kill.
func (r *rig) start(k *knife) {
	r.Helper()
	cfg := r.cfg
	cfg.Boots = cutBoots{k, r.boots, r.TB}
	d, err := openWith(ctx, cfg, faultyBook{k, r.ledger})
	if err != nil && !k.isDead() {
		r.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.d, r.k = d, k
}

func (r *rig) server() *Dispatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.d
}

// kill ends a server without a word to anybody.
func (r *rig) kill() {
	r.k.mu.Lock()
	r.k.dead = true
	r.k.mu.Unlock()
	r.bury()
}

// bury waits for what is left of a dead server.
func (r *rig) bury() {
	if d := r.server(); d != nil {
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.stop()
		d.work.Wait()
		d.watching.close()
	}
}

// watch starts a server again whenever it was killed. The next ones have these
// knives.
func (r *rig) watch(knives ...*knife) (stop func()) {
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(700 * time.Millisecond):
			}
			if r.k.isDead() {
				r.bury()
				next := &knife{}
				if len(knives) > 0 {
					next, knives = knives[0], knives[1:]
				}
				r.start(next)
			}
		}
	})
	return func() { close(end); done.Wait() }
}

// add asks for one job.
func (r *rig) add(a box.Addr, action box.Action, change ...func(*Request)) Status {
	r.Helper()
	q := Request{Boxes: []box.Addr{a}, Action: action, By: "ann"}
	for _, c := range change {
		c(&q)
	}
	all, err := r.server().Add(ctx, q)
	if err != nil {
		r.Fatal(err)
	}
	synctest.Wait()
	time.Sleep(queuePause + 20*time.Millisecond) // boot files take a millisecond
	synctest.Wait()
	return all[0]
}

func waitUp(q *Request) { q.WaitUp = true }

// job returns a job, and compares where it stands.
func (r *rig) job(id string, s job.State, o box.Outcome) Status {
	r.Helper()
	synctest.Wait()
	j, err := r.server().Job(ctx, id)
	if err != nil {
		r.Fatal(err)
	}
	if j.State != s || j.Outcome != o {
		r.Fatalf("the job is %s with outcome %q (%s), and %s with %q is wanted\n%s", j.State, j.Outcome, j.Text, s, o, r.log)
	}
	if j.Seed != (job.Seed{}) {
		r.Error("a status has the seed of the secrets")
	}
	return j
}

// armed says whether a box boots into maintenance.
func (r *rig) armed(a box.Addr, want bool) {
	r.Helper()
	synctest.Wait()
	if _, is := r.boots.get(a); is != want {
		r.Fatalf("that %s boots into maintenance is %v\n%s", a, is, r.log)
	}
}

// agent is a box that was started with a boot file.
type agent struct {
	*rig
	addr   box.Addr
	from   netip.Addr
	file   bootFile
	hello  wire.Hello
	work   *wire.Job
	number uint64
}

// boot starts a box. It must be armed.
func (r *rig) boot(a box.Addr) *agent {
	r.Helper()
	synctest.Wait()
	f, ok := r.boots.get(a)
	if !ok {
		r.Fatalf("%s starts from its own disk\n%s", a, r.log)
	}
	h := wire.Hello{Protocol: wire.Version, Agent: "v1", Box: a, Arming: f.job.Arming, Secret: f.secret, Token: rand.Text(),
		MACs: []string{"52:54:00:00:00:" + a.Hex()[6:]}}
	return &agent{rig: r, addr: a, from: a.IP(), file: f, hello: h}
}

// says says hello, and returns the answer's word.
func (a *agent) says() job.Word {
	a.Helper()
	w, err := a.server().Hello(ctx, &a.hello, a.from)
	if err != nil {
		a.Fatalf("hello: %v\n%s", err, a.log)
	}
	if _, err := wire.ParseWelcome(wire.Marshal(w)); err != nil {
		a.Fatal(err)
	}
	a.work = w.Job
	return w.Word
}

// works says hello and is told to work.
func (a *agent) works() *agent {
	a.Helper()
	if w := a.says(); w != job.Work {
		a.Fatalf("the agent is told to %s\n%s", w, a.log)
	}
	return a
}

func (a *agent) reports(writes bool, lines ...wire.Line) job.Word {
	a.Helper()
	a.number++
	told, err := a.server().Report(ctx, a.hello.Token, a.from, &wire.Report{Number: a.number, Writes: writes, Lines: lines})
	if err != nil {
		a.Fatalf("report: %v\n%s", err, a.log)
	}
	return told.Word
}

var receipt = []image.Receipt{{Image: "sda", Disk: "sda", Verified: 4096}}

// receiptsOf are those of an action that found all images of a backup on the disks.
func receiptsOf(r *image.Record) (all []image.Receipt) {
	for _, d := range r.Disks {
		n := d.Data + d.Zero
		all = append(all, image.Receipt{Image: d.Name, Disk: d.Name, Identity: d.Disk, Read: n, Skipped: n, Verified: n, Unused: d.Unused,
			Root: d.Root.String()})
	}
	return all
}

func (a *agent) ends(o box.Outcome) job.Word {
	a.Helper()
	r := &wire.Result{Outcome: o, Class: job.ClassImage, Text: "So it was.", Receipts: receipt}
	if a.work != nil && a.work.Record != nil {
		r.Receipts = receiptsOf(a.work.Record)
	}
	if a.work != nil && a.work.Action == box.RefreshInfo && o == box.Done {
		a.informs(box.InfoText)
	}
	told, err := a.server().Result(ctx, a.hello.Token, a.from, r)
	if err != nil {
		a.Fatalf("result: %v\n%s", err, a.log)
	}
	return told.Word
}

// informs sends a file of the inventory.
func (a *agent) informs(name string) {
	a.Helper()
	if err := a.server().Inventory(ctx, a.hello.Token, a.from, name, []byte("a machine")); err != nil {
		a.Fatal(err)
	}
}

// commits puts the backup of the agent's job into the store.
func (a *agent) commits() *agent {
	a.store.add(a.addr, a.file.job.Arming, "sda")
	return a
}

// audit returns what the audit log has of a kind.
func (r *rig) audit(what string) (all []ledger.Entry) {
	r.Helper()
	err := r.ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		all, _, err = tx.Audit(ledger.AuditFilter{What: what}, ledger.Page{})
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return all
}

func (r *rig) box(a box.Addr) (b ledger.Box) {
	r.Helper()
	err := r.ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		b, err = tx.Box(a)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return b
}

func (r *rig) put(f func(*ledger.Tx) error) {
	r.Helper()
	if err := r.ledger.Update(ctx, f); err != nil {
		r.Fatal(err)
	}
}

// text returns a file of a box's folder.
func (r *rig) text(a box.Addr, name string) string {
	b, _ := os.ReadFile(filepath.Join(r.dir, a.String(), name))
	return strings.TrimSpace(string(b))
}
