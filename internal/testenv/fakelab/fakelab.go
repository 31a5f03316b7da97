// Package fakelab is a server with boxes that are not there, for tests of the admin API
// and of its commands. The server's jobs are run by a real Dispatch over a real ledger.
// The boxes are goroutines that start when they have a boot file, and speak with the
// Dispatch as an agent does.
package fakelab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/power"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/testenv/testkey"
	"testbox-imaging/internal/wire"
)

// What boxes do is told by the last part of their address. All others do what they are
// asked.
const (
	Refuses    = 101 // its action is refused
	Fails      = 102 // its action fails each time
	Never      = 103 // it never starts
	Works      = 104 // it works until it is told to stop
	WritesHalf = 105 // it writes to its disk and then fails
	NeverUp    = 106 // its own system never answers
	Differs    = 107 // its disk differs
	Silent     = 108 // it does not say its host key in a rescue
	InRoom     = 109 // it restores until it is told to stop, and gets chunks from another box
)

// HostKey is that of all boxes in a rescue.
const HostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFyNxM12UGrtNi4LlpQjE4aTuEUk1v3fX6kOuTWQDCC/"

// Lab is a server with its boxes.
type Lab struct {
	Ledger   *ledger.Ledger
	Dispatch *dispatch.Dispatch
	API      *api.Server
	Area     *sharedir.Area
	Sights   *sight.List
	Key      wire.Fingerprint
	URL      string // of HTTPS

	mu      sync.Mutex // guards the fields below
	files   map[box.Addr]file
	records []*image.Record

	ctx  context.Context
	stop context.CancelFunc
	wait sync.WaitGroup
}

type file struct {
	job    job.Job
	secret string
	opt    dispatch.Options
}

