package agent

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/sharedir"
)

// begun is what the agent logs when it begins with an arming.
func begun(action box.Action, arming box.Arming) string {
	return fmt.Sprintf("%s, arming %s", action, arming)
}

// Track reads a box's log as the agent writes it, line by line, and keeps what
// it says of the last session.
type Track struct {
	Arming  box.Arming // of the session; "" until it said which
	Action  box.Action
	Since   string // when it began, as the log has it
	Last    string // its last line
	Ended   bool   // it said how it ended; a try that follows begins a new session
	Outcome box.Outcome
	End     string // in its own words
}

// Add reads the next line of the log.
func (t *Track) Add(line string) {
	l := sharedir.ParseLine(line)
	if l.Session {
		*t = Track{}
		return
	}
	if action, arming, ok := parseBegun(l.Text); ok && l.Time != "" {
		*t = Track{Arming: arming, Action: action, Since: l.Time}
	}
	if t.Arming == "" {
		return
	}
	if t.Last = l.All; l.Time == "" {
		return
	}
	if o, ok := parseEnd(t.Action, l.Text); ok {
		t.Ended, t.Outcome, t.End = true, o, l.Text
	} else if pid1.IsObituary(l.Text) {
		t.Ended, t.Outcome, t.End = true, box.Failed, fmt.Sprintf("%s: %s: %s", t.Action, box.Failed, l.Text)
	}
}

func parseBegun(text string) (box.Action, box.Arming, bool) {
	first, second, ok := strings.Cut(text, ", arming ")
	action, err := box.ParseAction(first)
	if !ok || err != nil {
		return "", "", false
	}
	arming, err := box.ParseArming(second)
	return action, arming, err == nil
}

// parseEnd reads what say wrote: the outcome that a session of the action ended
// with. Of names that begin alike the longest counts.
func parseEnd(action box.Action, text string) (best box.Outcome, found bool) {
	said, ok := strings.CutPrefix(text, string(action)+": ")
	if !ok {
		return "", false
	}
	for _, o := range box.Outcomes() {
		rest, ok := strings.CutPrefix(said, string(o))
		if ok && (rest == "" || rest[0] == ':' || rest[0] == ',') && (!found || len(o) > len(best)) {
			best, found = o, true
		}
	}
	return best, found
}
