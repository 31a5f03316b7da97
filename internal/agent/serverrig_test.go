package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/testenv/testkey"
	"testbox-imaging/internal/wire"
)

// Rig is a server for tests: a store in memory, package boxapi over it, and a desk that
// follows the rules of package job. It serves one box. Its jobs are in memory and stay
// when the server is killed and started again.
type Rig struct {
	t     testing.TB
	addr  box.Addr
	blobs *mem.Store
	cert  tls.Certificate
	key   wire.Fingerprint
	at    netip.AddrPort
	dir   string // backup area with the box's log and inventory

	mu        sync.Mutex // guards the fields below
	store     *store.Store
	api       *boxapi.Server
	http      *http.Server
	listener  net.Listener
	jobs      []*rigJob // the last one is the box's
	limits    job.Limits
	selection *string
	allUsed   bool
	image     *image.Record // to restore; nil means the newest backup
	hellos    []*wire.Hello
	words     map[job.Word]bool // that agents were told by reports
	results   []*wire.Result
	reports   []*wire.Report
	refuse    func(r *http.Request) bool                     // breaks requests
	real      func() (boxapi.Authority, boxapi.Desk, func()) // takes the place of this desk
	end       func()                                         // ends it
	lose      func(r *http.Request) bool                     // breaks their answers; set before the first request
	none      bool                                           // agents are told of no backup
	slow      time.Duration                                  // that a commit takes
	losing    int                                            // so many commits find objects missing
}

// rigJob is a job of the rig.
type rigJob struct {
	job.Job
	secret string // in the box's boot file; "" if there is none
	number uint64 // of the last report
}

// NewRig starts a server for a box.
func NewRig(t testing.TB, addr box.Addr) *Rig {
	r := &Rig{t: t, addr: addr, blobs: &mem.Store{}, dir: t.TempDir(), words: map[job.Word]bool{}}
	r.limits = job.Limits{Attempts: 1000, Silence: time.Minute, Arming: time.Hour, Up: time.Hour, Protocol: wire.Version}
	var err error
	r.cert, r.key, err = testkey.New()
	r.must(err)
	r.must(store.Init(context.Background(), r.blobs))
	r.must(os.WriteFile(r.dir+"/"+sharedir.Marker, nil, 0o644))
	r.at = netip.MustParseAddrPort("127.0.0.1:0")
	r.StartServer()
	t.Cleanup(r.KillServer)
	return r
}

// address is where the server listens.
func (r *Rig) address() netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// told reports whether an agent was told a word by a report.
func (r *Rig) told(w job.Word) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.words[w]
}

func (r *Rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// StartServer starts the server, as a new process would.
func (r *Rig) StartServer() {
	r.t.Helper()
	s, err := store.Open(context.Background(), store.Config{Blobs: r.blobs, PackSize: 4 << 20})
	r.must(err)
	answer := time.Duration(0)
	if r.slow > 0 {
		answer = 50 * time.Millisecond
	}
	var grants boxapi.Authority = r
	var desk boxapi.Desk = r
	end := func() {}
	if r.real != nil {
		grants, desk, end = r.real()
	}
	api := boxapi.New(boxapi.Config{
		Grants: grants, Desk: desk, Begin: func() chunk.Session { return &losingSession{s.Begin(), r} }, Images: s,
		Committed: func(_ context.Context, of string, arming box.Arming) (*image.Record, error) {
			time.Sleep(r.slow)
			return r.committed(arming), nil
		},
		Answer: answer,
	})
	mux := http.NewServeMux()
	api.Routes(mux)
	l, err := net.Listen("tcp", r.at.String())
	for range 100 { // a connection may have taken the port for a moment
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", r.at.String())
	}
	r.must(err)
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		refuse := r.refuse
		r.mu.Unlock()
		if refuse != nil && refuse(req) {
			panic(http.ErrAbortHandler)
		}
		if r.lose != nil && r.lose(req) {
			mux.ServeHTTP(httptest.NewRecorder(), req)
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, req)
	})
	srv := &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{r.cert}}}
	boxapi.Limit(srv)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at, r.store, r.api, r.http, r.listener, r.end = netip.MustParseAddrPort(l.Addr().String()), s, api, srv, l, end
	go srv.ServeTLS(remoteAddr{l, r.addr.String()}, "", "")
}

// KillServer ends the server without a word, as far as boxes can see.
func (r *Rig) KillServer() {
	r.mu.Lock()
	srv, api, l, end := r.http, r.api, r.listener, r.end
	r.http = nil
	r.mu.Unlock()
	if srv != nil {
		l.Close()
		srv.Close()
		api.Close()
		end()
	}
}

