// Package server is the storage server as one process. It reads the configuration,
// opens the ledger, takes agents and admins on their sockets, and looks after the
// store. What jobs are and do is in packages job and dispatch.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conns"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/page"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/wire"
)

// Parts are what a server is made of. The caller opens and closes the store.
type Parts struct {
	Config *Config
	Place  *arming.Place // where boxes are armed
	Store  *store.Locked
	Log    *slog.Logger
	// Ready is called when the server takes requests. nil means no call.
	Ready func(Addresses)
}

// Addresses are where a server takes requests.
type Addresses struct {
	Agents net.Addr
	API    net.Addr // nil if there is none
	Socket string
	TFTP   net.Addr         // nil if there is none
	HTTP   net.Addr         // nil if there is none
	Key    wire.Fingerprint // of the listener for agents
	APIKey wire.Fingerprint
}

// These bound the connections of agents, in all and from one address.
const (
	maxConnections    = 4096
	maxConnectionsBox = 64
)

// closeTime is how long requests of admins may take to end when the server ends.
const closeTime = 5 * time.Second

// Run is the server, until ctx ends. Boxes that are at work then keep their
// sessions, and go on with the next start. If Run returns nil, the server has ended
// cleanly.
func Run(ctx context.Context, p Parts) error {
	s := &server{Parts: p, started: time.Now(), roster: newRoster(), sights: &sight.List{}}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.serve(ctx)
}

type server struct {
	Parts
	started  time.Time
	sockets  *listeners
	ledger   *ledger.Ledger
	roster   *roster
	mover    *mover
	sights   *sight.List // machines that asked for something at their start
	own      ownAddresses
	dispatch *dispatch.Dispatch
	hooks    *hooks
	noProbe  error // why no box can be asked whether it is up
	keeper   *keeper
	boots    *bootTests // nil if there are none
	calendar *schedules
	boxes    *boxapi.Server
	agents   *http.Server
	netboot  *netboot
	web      *http.Server // nil if there is no HTTP for boxes
	served   arming.Served
	bootDHCP *bootDHCP // nil if it is off
	api      *api.Server
	keys     struct{ agents, api tls.Certificate }
	prints   struct{ agents, api wire.Fingerprint }
}

