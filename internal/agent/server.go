package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/peer/peering"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/version"
	"testbox-imaging/internal/wire"
)

// ServerConfig says what server mode works with. MACs, UUID, Run and Away may be
// left out.
type ServerConfig struct {
	Cmd     *bootcfg.Cmdline // what the box was started with
	Console io.Writer        // gets every line of the log
	Now     func() time.Time // the server's time, as far as it is known
	Voice   Voice
	Alive   func()   // called while the server is waited for
	Run     string   // folder with the token of this start; "" means that it is kept nowhere
	Join    bool     // go on with the session that the agent of this start began
	MACs    []string // of the network cards
	UUID    string   // of the machine
	Version string   // of the maintenance system
	// Away is how long the server may be away (0 means wire.AwayWait).
	Away time.Duration
	// RoomMemory is how many bytes of memory chunks may take that other boxes can have of
	// this one. 0 means what is right for the machine.
	RoomMemory int64
}

// Server is server mode's Arming. The server knows what the box was armed with, and
// decides what becomes of it. docs/jobs.md has its rules, and docs/protocol.md the
// requests. Close it at the end, unless Conclude was called.
type Server struct {
	cfg     ServerConfig
	token   string
	http    *http.Client
	store   *remote.Client // for objects and images
	job     *remote.Client // for what is said about the job
	reports *reports

	mu       sync.Mutex     // guards the fields below
	failed   error          // of the first hello; nil if the server answered it
	order    *wire.Job      // what is to be done; nil before the server has said it
	word     job.Word       // the last one; "" before the first
	text     string         // why, from the server
	ahead    time.Duration  // how far the server's clock is ahead
	answered bool           // the result
	lost     error          // why the result was not taken
	images   []*chunk.Image // that are open
	node     *peering.Node  // this box as other boxes see it; nil before the first restore
}

// NewServer makes server mode's Arming. It does not speak with the server yet.
func NewServer(cfg ServerConfig) (*Server, error) {
	key, err := wire.ParseFingerprint(cfg.Cmd.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Alive == nil {
		cfg.Alive = func() {}
	}
	if cfg.Version == "" {
		cfg.Version = version.String()
	}
	s := &Server{cfg: cfg}
	token, old, err := tokenOf(cfg.Run, cfg.Join)
	if err != nil {
		return nil, err
	}
	s.token = token
	s.http = remote.NewHTTP(key)
	c := remote.Config{HTTP: s.http, Base: "https://" + cfg.Cmd.Server.String(), Token: token, Away: cfg.Away}
	if s.job, err = remote.New(c); err != nil {
		return nil, err
	}
	// Only who waits for objects shows signs of life while the server is away. A report
	// beside a disk that hangs must not keep the watchdog quiet.
	c.Alive, c.Log = cfg.Alive, func(format string, args ...any) { s.reports.say(format, args...) }
	if s.store, err = remote.New(c); err != nil {
		return nil, err
	}
	s.reports = newReports(s, old)
	return s, nil
}

// Close ends what runs beside the agent, and closes what is open.
func (s *Server) Close() {
	s.reports.close()
	s.mu.Lock()
	images, node := s.images, s.node
	s.images, s.node = nil, nil
	s.mu.Unlock()
	if node != nil {
		node.Close()
	}
	for _, im := range images {
		im.Close()
	}
	s.http.CloseIdleConnections()
}

// living calls do, and shows signs of life meanwhile. Requests end by themselves.
func (s *Server) living(do func()) {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			s.cfg.Alive()
		}
	}
}

// hello says hello. The same token makes it the same hello, however often it is
// said.
func (s *Server) hello() error {
	cmd := s.cfg.Cmd
	agent := version.String()
	h := &wire.Hello{
		Protocol: wire.Version, Agent: agent[:min(len(agent), 64)], Box: cmd.Address, Arming: cmd.Arming, Secret: cmd.Secret,
		Token: s.token, MACs: s.cfg.MACs, UUID: s.cfg.UUID,
	}
	var w *wire.Welcome
	var err error
	asked := time.Now()
	s.living(func() { w, err = s.job.Hello(context.Background(), h) })
	if errors.Is(err, wire.ErrToken) {
		s.heard(job.Refuse, "it does not know this box's secret")
		return nil
	}
	if err != nil {
		return fmt.Errorf("say hello to the server %s: %w", cmd.Server, troubled(err))
	}
	s.clock(w.Time, asked)
	s.heard(w.Word, w.Text)
	if w.Job != nil {
		s.mu.Lock()
		s.order = w.Job
		s.mu.Unlock()
	}
	return nil
}

// heard remembers the server's last word.
func (s *Server) heard(w job.Word, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.word, s.text = w, text
}

// clock notes what the server's clock said to a request.
func (s *Server) clock(says, asked time.Time) {
	middle := asked.Add(time.Since(asked) / 2)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = says.Sub(middle)
}