// Refuse breaks the requests for which f returns true, before the server sees them.
func (r *Rig) Refuse(f func(*http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = f
}

// damage flips a bit in each pack of chunks.
func (r *Rig) damage() {
	ctx := context.Background()
	list, err := r.blobs.List(ctx, "packs/")
	r.must(err)
	for _, b := range list {
		if strings.HasPrefix(b.Name, "packs/tree-") {
			continue
		}
		data, err := blob.ReadAll(ctx, r.blobs, b.Name, 1<<30)
		r.must(err)
		data[len(data)/3] ^= 4
		old, err := r.blobs.Version(ctx, b.Name)
		r.must(err)
		w, err := r.blobs.Create(ctx, b.Name, old)
		r.must(err)
		w.Write(data)
		r.must(w.Commit())
	}
}

// Records returns the backups, the newest first.
func (r *Rig) Records() []*image.Record {
	r.mu.Lock()
	s := r.store
	r.mu.Unlock()
	all, damaged, err := s.Records(context.Background())
	if err != nil || len(damaged) > 0 {
		r.t.Errorf("records: %v, %v", err, damaged)
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *image.Record) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(len(b.ID), len(a.ID)), cmp.Compare(b.ID, a.ID))
	})
	return all
}

func (r *Rig) committed(arming box.Arming) *image.Record {
	for _, rec := range r.Records() {
		if rec.Arming == arming {
			return rec
		}
	}
	return nil
}

// seed is the seed of the job that arms a box with a command line. Any difference
// makes another one.
func seed(c bootcfg.Cmdline) job.Seed {
	c.Secret, c.Server, c.Key = "", netip.AddrPort{}, ""
	return sha256.Sum256([]byte(c.Words()))
}

// Arm makes a job that takes the place of the box's job.
func (r *Rig) Arm(c bootcfg.Cmdline) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.jobs); n > 0 {
		old := r.jobs[n-1]
		old.State, old.secret = job.Ended, ""
	}
	order := job.Order{ID: fmt.Sprint("job-", len(r.jobs)+1), Box: c.Address, Action: c.Action, By: "ann", Arming: c.Arming}
	j := &rigJob{Job: job.New(order, seed(c), time.Now())}
	r.jobs = append(r.jobs, j)
	r.next(j, job.Slot{})
}

// Started is the command line of the next start of the box, if it was armed with c.
func (r *Rig) Started(c bootcfg.Cmdline) bootcfg.Cmdline {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Mode, c.Server, c.Key = bootcfg.ServerMode, r.at, r.key.String()
	c.Secret = seed(c).Secret(1)
	if n := len(r.jobs); n > 0 && r.jobs[n-1].Seed == seed(c) && r.jobs[n-1].secret != "" {
		c.Secret = r.jobs[n-1].secret
	}
	return c
}

// next applies an event, and returns the word for the agent. The mutex is held.
func (r *Rig) next(j *rigJob, e job.Event) (word job.Word) {
	var fx []job.Effect
	j.Job, fx = job.Next(j.Job, e, time.Now(), r.limits)
	for _, f := range fx {
		switch f := f.(type) {
		case job.WriteBootFile:
			j.secret = f.Secret
		case job.RemoveBootFile:
			j.secret = ""
		case job.Answer:
			word = f.Word
		}
	}
	j.Job, _ = job.Next(j.Job, job.Settled{Step: j.Step, At: time.Now()}, time.Now(), r.limits)
	return word
}

// Event lets something happen to the box's job.
func (r *Rig) Event(e job.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next(r.jobs[len(r.jobs)-1], e)
}

// Job returns the box's job.
func (r *Rig) Job() job.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[len(r.jobs)-1].Job
}

// Armed reports whether the box has a boot file.
func (r *Rig) Armed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.jobs) > 0 && r.jobs[len(r.jobs)-1].secret != ""
}

func sessionOf(token string) job.Session { return sha256.Sum256([]byte(token)) }

// of returns the job of a token, or nil. The mutex is held.
func (r *Rig) of(token string) *rigJob {
	for _, j := range r.jobs {
		if j.Session == sessionOf(token) {
			return j
		}
	}
	return nil
}

// Grant implements boxapi.Authority.
func (r *Rig) Grant(_ context.Context, token string, _ netip.Addr) (boxapi.Grant, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.of(token)
	if j == nil || j.State != job.Running && j.State != job.Rescue {
		return boxapi.Grant{}, fs.ErrNotExist
	}
	arming := string(j.Arming)
	return boxapi.Grant{Box: r.addr.String(), Job: j.ID, Arming: j.Arming, Backup: true,
		MayRead: func(string, string, string) bool { return true },
		Add: func(ctx context.Context, rec *image.Record, add func(context.Context) error) error {
			if n := r.note(); n != nil && n.Arming == arming {
				rec.Firmware = &n.State
			}
			return add(ctx)
		}}, nil
}

