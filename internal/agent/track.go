package agent

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/pid1"
	"testbox-imaging/internal/sharedir"
)

// begun is the line that the agent logs when it begins with an arming.
func begun(action box.Action, arming box.Arming) string {
	return fmt.Sprintf("%s, arming %s", action, arming)
}

// Track reads a box's log line by line, and remembers what it says about the
// last session.
type Track struct {
	Arming  box.Arming // of the session; "" before a line names it
	Action  box.Action
	Since   string // when it began, as written in the log
	Last    string // its last line
	Ended   bool   // its log says how it ended; a later try begins a new session
	Outcome box.Outcome
	End     string // the log's words about the end
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

// parseEnd reads the outcome from a line that say wrote about the action. If
// several outcomes match the beginning of the text, the longest one counts.
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