// works reports whether this start has a session.
func (s *Server) works() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Join || s.word == job.Work || s.word == job.GoOn || s.word == job.Stop
}

// Reach says hello, or shows that the server answers.
func (s *Server) Reach() error {
	if s.cfg.Join {
		err := s.sign()
		if errors.As(err, new(*StopError)) {
			return nil // it answers, and the answer to the result counts
		}
		return err
	}
	err := s.hello()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	return err
}

// sign sends a report, and waits for the answer.
func (s *Server) sign() (err error) {
	s.living(func() { _, err = s.reports.send(context.Background(), false) })
	return err
}

// Open returns the box's place at the server.
func (s *Server) Open() (Home, error) {
	s.mu.Lock()
	unheard, failed := s.word == "" && !s.cfg.Join, s.failed
	s.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	if unheard {
		if err := s.Reach(); err != nil {
			return nil, err
		}
	}
	if s.works() {
		s.reports.begin()
	}
	return &serverHome{Server: s}, nil
}

// Clock asks the server for its time.
func (s *Server) Clock() (ahead time.Duration, err error) {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	switch {
	case failed != nil:
		return 0, failed
	case s.works():
		err = s.sign()
	default:
		err = s.hello()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead, err
}

// Agrees asks the server what this box is to do.
func (s *Server) Agrees() (version string, err error) {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed == nil {
		failed = s.hello()
	}
	if failed != nil {
		return "", failed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	why := ""
	if s.text != "" {
		why = ": " + s.text
	}
	switch s.word {
	case job.Work, job.GoOn:
		if s.order != nil && s.order.Action != s.cfg.Cmd.Action {
			return "", fmt.Errorf("the box was started for %s, and the server asks for %s", s.cfg.Cmd.Action, s.order.Action)
		}
		return s.cfg.Version, nil
	case job.Restart:
		return "", &NotArmedError{"the server has nothing to do for this start of the box" + why}
	case job.Hold:
		return "", &NotArmedError{"the server holds the box, because a disk of it is not fit to run" + why}
	case job.Refuse:
		return "", fmt.Errorf("the server refuses this start of the box%s; it may have been armed anew while it started", why)
	}
	return "", fmt.Errorf("the server says %q to this start of the box%s", s.word, why)
}

// SayFirst implements Arming. The log of a start ends with its result.
func (s *Server) SayFirst() bool { return true }

// Disarm says the outcome, unless Record did. The server removes the boot file before
// it answers.
func (s *Server) Disarm(end End) error { return s.result(end) }

// result says the outcome to the server, once. What is in the log comes first, since
// the session ends with the result. An outcome that has ended counts only if the server
// has taken it as such.
func (s *Server) result(end End) error {
	s.mu.Lock()
	answered, lost := s.answered, s.lost
	s.mu.Unlock()
	if answered || lost != nil {
		return lost
	}
	told, err := s.sendResult(end)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.lost = fmt.Errorf("say the outcome to the server: %w", troubled(err))
		return s.lost
	case end.Outcome.Class() == box.Ended && told.Word != job.Restart && told.Word != job.Hold:
		s.lost = fmt.Errorf("the server does not take the outcome: it had given up this start of the box, and says %q", told.Word)
	}
	s.answered, s.word, s.text = true, told.Word, ""
	return s.lost
}

func (s *Server) sendResult(end End) (told *wire.Told, err error) {
	s.living(func() {
		s.reports.stop() // it may be at a server that is away, and would be waited for
		if err = s.reports.drain(context.Background()); errors.Is(err, ErrTrouble) {
			return
		}
		s.reports.close()
		told, err = s.job.Result(context.Background(), resultOf(s.cfg.Cmd.Action, end))
	})
	return told, err
}

// Conclude says the outcome, unless that was done, and returns what the server says
// then. A box that the server does not answer restarts after the retry time. Its boot
// file is still there.
func (s *Server) Conclude(end End) Next {
	defer s.Close()
	if s.works() {
		if err := s.result(end); err != nil {
			s.reports.say("%v", err)
			return nextAfter(end.Outcome) // Retry, unless people are let in
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nextOf(s.word, end.Outcome)
}

// nextOf is what a box does that was told a word.
func nextOf(w job.Word, outcome box.Outcome) Next {
	switch w {
	case job.Restart:
		return Restart
	case job.Hold:
		return Hold
	case job.GoOn:
		if outcome == box.Rescuing {
			return Stay
		}
	}
	return Retry
}

// Ask says hello again. A server that is away, or has another key, changes nothing.
// Any other word than Hold means that the box's boot file is another one, as when
// a new job has taken over.
func (s *Server) Ask() Next {
	if err := s.hello(); err != nil {
		return Hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.word == job.Hold {
		return Hold
	}
	return Restart
}