// Hello implements boxapi.Desk.
func (r *Rig) Hello(_ context.Context, h *wire.Hello, _ netip.Addr) (*wire.Welcome, error) {
	records := r.Records()
	committed := r.committed(h.Arming)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hellos = append(r.hellos, h)
	w := &wire.Welcome{Word: job.Restart, Time: time.Now().UTC()}
	if len(r.jobs) == 0 {
		return w, nil
	}
	j := r.jobs[len(r.jobs)-1]
	w.Word = r.next(j, job.Hello{Secret: h.Secret, From: h.Box, Session: sessionOf(h.Token), Protocol: h.Protocol})
	w.Text = j.Text
	if w.Word != job.Work {
		return w, nil
	}
	_, err := os.Stat(r.dir + "/" + r.addr.String() + "/" + box.InfoText)
	w.Job = &wire.Job{ID: j.ID, Action: j.Action, Attempt: j.Attempt, Host: "box11", Selection: r.selection, Inventory: err == nil,
		AllUsed: r.allUsed, Known: records, Committed: committed, Record: r.image}
	if r.none {
		w.Job.Known, w.Job.Record = nil, nil
	} else if r.image == nil && len(records) > 0 && (j.Action == box.Restore || j.Action == box.Verify) {
		w.Job.Record = records[0]
	}
	return w, nil
}

// Report implements boxapi.Desk.
func (r *Rig) Report(_ context.Context, token string, _ netip.Addr, rep *wire.Report) (*wire.Told, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.of(token)
	if j == nil {
		return nil, fs.ErrNotExist
	}
	again := rep.Number <= j.number
	word := r.next(j, job.Report{Session: sessionOf(token), Writes: rep.Writes && !again})
	r.words[word] = true
	if !again {
		j.number = rep.Number
		r.reports = append(r.reports, rep)
		log := r.log()
		for _, l := range rep.Lines {
			switch l.Kind {
			case wire.LineHello:
				log.Hello()
			case wire.LineAnnounce:
				log.Announce("%s", l.Text)
			case wire.LineError:
				log.Error("%s", l.Text)
			default:
				log.Info("%s", l.Text)
			}
		}
	}
	return &wire.Told{Word: word, Time: time.Now().UTC()}, nil
}

func (r *Rig) folder() *sharedir.Folder {
	area, err := sharedir.Open(durable.OS{}, r.dir)
	r.must(err)
	folder, err := area.Box(r.addr)
	r.must(err)
	return folder
}

func (r *Rig) log() *sharedir.Log {
	return r.folder().Log("box11", sharedir.LogOptions{Console: io.Discard})
}

// ReadLog returns the box's log.
func (r *Rig) ReadLog() string {
	r.t.Helper()
	b, err := os.ReadFile(r.folder().Path(box.LogFile))
	r.must(err)
	return string(b)
}

// Inventory implements boxapi.Desk.
func (r *Rig) Inventory(_ context.Context, _ string, _ netip.Addr, name string, data []byte) error {
	return durable.WriteFile(durable.OS{}, r.folder().Path(name), data, 0o644)
}

// note is what the latest start noted of the firmware, or nil.
func (r *Rig) note() *efi.Note {
	data, err := os.ReadFile(r.folder().Path(box.FirmwareFile))
	if err != nil {
		return nil
	}
	n, err := efi.ParseNote(data)
	r.must(err)
	return n
}

// Firmware implements boxapi.Desk.
func (r *Rig) Firmware(context.Context, string, netip.Addr) (*wire.Firmware, error) {
	f := &wire.Firmware{Before: r.note()}
	records := r.Records()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.image != nil {
		f.Image = r.image.Firmware
	} else if len(records) > 0 {
		f.Image = records[0].Firmware
	}
	return f, nil
}

// Result implements boxapi.Desk.
func (r *Rig) Result(_ context.Context, token string, _ netip.Addr, res *wire.Result) (*wire.Told, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.of(token)
	if j == nil {
		return nil, fs.ErrNotExist
	}
	r.results = append(r.results, res)
	word := r.next(j, job.Result{Session: sessionOf(token), Outcome: res.Outcome, Class: res.Class, Text: res.Text})
	return &wire.Told{Word: word, Time: time.Now().UTC()}, nil
}

// losingSession is a session of which the rig loses objects before a commit.
type losingSession struct {
	*store.Session
	r *Rig
}

func (l *losingSession) Commit(ctx context.Context, r *image.Record) error {
	l.r.mu.Lock()
	lost := l.r.losing > 0
	l.r.losing--
	l.r.mu.Unlock()
	if lost {
		return fmt.Errorf("an object is %w", chunk.ErrMissing)
	}
	return l.Session.Commit(ctx, r)
}
