// Package progress tells how far work on disks is. It says how much of a pass is
// done and how fast, how long the pass and all of the work still take, and what
// comes next. It only computes and makes text. Its caller shows that on a
// terminal.
package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Work is one pass over one disk. A plan has the passes in the order in which
// they are done. Passes that are not needed after all are skipped.
type Work struct {
	Disk  string
	Pass  string // "read", "compare", "check", "write" or "verify"
	Bytes int64  // an estimate, since the total given to Tell counts later
}

// Meter computes the progress. Only one goroutine may use it at a time.
type Meter struct {
	plan []Work
	now  func() time.Time

	disk, pass  string
	at          int // place of the current pass in the plan, -1 if it is not there
	begun       time.Time
	base        int64 // bytes already done at the first Tell of the pass
	done, total int64
	rates       map[string]float64 // of each pass, in bytes a second
}

// New returns a meter for a plan. With an empty plan, the meter does not know
// what comes after the current pass. now is the clock, and nil means time.Now.
func New(now func() time.Time, plan ...Work) *Meter {
	if now == nil {
		now = time.Now
	}
	return &Meter{plan: plan, now: now, at: -1, rates: map[string]float64{}}
}

// Tell says how many bytes of a pass are done. A total of 0 means that it is
// not known. Tell reports whether the pass is another one than before.
func (m *Meter) Tell(disk, pass string, done, total int64) (another bool) {
	another = disk != m.disk || pass != m.pass
	if another {
		m.disk, m.pass, m.begun, m.base = disk, pass, m.now(), done
		m.at = slices.IndexFunc(m.plan, func(w Work) bool { return w.Disk == disk && w.Pass == pass })
	}
	m.done, m.total = done, total
	if rate := m.rate(); rate > 0 {
		m.rates[pass] = rate
	}
	return another
}

// rate is the rate of the current pass in bytes a second, 0 if it is not known
// yet.
func (m *Meter) rate() float64 {
	s := m.now().Sub(m.begun).Seconds()
	if s < 0.1 || m.done <= m.base {
		return 0
	}
	return float64(m.done-m.base) / s
}

// left is how long so many bytes of a pass will take.
func (m *Meter) left(pass string, bytes int64) time.Duration {
	rate := m.rates[pass]
	if rate == 0 {
		rate = m.rate() // the current pass is the best estimate
	}
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(max(bytes, 0)) / rate * float64(time.Second))
}

// all is how long all remaining work will take.
func (m *Meter) all() time.Duration {
	d := m.left(m.pass, m.total-m.done)
	for _, w := range m.plan[m.at+1:] {
		d += m.left(w.Pass, w.Bytes)
	}
	return d
}

// Left is how long all remaining work will take. It is 0 as long as that is not known.
func (m *Meter) Left() time.Duration {
	if m.rate() == 0 || m.at < 0 && len(m.plan) > 0 {
		return 0
	}
	return m.all()
}

// disks returns the number of the current disk, and how many disks there are.
func (m *Meter) disks() (number, of int) {
	var names []string
	for _, w := range m.plan {
		if !slices.Contains(names, w.Disk) {
			names = append(names, w.Disk)
		}
	}
	return slices.Index(names, m.disk) + 1, len(names)
}

// The words for the current pass where its name is not the word, and for a pass
// that comes later.
var (
	present = map[string]string{"verify": "read back"}
	coming  = map[string]string{"read": "reading", "compare": "comparing", "check": "checking", "write": "writing", "verify": "reading back"}
)

// then says in words what comes after the pass on the same disk, "" if nothing
// does.
func (m *Meter) then() string {
	var words []string
	for _, w := range m.plan[m.at+1:] {
		if word := coming[w.Pass]; m.at >= 0 && w.Disk == m.disk && word != "" && !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// Line says how far the work is, such as "sda, disk 1 of 2: write 34 %, 210
// MB/s, 0:41 left, all in 3:20, then reading back". amount makes text of a
// number of bytes.
func (m *Meter) Line(amount func(bytes int64) string) string {
	var b strings.Builder
	if b.WriteString(m.disk); m.disk != "" {
		if number, of := m.disks(); number > 0 && of > 1 {
			fmt.Fprintf(&b, ", disk %d of %d", number, of)
		}
		b.WriteString(": ")
	}
	pass := m.pass
	if word := present[pass]; word != "" {
		pass = word
	}
	if m.total > 0 {
		fmt.Fprintf(&b, "%s %d %%", pass, int64(float64(m.done)/float64(m.total)*100))
	} else {
		fmt.Fprintf(&b, "%s %s", pass, amount(m.done))
	}
	if rate := m.rate(); rate > 0 {
		fmt.Fprintf(&b, ", %s/s", amount(int64(rate)))
		if m.total > 0 {
			fmt.Fprintf(&b, ", %s left", Clock(m.left(m.pass, m.total-m.done)))
		}
		if m.at >= 0 && m.at < len(m.plan)-1 {
			fmt.Fprintf(&b, ", all in %s", Clock(m.all()))
		}
	}
	if then := m.then(); then != "" {
		b.WriteString(", then " + then)
	}
	return b.String()
}

// Clock makes text of a duration, such as "0:41", "3:20" or "1:03:20".
func Clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