// open opens all parts. The ledger comes first, since its lock keeps a second
// server of this state folder out before that one can do anything.
func (s *server) open(ctx context.Context) (err error) {
	cfg := s.Config
	if err := notHalfRecovered(cfg); err != nil {
		return err
	}
	if s.ledger, err = ledger.Open(ctx, cfg.LedgerFile(), ledger.Options{}); err != nil {
		if errors.Is(err, ledger.ErrInUse) {
			return problem.Refusef("%w; another server works on %s", err, cfg.State)
		}
		return err
	}
	if err := s.roster.follow(ctx, s.ledger); err != nil {
		return fmt.Errorf("the list of boxes cannot be read: %w", err)
	}
	if err := s.loadSights(ctx); err != nil {
		return fmt.Errorf("what was seen of machines cannot be read: %w", err)
	}
	if s.keys.agents, s.prints.agents, err = loadKey(cfg.KeyDir(), "agents"); err != nil {
		return err
	}
	if s.keys.api, s.prints.api, err = loadKey(cfg.KeyDir(), "api"); err != nil {
		return err
	}
	if s.hooks, err = newHooks(cfg.Hooks, cfg.HooksFile(), s.Log); err != nil {
		return err
	}
	area, err := sharedir.Open(durable.OS{}, cfg.BoxesDir())
	if err != nil {
		return fmt.Errorf("the area with the boxes' logs: %w", err)
	}
	if s.sockets, err = listen(cfg); err != nil {
		return err
	}
	s.mover = &mover{server: s, area: area}
	if err := s.mover.resume(ctx); err != nil {
		return fmt.Errorf("changes of addresses that are not finished cannot be read: %w", err)
	}
	s.served.NoHTTP = s.sockets.noHTTP
	if s.served.Agents, err = portOf(s.sockets.agents); err != nil {
		return err
	}
	if s.sockets.http != nil {
		if s.served.HTTP, err = portOf(s.sockets.http); err != nil {
			return err
		}
	}
	if s.netboot, err = newNetboot(s, cfg.TFTPDir()); err != nil {
		return err
	}
	var probe func(context.Context, ledger.Box) error
	if s.sockets.tftp != nil { // without it, nobody says that a box has started its own disk
		probe, s.noProbe = newProbe(cfg.Jobs.Probe) // the status says what is wrong
	}
	if cfg.DHCP.Mode != dhcpOff {
		if s.bootDHCP, err = newBootDHCP(s); err != nil {
			return err
		}
	}
	powers, err := newPowers(cfg, s.Log)
	if err != nil {
		return err
	}
	var power dispatch.Power
	if powers != nil {
		power = powers
	}
	s.dispatch, err = dispatch.Open(ctx, dispatch.Config{
		Power: power, Starting: cfg.Jobs.PowerAtOnce,
		Ledger: s.ledger, Backups: &backups{s.Store, time.Now}, Area: area, Most: cfg.Boxes, Places: setting.Places, Probe: probe, Log: s.Log,
		Loaders: s.writeLoaders,
		Boots:   &boots{place: s.Place, served: s.served, key: s.prints.agents.String(), moves: s.mover.check},
		Limits: job.Limits{
			Attempts: cfg.Jobs.Attempts, Silence: time.Duration(cfg.Jobs.Silence), Arming: time.Duration(cfg.Jobs.Start),
			Up: time.Duration(cfg.Jobs.Up), Protocol: wire.Version,
		},
	})
	if err != nil {
		return err
	}
	s.boxes = boxapi.New(boxapi.Config{
		Grants: s, Desk: s.dispatch, Committed: s.dispatch.Committed, Sent: s.dispatch.Sent, Overstep: s.dispatch.Overstep,
		Begin: func() chunk.Session { return s.Store.Begin() }, Images: s.Store, Room: s.roomOf,
		RoomNews: s.dispatch.RoomNews,
		Log:      func(format string, args ...any) { s.Log.Warn(fmt.Sprintf(format, args...)) },
	})
	s.dispatch.SetForget(s.boxes.Forget)
	s.keeper = newKeeper(&upkeep{cfg: cfg, store: s.Store, ledger: s.ledger, log: s.Log, now: time.Now, poll: 5 * time.Second,
		needs: s.dispatch.Needs})
	s.keeper.busy = func() bool { return s.dispatch.Running(box.Restore) > 0 }
	s.boots = s.newBootTests()
	s.keeper.boots = s.boots
	plans, err := cfg.Plans()
	if err != nil {
		return problem.Wrongf("%w", err)
	}
	s.calendar = newSchedules(plans, s.ledger, s.dispatch, s.Log, time.Now)
	if err := s.calendar.sync(ctx); err != nil {
		return fmt.Errorf("bring the schedules of the ledger up to the configuration: %w", err)
	}
	s.api = api.New(api.Config{
		Ledger: s.ledger, Jobs: s.dispatch, Area: area, Backups: s.Store, Keeper: s.keeper, Sessions: newSessions(s.boxes),
		Ended: s.ended, BootTested: s.bootTested,
		Sights: s.sights, Readdress: s.mover.readdress, Forgotten: s.mover.forgotten, Stored: s.Store.PackBytes, Status: s.status,
		Log: s.Log, Site: cfg.Site(),
		Schedules: plans, Rescheduled: s.calendar.wake, Facts: powers.facts(), Addresses: cfg.DHCP.Mode == dhcpFull,
	})
	s.calendar.tell = s.api.TellSchedule
	return nil
}

// Grant implements boxapi.Authority. Tokens of boxes count at the agents' listener
// alone, and those of admins' uploads at the admin API alone.
func (s *server) Grant(ctx context.Context, token string, from netip.Addr) (boxapi.Grant, error) {
	if api.IsUpload(ctx) {
		return s.api.GrantUpload(ctx, token, from)
	}
	return s.dispatch.Grant(ctx, token, from)
}

