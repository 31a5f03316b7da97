package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
)

// Attend asks the server from time to time whether the rescue that this box is in is
// over, and restarts the box then. So an admin can end it without a login. In share mode
// there is nobody to ask, and Attend returns at once.
func Attend(ctx context.Context, cfg Config) box.Outcome {
	s := newSession(cfg)
	if err := s.readRescue(); err != nil {
		fmt.Fprintln(s.cfg.Console, err)
		return outcomeOf(err)
	}
	server, ok := s.arming.(*Server)
	if !ok {
		return box.Done
	}
	defer server.Close()
	for ctx.Err() == nil && !server.over() {
		s.pause(ctx, holdEvery)
	}
	if ctx.Err() != nil {
		return box.Failed
	}
	if _, err := os.Stat(filepath.Join(cfg.Run, stayName)); err == nil {
		return box.Done // somebody on the box ended it so
	}
	fmt.Fprintln(s.cfg.Console, "the rescue of this box was ended at the server")
	if err := s.syncDisks(); err != nil {
		fmt.Fprintln(s.cfg.Console, err)
	}
	if cfg.Reboot {
		s.restart()
		return box.Failed
	}
	return box.Done
}

// over reports whether the server wants this start of the box to end. People may be at
// work at the box, so a server that is away, or that does not know it any more, ends
// nothing.
func (s *Server) over() bool {
	if err := s.hello(); err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.word == job.Restart
}
