package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

const (
	// maxLines bounds the lines that are kept until the server has them. It is enough
	// for hours of progress lines.
	maxLines = 4096
	// flushLimit is how long Flush waits for a server that is away.
	flushLimit = 30 * time.Second
)

// reportEvery is a little less than wire.ReportEvery, since a report takes time. Tests
// change it.
var reportEvery = wire.ReportEvery - time.Second

// reports are what a start tells the server: the lines of its log, and how far it is.
// They are sent beside the action, and the action never waits for them.
type reports struct {
	s     *Server
	wake  chan struct{} // something is to be sent at once
	ctx   context.Context
	stop  context.CancelFunc
	begun sync.Once

	sending sync.Mutex   // one report at a time; guards the fields below
	number  uint64       // of the last report
	pending *wire.Report // was not answered, so it is sent again as it is; nil if there is none

	mu      sync.Mutex // guards the fields below
	log     Log        // the console; nil before it is open
	lines   []wire.Line
	sent    int // how many of them are in the pending report
	dropped int // lines that were not sent, since there was no room
	now     wire.Report
	room    func() *wire.RoomState  // how the box takes part in a room; nil if nobody knows
	seconds int64                   // that all of the action still takes; 0 if that is not known
	cancel  context.CancelCauseFunc // ends the action; nil if there is none
	over    *StopError              // why there is nothing to report any more; nil as long as there is
	closed  bool
}

// newReports makes the reports of a program. If another program of this start has
// reported before, the numbers must be higher than its numbers. They come from the
// clock then.
func newReports(s *Server, old bool) *reports {
	r := &reports{s: s, wake: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	if old {
		var up unix.Timespec
		unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
		r.number = uint64(up.Nano() / 1000)
	}
	return r
}

// begin begins to report from time to time.
func (r *reports) begin() { r.begun.Do(func() { go r.run() }) }

func (r *reports) run() {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
		if r.send(r.ctx, false); r.left() > 0 {
			r.hurry()
		}
	}
}

// close ends the reports. Lines go only to the console from then on.
func (r *reports) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
}

// hurry sends a report at once.
func (r *reports) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// add adds lines to those that the server gets, as long as there is a session.
func (r *reports) add(kind wire.LineKind, text string) {
	if !r.s.works() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.over != nil {
		return
	}
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		r.lines = append(r.lines, wire.Line{Kind: kind, Text: wire.Clean(l)})
	}
	if n := len(r.lines) - maxLines; n > 0 {
		r.dropped += n - min(n, r.sent)
		r.sent -= min(n, r.sent)
		r.lines = append(r.lines[:0], r.lines[n:]...)
	}
	if kind == wire.LineError || len(r.lines) >= wire.MaxLines {
		r.hurry()
	}
}

// say logs a line of this package's own. It may come from any goroutine.
func (r *reports) say(format string, args ...any) {
	r.mu.Lock()
	log := r.log
	r.mu.Unlock()
	if log == nil {
		fmt.Fprintf(r.s.cfg.Console, format+"\n", args...)
		return
	}
	log.Info(format, args...)
}

// left returns how many lines the server does not have yet.
func (r *reports) left() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lines)
}

// progress notes how far the action is, for the next report.
func (r *reports) progress(step wire.Step, text string, done, total int64, left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seconds = int64(left.Seconds())
	r.now.Step, r.now.Text, r.now.Done, r.now.Total = step, wire.Clean(text), max(done, 0), max(total, 0)
}

// attends has each further report say how the box takes part in a room. state returns nil as long as the server has not
// answered whether the box may join one: an older server takes no report that has more than it knows.
func (r *reports) attends(state func() *wire.RoomState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room = state
}

// roomState is how the box takes part in a room now, or nil.
func (r *reports) roomState() *wire.RoomState {
	r.mu.Lock()
	state := r.room
	r.mu.Unlock()
	if state == nil {
		return nil
	}
	return state() // not under the mutex, since it may log
}

// next makes the next report, with the lines that have room in it.
func (r *reports) next(writes bool) *wire.Report {
	room := r.roomState()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	report := r.now
	report.Number, report.Writes = r.number, writes
	if room != nil {
		state := *room
		state.Left = r.seconds
		report.Room = &state
	}
	if r.dropped > 0 {
		note := wire.Line{Kind: wire.LineError, Text: fmt.Sprintf("[%d lines are missing here]", r.dropped)}
		r.lines, r.dropped = append([]wire.Line{note}, r.lines...), 0
	}
	report.Lines = r.lines[:min(len(r.lines), wire.MaxLines)]
	r.sent = len(report.Lines) - len(report.Split())
	return &report
}

// settle forgets the pending report and its lines.
func (r *reports) settle() {
	r.pending = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.sent = append(r.lines[:0], r.lines[r.sent:]...), 0
}

