// Package doctor finds what keeps boxes from being imaged, before somebody loses days with
// it. A check is a function of the facts that it needs, and returns findings. Nothing is
// changed by any of them.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Problem   Severity = "problem"       // something does not work, or will not soon
	Warning   Severity = "warning"       // something may not work
	Fine      Severity = "fine"          // it was looked at, and nothing is wrong
	NotLooked Severity = "not looked at" // the text says why
)

// Finding is what a check has found.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"`        // names the section of docs/troubleshooting.md
	Text     string   `json:"text"`         // what was seen
	Do       string   `json:"do,omitempty"` // what to do, such as a command
}

// maxText is how many bytes of a text are kept. Parts of it are strangers'.
const maxText = 1500

// clean makes a text safe for a terminal, and bounds it. Lines stay.
func clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// Check looks at one thing.
type Check struct {
	Name string
	Look func(context.Context) []Finding
}

// checkTime is how long one check may take. Nobody waits longer for a network in which
// nothing answers.
const checkTime = 20 * time.Second

// maxFindings bounds what one check says.
const maxFindings = 200

// Run makes all checks at once, and returns their findings in the order of the checks. A
// check that takes too long was not looked at.
func Run(ctx context.Context, checks []Check) []Finding { return run(ctx, checks, checkTime) }

func run(ctx context.Context, checks []Check, limit time.Duration) (all []Finding) {
	found := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			done := make(chan []Finding, 1)
			go func() { done <- c.Look(ctx) }()
			select {
			case found[i] = <-done:
			case <-ctx.Done():
				// A dead mount holds whoever reads from it.
				found[i] = []Finding{notLooked(c.Name, "it took longer than %v", limit)}
			}
		})
	}
	wg.Wait()
	for i, list := range found {
		if more := len(list) - maxFindings; more > 0 {
			list = append(list[:maxFindings:maxFindings], Finding{Severity: Warning, Text: fmt.Sprintf("there are %d more of these", more)})
		}
		for _, f := range list {
			if f.Check == "" {
				f.Check = checks[i].Name
			}
			f.Text, f.Do = clean(f.Text), clean(f.Do)
			all = append(all, f)
		}
	}
	return all
}

// Count is how many findings have a severity.
func Count(all []Finding, s Severity) (n int) {
	for _, f := range all {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func problem(check, do, format string, args ...any) Finding {
	return Finding{Problem, check, fmt.Sprintf(format, args...), do}
}

func warning(check, do, format string, args ...any) Finding {
	return Finding{Warning, check, fmt.Sprintf(format, args...), do}
}

func fine(check, format string, args ...any) Finding {
	return Finding{Fine, check, fmt.Sprintf(format, args...), ""}
}

func notLooked(check, format string, args ...any) Finding {
	return Finding{NotLooked, check, "because " + fmt.Sprintf(format, args...), ""}
}

// NotLookedAt is the finding of what could not be looked at.
func NotLookedAt(check, because string) Finding { return notLooked(check, "%s", because) }
