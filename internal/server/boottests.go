package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/calendar"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/pause"
	"testbox-imaging/internal/store"
)

// bootWindows reads when boot tests may begin: "20:00-06:00" in this machine's time zone, or "always".
func bootWindows(text string) (calendar.Windows, error) {
	if text == "always" {
		return calendar.ParseWindows(nil, "")
	}
	return calendar.ParseWindows([]string{text}, "")
}

// These say when boot tests are made.
const (
	bootEvery   = 15 * time.Second // how often it is looked whether there is something to test
	bootAgain   = time.Hour        // after which a backup is tested once more if this machine was too busy
	bootNone    = 24 * time.Hour   // after which a test is made once more that had no result
	bootTimeout = 10 * time.Minute
	bootCores   = 4 // with fewer processors, no machine is started while boxes are at work
	maxBusy     = 2 // tests for which this machine was too busy, after which there is no other
)

var errBoxesWork = errors.New("a box has begun its work")

// bootTests starts the latest backup of each box in a virtual machine, one after the other.
type bootTests struct {
	text   string // the configuration's
	within calendar.Windows
	small  bool                   // this machine has few processors
	boxes  func() (names []named) // of which the latest backup is tested
	work   func() int             // how many boxes are at work
	store  *store.Locked
	ready  func() error
	test   func(context.Context, []boottest.Disk) (*image.BootTest, error)
	told   func(r *image.Record, name string, err error)
	note   func(api.LastUpkeep)
	log    *slog.Logger
	now    func() time.Time
	every  time.Duration
	news   chan struct{} // holds a value if there may be something to test

	settled  map[string]string    // the backup of a box that needs no test any more
	untested map[string]string    // the backup of a box that had no test when its record was read
	later    map[string]time.Time // when a backup is tried again whose test had no result

	mu      sync.Mutex // guards the fields below
	waiting int
	held    string
	testing *api.TestingBackup
}

// named is a box with its name.
type named struct{ addr, name string }

func (s *server) newBootTests() *bootTests {
	within, err := bootWindows(s.Config.Upkeep.BootTest)
	if err != nil { // it is empty
		return nil
	}
	options := boottest.Options{Timeout: bootTimeout, Log: func(format string, args ...any) { s.Log.Info(fmt.Sprintf(format, args...)) }}
	return &bootTests{
		text: s.Config.Upkeep.BootTest, within: within, small: runtime.NumCPU() < bootCores, boxes: s.roster.named, work: s.dispatch.AtWork,
		store: s.Store, ready: boottest.Ready, note: s.keeper.note, log: s.Log, now: time.Now, every: bootEvery,
		test: func(ctx context.Context, disks []boottest.Disk) (*image.BootTest, error) {
			return boottest.Run(ctx, disks, options)
		},
		told: func(r *image.Record, name string, err error) {
			s.api.TellBootTest(api.BootTestOf(r, name, "", time.Now(), err))
		},
		news: make(chan struct{}, 1), settled: map[string]string{}, untested: map[string]string{}, later: map[string]time.Time{},
	}
}

