// Package follow finds out how boxes are doing, from what they leave in the
// areas of share mode. These are the boot file, the log, and the record of the
// last action. A box says nothing else while it is at work.
package follow

import (
	"fmt"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

// Pending is the outcome of an action that is not known to have ended.
const Pending box.Outcome = ""

// NothingKnown is the text for a box that is not armed and never was, for
// example after a typo.
const NothingKnown = "nothing is known of an action"

// Status is what is known of a box.
type Status struct {
	Armed    *bootfiles.File      // nil if it has no boot file
	Log      agent.Track          // the last session in its log
	Last     *sharedir.LastAction // nil if none is recorded
	Problems []error              // what could not be read

	unwell agent.Track // the latest earlier session that may have left half a restore
}

// maxStatusLog is how much of a log's end is read, in bytes.
const maxStatusLog = 16 << 20

// Read reads a box's log and the record of its last action from its folder in
// the backup area. The caller sets Armed.
func Read(folder *sharedir.Folder) *Status {
	s := &Status{}
	var err error
	if s.Last, err = folder.Last(); err != nil {
		s.Problems = append(s.Problems, fmt.Errorf("the record of its last action cannot be read: %w", err))
	}
	log := logReader{path: folder.Path(box.LogFile)}
	defer log.close()
	err = log.skip(maxStatusLog)
	var lines []string
	if err == nil {
		lines, err = log.lines()
	}
	if err != nil {
		s.Problems = append(s.Problems, fmt.Errorf("its log cannot be read: %w", err))
	}
	for _, line := range lines {
		was := s.Log
		if s.Log.Add(line); was.Since != s.Log.Since && unwell(was) {
			s.unwell = was
		}
	}
	return s
}

// Tell says how the box is doing.
func (s *Status) Tell(now time.Time) (string, box.Outcome) {
	if s.Armed == nil {
		text, outcome := s.tellLast()
		return "not armed; " + text, outcome
	}
	c := s.Armed.Cmdline
	if c == nil {
		return fmt.Sprintf("it has a boot file that is not ours: %v", s.Armed.Err), box.Failed
	}
	until := ""
	if !c.Expires.IsZero() { // a server's jobs have no such time
		until = " until " + c.Expires.Format(time.RFC3339)
	}
	text := fmt.Sprintf("armed for %s%s (arming %s); ", c.Action, until, c.Arming)
	switch log := s.Log; {
	case log.Arming == c.Arming && log.Ended && log.Outcome == box.Done:
		return text + log.End + ", but the boot file is there", Pending
	case log.Arming == c.Arming && log.Ended:
		return text + log.End, log.Outcome
	case log.Arming == c.Arming:
		return text + "at work since " + log.Since, Pending
	case s.Armed.Expired(now):
		return text + "expired, and the box has not begun: it disarms itself when it starts", box.Expired
	}
	return text + "the box has not begun; restart it", Pending
}

// tellLast says how the last action ended of a box that is not armed.
func (s *Status) tellLast() (string, box.Outcome) {
	log := s.Log
	recorded := Pending
	if s.Last != nil {
		recorded = s.Last.Outcome
	}
	known := recorded.Known()
	switch same := known && log.Arming == s.Last.Arming; {
	case known && (log.Arming == "" || same && !(log.Ended && log.Outcome == recorded) || !same && s.lastIsNewer()):
		at := s.Last.Time.UTC().Format(time.RFC3339)
		return fmt.Sprintf("%s: %s at %s (arming %s), as is recorded", s.Last.Action, recorded, at, s.Last.Arming), recorded
	case log.Ended:
		return fmt.Sprintf("%s (arming %s, since %s)", log.End, log.Arming, log.Since), log.Outcome
	case log.Arming != "":
		return fmt.Sprintf("%s (arming %s) was at work since %s, and its log does not say how it ended",
			log.Action, log.Arming, log.Since), Pending
	}
	return NothingKnown, Pending
}

// lastIsNewer reports whether the recorded action ended after the log's last
// session began. In that case the box could not write to its log.
func (s *Status) lastIsNewer() bool {
	since, err := time.Parse(time.RFC3339, s.Log.Since)
	return err == nil && s.Last.Time.After(since)
}

// HalfRestored describes the log's last session if it is a restore that is not
// known to have ended well. If that one only refused or expired, an earlier one of
// the same arming counts. Otherwise it returns "".
func (s *Status) HalfRestored() string {
	log := s.Log
	if nothing := log.Outcome == box.Refused || log.Outcome == box.Expired; nothing && s.unwell.Arming == log.Arming {
		log = s.unwell
	}
	switch {
	case !unwell(log) || s.Last != nil && s.Last.Arming == log.Arming:
		return ""
	case !log.Ended:
		return fmt.Sprintf("its restore began %s, and its log does not say that it has ended", log.Since)
	}
	return fmt.Sprintf("its restore of %s has not ended well (%s)", log.Since, log.End)
}

// unwell reports whether a session is a restore that may have written half.
func unwell(log agent.Track) bool {
	return log.Action == box.Restore && (!log.Ended || log.Outcome == box.Failed)
}