// Start starts a server whose files are in dir, and which listens at a Unix socket and
// over HTTPS.
func Start(dir, socket, group string) (l *Lab, err error) {
	l = &Lab{files: map[box.Addr]file{}}
	l.ctx, l.stop = context.WithCancel(context.Background())
	if l.Ledger, err = ledger.Open(l.ctx, filepath.Join(dir, "ledger.db"), ledger.Options{}); err != nil {
		return nil, err
	}
	l.Sights = newSights(l.Ledger)
	boxes := filepath.Join(dir, "boxes")
	if err := errors.Join(os.MkdirAll(boxes, 0o755), os.WriteFile(filepath.Join(boxes, sharedir.Marker), nil, 0o644)); err != nil {
		return nil, err
	}
	if l.Area, err = sharedir.Open(durable.OS{}, boxes); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	cfg := dispatch.Config{Power: l, Ledger: l.Ledger, Boots: l, Backups: l, Area: l.Area, Places: setting.Places,
		Log:    slog.New(slog.NewTextHandler(log, nil)),
		Limits: job.Limits{Attempts: 3, Silence: 10 * time.Second, Arming: time.Minute, Up: 2 * time.Second},
		Probe: func(_ context.Context, b ledger.Box) error {
			if last(b.Address) == NeverUp {
				return errors.New("no answer")
			}
			return nil
		}}
	// Boxes may start before Open returns, and wait for the lock then.
	l.mu.Lock()
	l.Dispatch, err = dispatch.Open(l.ctx, cfg)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	// Nobody makes the jobs of the schedule by itself.
	nightly, err := schedule.New("nightly", schedule.Config{When: "30 2 * * *", Zone: "UTC", Action: box.RefreshInfo,
		Boxes: []string{"label:nightly"}})
	if err != nil {
		return nil, err
	}
	plans := []*schedule.Plan{nightly}
	err = l.Ledger.Update(l.ctx, func(tx *ledger.Tx) error {
		_, err := schedule.Sync(tx, plans, time.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	l.API = api.New(api.Config{Ledger: l.Ledger, Jobs: l.Dispatch, Schedules: plans, Area: l.Area, Group: group, Heartbeat: time.Second,
		Sights: l.Sights, Poll: 10 * time.Millisecond, Log: cfg.Log, Site: site})
	unix, err := api.Listen(socket, group)
	if err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	cert, key, err := testkey.New()
	if err != nil {
		return nil, err
	}
	l.Key = key
	l.URL = "https://" + tcp.Addr().String()
	l.wait.Go(func() { l.API.ServeUnix(unix) })
	l.wait.Go(func() {
		l.API.ServeTLS(tcp, &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}, nil)
	})
	return l, nil
}

// newSights have one machine that nobody knows. Boxes are known by their addresses and
// MACs.
func newSights(book *ledger.Ledger) *sight.List {
	var mu sync.Mutex
	known := map[string]box.Addr{}
	book.OnBoxes(func(put []ledger.Box, _ []box.Addr) {
		mu.Lock()
		defer mu.Unlock()
		for _, b := range put {
			known[b.Address.String()] = b.Address
			for _, mac := range b.MACs {
				known[mac] = b.Address
			}
		}
	})
	list := &sight.List{Know: func(id sight.Identity) (k sight.Known) {
		mu.Lock()
		defer mu.Unlock()
		if a, has := known[id.Addr.String()]; has {
			k.Box, k.Here = a.IP(), a.IP()
		}
		if a, has := known[id.MAC]; has {
			k.Box, k.Sure = a.IP(), true
		}
		return k
	}}
	for _, name := range []string{"pxelinux.0", "pxelinux.cfg/default"} {
		list.Saw(sight.Identity{Addr: netip.MustParseAddr("10.0.0.77"), MAC: "52:54:00:00:00:77", Arch: "BIOS"},
			sight.Ask{Time: time.Now(), Over: "tftp", Asked: name, Given: name})
	}
	return list
}

// site has the power commands: bmc, and pdu, which fails.
var site = setting.Site{Powers: []string{"bmc", "pdu"}}

// Has implements dispatch.Power.
func (l *Lab) Has(b ledger.Box, groups []ledger.Group) bool {
	return setting.For(b, groups, site).Power != ""
}

// Restart implements dispatch.Power. A box starts by itself.
func (l *Lab) Restart(ctx context.Context, b ledger.Box, groups []ledger.Group, _ int, may func() error) (dispatch.Switched, error) {
	return l.Switch(ctx, b, groups, power.Cycle, may)
}

// Switch implements dispatch.Power.
func (l *Lab) Switch(_ context.Context, b ledger.Box, groups []ledger.Group, a power.Action, _ func() error) (
	dispatch.Switched, error) {
	did := dispatch.Switched{By: setting.For(b, groups, site).Power, Output: fmt.Sprintf("Chassis Power Control: %s", a)}
	switch did.By {
	case "":
		return dispatch.Switched{}, problem.Refusef("%s has no power command", b.Address)
	case "pdu":
		return did, errors.New("the power command pdu failed with exit code 1")
	}
	return did, nil
}

// Close ends the server and all boxes.
func (l *Lab) Close() {
	l.API.Close()
	l.stop()
	l.Dispatch.Close()
	l.wait.Wait()
	l.Ledger.Close()
}

// last is the last part of an address.
func last(a box.Addr) byte {
	b := a.IP().As4()
	return b[3]
}

// Arm implements dispatch.Boots. The box starts soon.
func (l *Lab) Arm(_ context.Context, j job.Job, opt dispatch.Options, secret string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, is := l.files[j.Box]
	l.files[j.Box] = file{j, secret, opt}
	if last(j.Box) != Never && (!is || old.job.ID != j.ID || j.State == job.Armed && old.secret != secret) {
		l.wait.Go(func() { l.boot(j.Box) })
	}
	return nil
}

// Disarm implements dispatch.Boots. The box starts its own system soon.
func (l *Lab) Disarm(_ context.Context, a box.Addr, arming box.Arming) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, is := l.files[a]; is && f.job.Arming == arming {
		delete(l.files, a)
		l.wait.Go(func() {
			if l.sleep(50 * time.Millisecond) {
				l.Dispatch.DefaultAsked(a, time.Now())
			}
		})
	}
	return nil
}

// Armed implements dispatch.Boots.
func (l *Lab) Armed(_ context.Context, a box.Addr, arming box.Arming, secret string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, is := l.files[a]
	return is && f.job.Arming == arming && f.secret == secret
}

// CheckBoxes implements dispatch.Boots.
func (l *Lab) CheckBoxes([]box.Addr) error { return nil }

// Ready implements dispatch.Boots.
func (l *Lab) Ready(box.Action) error { return nil }

// Of implements dispatch.Backups.
func (l *Lab) Of(_ context.Context, a box.Addr) (list []*image.Record, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.Box == a.String() {
			list = append(list, r)
		}
	}
	return list, nil
}

// Find implements dispatch.Backups.
func (l *Lab) Find(ctx context.Context, a box.Addr, name string) (*image.Record, error) {
	if owner, id, other := strings.Cut(name, "@"); other {
		var err error
		if a, err = box.ParseAddr(owner); err != nil {
			return nil, problem.Wrongf("%w", err)
		}
		name = id
	}
	all, _ := l.Of(ctx, a)
	for _, r := range all {
		if name == "" || name == "latest" || name == r.ID {
			return r, nil
		}
	}
	return nil, fs.ErrNotExist
}

// commit puts a backup into the store.
func (l *Lab) commit(a box.Addr, arming box.Arming) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Date(2026, 11, 1, 0, 0, len(l.records), 0, time.UTC)
	r := &image.Record{Format: image.RecordFormat, ID: at.Format("20060102-150405"), Box: a.String(), Arming: arming, Time: at,
		Disks: []image.RecordedDisk{{Name: "sda", Root: object.Name{1}, Disk: image.Identity{Size: 4096, SectorSize: 512}, Data: 4096}}}
	l.records = append([]*image.Record{r}, l.records...)
}