// wake has it look soon, since a backup was made.
func (b *bootTests) wake() {
	if b == nil {
		return
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// run makes tests until ctx ends. One that is cut off by that is made again after the next start.
func (b *bootTests) run(ctx context.Context) {
	if b == nil {
		return
	}
	for ctx.Err() == nil {
		if b.step(ctx) {
			continue
		}
		timer := time.NewTimer(b.every)
		select {
		case <-timer.C:
		case <-b.news:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// step makes a test, if one can be made now.
func (b *bootTests) step(ctx context.Context) (did bool) {
	r, name, err := b.next(ctx)
	open, _ := b.within.Open(b.now())
	held := ""
	switch {
	case err != nil && ctx.Err() == nil:
		b.log.Error("It is not known which backups wait for their boot test.", "error", err)
	case r == nil, !open:
	case b.small && b.work() > 0:
		held = fmt.Sprintf("boxes are at work, and this machine has fewer than %d processors", bootCores)
	default:
		if err := b.ready(); err != nil {
			held = err.Error()
		} else {
			did = true
		}
	}
	b.mu.Lock()
	b.held = held
	b.mu.Unlock()
	return did && b.one(ctx, r, name)
}

// next is the backup that is tested next: the one that waits for the longest time. It is nil if none waits. The record of
// each is read once while it waits, since there can be many, in object storage.
func (b *bootTests) next(ctx context.Context) (r *image.Record, name string, err error) {
	names, addrs := map[string]string{}, []string{}
	for _, n := range b.boxes() {
		names[n.addr], addrs = n.name, append(addrs, n.addr)
	}
	latest, err := b.store.Latest(ctx, addrs)
	if err != nil {
		return nil, "", err
	}
	maps.DeleteFunc(b.settled, func(of, id string) bool { return latest[of].ID != id })
	maps.DeleteFunc(b.later, func(id string, at time.Time) bool { return !b.now().Before(at) })
	maps.DeleteFunc(b.untested, func(of, id string) bool { return latest[of].ID != id })
	waiting, first := 0, "" // the first box
	for of, is := range latest {
		if _, later := b.later[of+"/"+is.ID]; later || b.settled[of] == is.ID {
			continue
		}
		var read *image.Record // nil if that was before
		if b.untested[of] != is.ID {
			read, err = b.store.Record(ctx, of, is.ID)
			switch {
			case ctx.Err() != nil:
				return nil, "", ctx.Err()
			case errors.Is(err, fs.ErrNotExist): // it was deleted meanwhile
				continue
			case err != nil:
				b.later[of+"/"+is.ID] = b.now().Add(bootNone) // it is not the latest one if it cannot be read
				continue
			}
			switch {
			case read.Boot == nil:
				b.untested[of] = is.ID
			case read.Boot.Busy == 0 || read.Boot.Busy >= maxBusy:
				b.settled[of] = is.ID
				continue
			case b.now().Before(read.Boot.Time.Add(bootAgain)):
				continue
			}
		}
		waiting++
		if first == "" || cmp.Or(is.Time.Compare(latest[first].Time), strings.Compare(of, first)) < 0 {
			first, r = of, read
		}
	}
	b.mu.Lock()
	b.waiting = waiting
	b.mu.Unlock()
	delete(b.untested, first) // soon it will be tested
	if first == "" || r != nil {
		return r, names[first], nil
	}
	r, err = b.store.Record(ctx, first, latest[first].ID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.Boot != nil { // somebody has tested it by hand meanwhile
		return nil, "", nil // it does not wait any more
	}
	return r, names[first], err
}

// one makes the test of a backup, and keeps its result. It reports whether it can go on with the next one at once.
func (b *bootTests) one(ctx context.Context, r *image.Record, name string) bool {
	begun := b.now()
	b.mu.Lock()
	b.testing = &api.TestingBackup{Box: r.Box, Name: name, Backup: r.ID, Begun: begun.UTC()}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.testing = nil
		b.mu.Unlock()
	}()
	log := b.log.With("box", r.Box, "backup", r.ID)
	log.Info("A boot test of a backup begins.")
	result, err := b.aside(ctx, r)
	switch {
	case ctx.Err() != nil:
		log.Info("The server ends, and so does the boot test. It is made again after the next start.")
		return false
	case errors.Is(err, errBoxesWork):
		log.Info("A boot test makes way for a box that has begun its work. It is made again later.")
		return false
	}
	if err == nil {
		if r.Boot != nil && result.Busy > 0 {
			result.Busy = r.Boot.Busy + 1
		}
		if err = b.store.SetBoot(ctx, r.Box, r.ID, result); errors.Is(err, fs.ErrNotExist) {
			log.Info("The backup was deleted during its boot test.")
			return true
		}
	}
	last := api.LastUpkeep{Work: api.BootTestWork, Begun: begun, Ended: b.now(), Outcome: api.UpkeepFailed}
	of := fmt.Sprintf("backup %s of %s: ", r.ID, r.Box)
	if err != nil {
		b.later[r.Box+"/"+r.ID] = b.now().Add(bootNone)
		log.Error("A boot test of a backup had no result. It is made again in a day.", "error", err)
		last.Found = of + err.Error()
	} else {
		r.Boot = result
		level := slog.LevelInfo
		switch result.Verdict {
		case image.BootPassed:
			last.Outcome = api.UpkeepDone
		case image.BootUnproven:
			last.Outcome = api.UpkeepUnproven
		default:
			level = slog.LevelError
		}
		log.Log(ctx, level, "A boot test of a backup has ended.", "verdict", result.Verdict, "sign", result.Sign, "text", result.Text,
			"firmware", result.Firmware, "took", time.Duration(result.Seconds)*time.Second)
		last.Found = fmt.Sprintf("%s%s, %s", of, result.Verdict, result.Text)
	}
	b.note(last)
	b.told(r, name, err)
	return true
}

// aside makes a test. On a small machine it is ended if a box begins to work.
func (b *bootTests) aside(ctx context.Context, r *image.Record) (*image.BootTest, error) {
	inner, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for b.small && pause.For(inner, min(b.every, 5*time.Second)) == nil {
			if b.work() > 0 {
				cancel(errBoxesWork)
			}
		}
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	disks, shut, err := boottest.Open(inner, b.store, r)
	if err != nil {
		return nil, endOf(inner, err)
	}
	defer shut()
	result, err := b.test(inner, disks)
	if cause := context.Cause(inner); cause != nil {
		return nil, cause // a machine that is ended looks like one that ends by itself
	}
	return result, err
}

// state is how far they are.
func (b *bootTests) state() *api.BootTesting {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := &api.BootTesting{Window: b.text, Waiting: b.waiting, Held: b.held, Testing: b.testing}
	if v.Testing != nil {
		v.Waiting--
	}
	if open, then := b.within.Open(b.now()); !open {
		then = then.UTC()
		v.Next = &then
	}
	return v
}

// bootPart says whether backups can be tested.
func (s *server) bootPart() api.Part {
	p := api.Part{Name: "boot tests", State: api.PartOff, Text: "no backup is started to see whether it boots"}
	if b := s.boots; b != nil {
		p.State, p.Text = api.PartOn, "starts the latest backup of each box in a virtual machine, "+b.text
		if err := b.ready(); err != nil {
			p.State, p.Missing = api.PartFailed, []string{fmt.Sprintf("No backup can be tested: %v", err)}
		}
	}
	return p
}