// sessions are the requests of boxapi.Server that the admin API serves.
type sessions struct {
	*http.ServeMux
	boxes *boxapi.Server
}

func newSessions(boxes *boxapi.Server) sessions {
	s := sessions{http.NewServeMux(), boxes}
	boxes.Sessions(s.ServeMux)
	return s
}

// Forget implements api.Sessions.
func (s sessions) Forget(token string) { s.boxes.Forget(token) }

func portOf(l net.Listener) (uint16, error) {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("the socket for boxes is %s, and must be one of TCP", l.Addr())
	}
	return uint16(a.Port), nil
}

// serve takes requests until ctx ends or a listener fails.
func (s *server) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	s.boxes.Routes(mux)
	mux.Handle("/api/", api.Elsewhere(apiAt(s.sockets.api)))
	s.agents = &http.Server{Handler: mux, TLSConfig: tlsWith(s.keys.agents)}
	boxapi.Limit(s.agents)
	var running sync.WaitGroup
	failed := make(chan error, 8)
	start := func(name string, serve func() error) {
		running.Go(func() {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("the listener for %s failed: %w", name, err)
			}
		})
	}
	l := s.sockets
	start("agents", func() error {
		return s.agents.ServeTLS(conns.Limit(l.agents, maxConnections, maxConnectionsBox), "", "")
	})
	start("admins on this machine", func() error { return s.api.ServeUnix(l.socket) })
	at := Addresses{Agents: l.agents.Addr(), Socket: l.socket.Addr().String(), Key: s.prints.agents, APIKey: s.prints.api}
	if l.api != nil {
		at.API = l.api.Addr()
		site := page.New(page.Config{API: s.api, Log: s.Log})
		start("admins", func() error { return s.api.ServeTLS(l.api, &http.Server{TLSConfig: tlsWith(s.keys.api)}, site) })
	}
	ctx, stop := context.WithCancel(ctx)
	if l.tftp != nil {
		at.TFTP = l.tftp.LocalAddr()
		running.Go(func() {
			if err := s.netboot.serve(ctx, l.tftp); err != nil {
				failed <- fmt.Errorf("the TFTP server failed: %w", err)
			}
		})
	}
	if l.http != nil {
		at.HTTP = l.http.Addr()
		s.web = s.netboot.web()
		start("HTTP", func() error { return s.web.Serve(conns.Limit(l.http, maxWeb, maxWebBox)) })
	}
	if s.bootDHCP != nil {
		running.Go(func() {
			if err := s.bootDHCP.run(ctx); err != nil {
				failed <- fmt.Errorf("the DHCP server failed: %w", err)
			}
		})
	}
	running.Go(func() { s.netboot.watchLoaders(ctx) })
	running.Go(func() { s.keeper.run(ctx) })
	running.Go(func() { s.boots.run(ctx) })
	running.Go(func() { (&lookout{server: s, tell: s.api.Sighted, now: time.Now}).run(ctx) })
	running.Go(func() { s.hooks.run(ctx) })
	running.Go(func() { s.tellMissed(ctx) })
	running.Go(func() { s.calendar.run(ctx) })
	running.Go(func() {
		s.readLatest(ctx)
		s.keeper.measureAll(ctx)
	})
	s.sayStatus()
	if s.Ready != nil {
		s.Ready(at)
	}
	daemon.SdNotify(false, daemon.SdNotifyReady) // without systemd it does nothing
	var err error
	select {
	case <-ctx.Done():
		s.Log.Info("The server ends. Boxes at work go on when it is started again.")
	case err = <-failed:
	}
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	stop()
	s.end()
	running.Wait()
	return err
}

// apiAt says where the admin API is, for those who ask at the agents' port.
func apiAt(l net.Listener) string {
	if l == nil {
		return "this server has none over HTTPS, only a Unix socket"
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "it is at " + l.Addr().String()
	}
	return "it is at port " + port
}