// Redo puts other content into the latest backup of a box, as if it had been deleted and one with its id were made.
func (l *Lab) Redo(a box.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.records {
		if r.Box == a.String() {
			other := *r
			other.Disks = append(slices.Clone(r.Disks), image.RecordedDisk{Name: "sdb", Root: object.Name{2},
				Disk: image.Identity{Size: 8192, SectorSize: 512}})
			l.records[i] = &other
			return
		}
	}
}

func (l *Lab) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-l.ctx.Done():
		return false
	}
}

// boot is one start of a box.
func (l *Lab) boot(a box.Addr) {
	if !l.sleep(50 * time.Millisecond) {
		return
	}
	l.mu.Lock()
	f, armed := l.files[a]
	l.mu.Unlock()
	if !armed {
		return
	}
	token := rand.Text()
	h := &wire.Hello{Protocol: wire.Version, Agent: "fake", Box: a, Arming: f.job.Arming, Secret: f.secret, Token: token,
		MACs: []string{"52:54:00:00:00:" + strings.ToLower(a.Hex()[6:])}}
	w, err := l.Dispatch.Hello(l.ctx, h, a.IP())
	if err != nil || w.Word != job.Work {
		return
	}
	l.work(a, w.Job, token, f.job.Arming)
}

func (l *Lab) work(a box.Addr, j *wire.Job, token string, arming box.Arming) {
	number := uint64(0)
	report := func(r wire.Report) job.Word {
		number++
		r.Number = number
		told, err := l.Dispatch.Report(l.ctx, token, a.IP(), &r)
		if err != nil {
			return job.Stop
		}
		return told.Word
	}
	result := func(r wire.Result) {
		r.Receipts = []image.Receipt{{Image: "sda", Disk: "sda", Verified: 4096}}
		if j.Record != nil {
			r.Receipts = nil
			for _, d := range j.Record.Disks {
				n := d.Data + d.Zero
				r.Receipts = append(r.Receipts, image.Receipt{Image: d.Name, Disk: d.Name, Identity: d.Disk, Read: n, Skipped: n, Verified: n,
					Unused: d.Unused, Root: d.Root.String()})
			}
		}
		if j.Action == box.RefreshInfo {
			l.Dispatch.Inventory(l.ctx, token, a.IP(), box.InfoText, []byte("a machine"))
		}
		l.Dispatch.Result(l.ctx, token, a.IP(), &r)
	}
	report(wire.Report{Lines: []wire.Line{{Kind: wire.LineHello}, {Text: fmt.Sprintf("%s, arming %s", j.Action, arming)}}})
	for i := int64(1); i <= 3; i++ {
		report(wire.Report{Step: wire.StepRead, Text: fmt.Sprintf("sda: read %d of 3 GiB", i), Done: i << 30, Total: 3 << 30})
		if !l.sleep(20 * time.Millisecond) {
			return
		}
	}
	switch {
	case last(a) == Refuses:
		result(wire.Result{Outcome: box.Refused, Class: job.ClassBox, Text: "its disk is mounted"})
	case last(a) == Fails:
		result(wire.Result{Outcome: box.Failed, Class: job.ClassBox, Text: "its disk is broken"})
		l.boot(a)
	case last(a) == Works:
		for report(wire.Report{Step: wire.StepRead, Text: "it works"}) == job.GoOn {
			if !l.sleep(100 * time.Millisecond) {
				return
			}
		}
		result(wire.Result{Outcome: job.Cancelled})
	case last(a) == InRoom && j.Action == box.Restore:
		room := &wire.RoomState{Boxes: 2, FromServer: 1 << 30, FromPeers: 3 << 30, ToPeers: 2 << 30, Left: 90}
		for report(wire.Report{Writes: true, Step: wire.StepWrite, Text: "sda: write 50 %", Done: 1, Total: 2, Room: room}) == job.GoOn {
			if !l.sleep(100 * time.Millisecond) {
				return
			}
		}
		result(wire.Result{Outcome: job.Cancelled})
	case last(a) == WritesHalf && j.Action == box.Restore:
		report(wire.Report{Writes: true, Step: wire.StepWrite})
		result(wire.Result{Outcome: box.Failed, Class: job.ClassBox, Text: "its disk is broken"})
		l.boot(a)
	case last(a) == Differs && j.Action == box.Verify:
		result(wire.Result{Outcome: box.Differs, Text: "one byte differs"})
	case j.Action == box.Rescue:
		r := wire.Result{Outcome: box.Rescuing, HostKeys: []string{HostKey}}
		if last(a) == Silent {
			r.HostKeys = nil
		}
		result(r)
	default:
		if j.Action == box.Restore {
			report(wire.Report{Writes: true, Step: wire.StepWrite})
		}
		if j.Action == box.Backup || j.Action == box.BackupAgain {
			l.commit(a, arming)
		}
		report(wire.Report{Lines: []wire.Line{{Kind: wire.LineAnnounce, Text: string(j.Action) + ": done"}}})
		result(wire.Result{Outcome: box.Done})
	}
}