// send sends a report, and before it one that was not answered. It returns the word
// of the answer.
func (r *reports) send(ctx context.Context, writes bool) (job.Word, error) {
	r.sending.Lock()
	defer r.sending.Unlock()
	if r.pending != nil {
		if _, err := r.ask(ctx); err != nil {
			return "", err
		}
	}
	if over := r.isOver(); over != nil {
		return "", over
	}
	r.pending = r.next(writes)
	return r.ask(ctx)
}

// ask sends the pending report.
func (r *reports) ask(ctx context.Context) (job.Word, error) {
	asked := time.Now()
	told, err := r.s.job.Report(ctx, r.pending)
	switch {
	case errors.Is(err, wire.ErrToken) || errors.Is(err, wire.ErrForbidden):
		r.settle()
		r.s.heard(job.Refuse, "it does not know this session")
		return "", r.end(&StopError{Text: "the server does not know the session of this start any more"})
	case errors.Is(err, wire.ErrRefused):
		r.settle() // it would be refused each time
		return "", fmt.Errorf("report to the server: %w", err)
	case err != nil:
		return "", fmt.Errorf("report to the server: %w", troubled(err))
	}
	r.settle()
	r.s.clock(told.Time, asked)
	switch told.Word {
	case job.GoOn:
	case job.Stop:
		r.stopAction(&StopError{Text: "the server told this box to stop", Cancelled: true})
	default:
		r.s.heard(told.Word, "")
		return told.Word, r.end(&StopError{Text: fmt.Sprintf("the server has given up this start of the box, and says %q", told.Word)})
	}
	return told.Word, nil
}

// end ends the action and all further reports.
func (r *reports) end(why *StopError) error {
	r.mu.Lock()
	if r.over == nil {
		r.over = why
	}
	r.lines, r.sent = nil, 0
	r.mu.Unlock()
	r.stopAction(why)
	return why
}

func (r *reports) isOver() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over == nil {
		return nil
	}
	return r.over
}

func (r *reports) stopAction(why *StopError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel(why)
	}
}

// drain sends all lines.
func (r *reports) drain(ctx context.Context) error {
	for {
		if _, err := r.send(ctx, false); err != nil || r.left() == 0 {
			return err
		}
	}
}

// Watch implements Home.
func (h *serverHome) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	watched, cancel := context.WithCancelCause(ctx)
	r := h.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	if r.over != nil {
		cancel(r.over)
	}
	return watched, func() { cancel(nil) }
}

// Writes implements Home. The server knows that a disk is not fit to run from now on,
// before that is so.
func (h *serverHome) Writes(ctx context.Context) (err error) {
	var word job.Word
	h.living(func() { word, err = h.reports.send(ctx, true) })
	switch {
	case err != nil:
		return err
	case word == job.Stop:
		return &StopError{Text: "the server told this box to stop", Cancelled: true}
	case word != job.GoOn:
		return fmt.Errorf("the server does not let this box write, and says %q", word)
	}
	return nil
}

// Progress implements Home.
func (h *serverHome) Progress(stage, text string, done, total int64, left time.Duration) {
	step := wire.Step(stage)
	if !slices.Contains(wire.Steps, step) {
		step = ""
	}
	h.reports.progress(step, text, done, total, left)
}

// Log implements Home.
func (h *serverHome) Log(host string) Log {
	l := &serverLog{console: consoleLog(h.cfg.Cmd.Address, host, h.cfg.Console, h.cfg.Now), reports: h.reports}
	h.reports.mu.Lock()
	defer h.reports.mu.Unlock()
	h.reports.log = l
	return l
}

// serverLog is server mode's Log. The server writes the files, with its own times.
type serverLog struct {
	console Log
	reports *reports
}

func (l *serverLog) Hello() {
	l.console.Hello()
	l.reports.add(wire.LineHello, "")
}

func (l *serverLog) Info(format string, args ...any) {
	l.console.Info(format, args...)
	l.reports.add(wire.LineInfo, fmt.Sprintf(format, args...))
}

func (l *serverLog) Announce(format string, args ...any) {
	l.console.Announce(format, args...)
	l.reports.add(wire.LineAnnounce, fmt.Sprintf(format, args...))
}

func (l *serverLog) Error(format string, args ...any) {
	l.console.Error(format, args...)
	l.reports.add(wire.LineError, fmt.Sprintf(format, args...))
}

// Flush implements Log.
func (l *serverLog) Flush() (err error) {
	r := l.reports
	if r.left() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	r.s.living(func() { err = r.drain(ctx) })
	if n := r.left(); err != nil && n > 0 {
		return fmt.Errorf("%d lines are not at the server: %w", n, err)
	}
	return nil
}