func tlsWith(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// end ends all requests. Agents are told to come again.
func (s *server) end() {
	s.keeper.close() // before the API ends, so that who waits for work on the store is told of its end
	s.boxes.Close()
	s.api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if s.web != nil {
		s.web.Close() // a box asks again
	}
	if err := s.agents.Shutdown(ctx); err != nil {
		s.agents.Close()
	}
}

// close closes what open has opened, but for what end has closed. open makes that last, and
// does not fail after it.
func (s *server) close() {
	if s.dispatch != nil {
		s.dispatch.Close()
	}
	if s.sockets != nil {
		s.sockets.close()
	}
	if s.netboot != nil {
		s.netboot.close()
	}
	if s.ledger != nil {
		if err := s.ledger.Close(); err != nil {
			s.Log.Error("The ledger did not close well.", "error", err)
		}
	}
}

// ended tells who wants to know that a job has ended.
func (s *server) ended(j api.Job) {
	s.boots.wake()
	m, err := messageOf(j)
	if err != nil {
		s.Log.Error("Web hooks cannot be told of a job.", "job", j.ID, "error", err)
		return
	}
	s.hooks.tell(m)
}

// bootTested tells web hooks of a boot test that has failed.
func (s *server) bootTested(e api.BootTestEvent) {
	if e.Boot == nil || e.Boot.Verdict != image.BootFailed {
		return
	}
	m, err := bootMessageOf(e)
	if err != nil {
		s.Log.Error("Web hooks cannot be told of a boot test.", "box", e.Box, "backup", e.Backup, "error", err)
		return
	}
	s.hooks.tell(m)
}

// tellMissed tells hooks of the jobs that ended when nobody told them: before the server was
// ended, or while they did not answer.
func (s *server) tellMissed(ctx context.Context) {
	since := s.hooks.missed()
	if since.IsZero() {
		return
	}
	// A job that ends meanwhile is told of by itself, and may be told of here again.
	err := s.api.EndedSince(ctx, since, func(j api.Job) {
		if m, err := messageOf(j); err == nil {
			s.hooks.tellAgain(m)
		}
	})
	if err == nil {
		err = s.tellMissedBoots(ctx, since)
	}
	if err == nil {
		s.hooks.caught.Store(true)
	} else if ctx.Err() == nil {
		s.Log.Error("Web hooks cannot be told of the jobs that ended before.", "error", err)
	}
}

// tellMissedBoots is tellMissed for boot tests that failed.
func (s *server) tellMissedBoots(ctx context.Context, since time.Time) error {
	names, addrs := map[string]string{}, []string{}
	for _, n := range s.roster.named() {
		names[n.addr], addrs = n.name, append(addrs, n.addr)
	}
	latest, err := s.Store.Latest(ctx, addrs)
	for of, is := range latest {
		r, err := s.Store.Record(ctx, of, is.ID)
		if err != nil || r.Boot == nil || r.Boot.Verdict != image.BootFailed || r.Boot.Time.Before(since) {
			continue
		}
		if m, err := bootMessageOf(api.BootTestOf(r, names[of], "", r.Boot.Time, nil)); err == nil {
			s.hooks.tellAgain(m)
		}
	}
	return err
}

// readLatest reads the latest backup of each box, so that the first list of boxes does
// not wait for that. With 50,000 backups it takes some seconds.
func (s *server) readLatest(ctx context.Context) {
	var addrs []string
	err := s.ledger.View(ctx, func(tx *ledger.Tx) error {
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Boxes(ledger.BoxFilter{}, p)
			for _, b := range some {
				addrs = append(addrs, b.Address.String())
			}
			if p.After = next; err != nil || next == "" {
				return err
			}
		}
	})
	if err == nil {
		_, err = s.Store.Latest(ctx, addrs)
	}
	if err != nil && ctx.Err() == nil {
		s.Log.Error("The latest backups of the boxes cannot be read.", "error", err)
	}
}
