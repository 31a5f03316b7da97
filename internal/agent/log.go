package agent

import (
	"fmt"
	"io"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/sharedir"
)

// consoleLog is the log of a box whose place cannot be used. It writes only to
// the console, in the form of a box's log.
func consoleLog(addr box.Addr, host string, console io.Writer, now func() time.Time) Log {
	return sharedir.ConsoleLog(addr, host, sharedir.LogOptions{Console: console, Now: now})
}

// LogOpener returns how package pid1 opens the box's log. In share mode it uses
// the folders on which pid1 mounts the areas, and in server mode the session of the
// agent that died. The log is the one that Run writes.
func LogOpener(cfg Config) pid1.OpenLog {
	return func(cmd *bootcfg.Cmdline, say func(string, ...any)) (pid1.Log, error) {
		s := newSession(cfg)
		s.joins = true
		if err := s.startedWith(cmd); err != nil {
			return nil, err
		}
		if s.cfg.Host = cmd.Host; s.cfg.Host == "" {
			s.cfg.Host = "unknown" // looking the name up could take too long
		}
		home, err := s.arming.Open()
		if err != nil {
			return nil, err
		}
		if err := s.openLog(home); err != nil {
			say("%v; the log gets this box's own time", err)
		}
		return &lastWords{session: s}, nil
	}
}

// lastWords is the log of a start whose agent died. Its error is how the start ended.
type lastWords struct {
	*session
	why error
}

func (l *lastWords) Error(format string, args ...any) {
	l.why = fmt.Errorf(format, args...)
	l.log.Error("%v", l.why)
}

func (l *lastWords) Flush() error {
	err := l.log.Flush()
	l.arming.Conclude(End{Outcome: box.Failed, Err: l.why})
	return err
}

// warn logs what must not be overlooked even if the outcome is good.
func (s *session) warn(format string, args ...any) {
	s.log.Error(format, args...)
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// voice is the Voice of a session. It passes to the box's log what an
// implementation of Arming and Home says. The log may be opened after the voice
// is made. If the terminal shows a line of progress, voice ends that line
// first.
type voice struct{ s *session }

func (v voice) Info(format string, args ...any) {
	v.s.telling.end()
	v.s.log.Info(format, args...)
}

func (v voice) Error(format string, args ...any) {
	v.s.telling.end()
	v.s.log.Error(format, args...)
}

func (v voice) Warn(format string, args ...any) {
	v.s.telling.end()
	v.s.warn(format, args...)
}
