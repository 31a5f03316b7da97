package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/sharedir"
)

// TestWaitForTheSilent: a box that went silent at its work is said to be so, and
// is not waited for longer than its arming counts.
func TestWaitForTheSilent(t *testing.T) {
	start := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	addr, err := box.ParseAddr("10.88.0.11")
	if err != nil {
		t.Fatal(err)
	}
	c := bootcfg.Cmdline{Action: box.Backup, Arming: box.NewArming(), Address: addr, Expires: start.Add(time.Hour),
		TFTP: bootcfg.NFSPath{Server: addr.IP(), Path: "/t"}, Backup: bootcfg.NFSPath{Server: addr.IP(), Path: "/b"}}
	file := bootcfg.BootFile{Cmdline: c, Kernel: "k", Initrd: "i"}
	text, err := bootcfg.Generate(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &pxeFolder{dir + "/cfg", durable.OS{}}
	if err := writeFile(f.path(addr.Hex()), string(text)); err != nil {
		t.Fatal(err)
	}
	log := dir + "/" + sharedir.LogName
	var out, errs strings.Builder
	now := start
	one := &watch{plan: armPlan{target: target{given: addr.String(), addr: addr}, file: file}, log: logReader{path: log}, heard: start}
	wt := &waiter{w: world{now: func() time.Time { return now }}, folder: f, out: &out, errs: &errs, watches: []*watch{one}}
	look := func(at time.Duration, ended bool) {
		t.Helper()
		if now = start.Add(at); wt.look() != ended {
			t.Fatalf("after %s it ended: %v\n%s%s", at, !ended, out.String(), errs.String())
		}
	}
	look(20*time.Minute, false)
	if errs.Len() > 0 {
		t.Errorf("of a box that has not begun: %s", errs.String())
	}
	// What the box says of another arming is not what is waited for.
	const other = "==================== T\nT: 10.88.0.11: info: backup, arming 0123456789abcdef\nT: 10.88.0.11: info: backup: done\n"
	if err := writeFile(log, other); err != nil {
		t.Fatal(err)
	}
	look(20*time.Minute+time.Second, false)
	if out.Len() > 0 {
		t.Errorf("it prints what is of another arming: %s", out.String())
	}
	if err := writeFile(log, other+"==================== T\nT: 10.88.0.11: info: backup, arming "+string(c.Arming)+"\n"); err != nil {
		t.Fatal(err)
	}
	look(21*time.Minute, false)
	look(35*time.Minute, false)
	if errs.Len() > 0 {
		t.Errorf("too early: %s", errs.String())
	}
	look(37*time.Minute, false)
	look(38*time.Minute, false)
	if strings.Count(errs.String(), "10.88.0.11 has said nothing for 15m0s") != 1 {
		t.Errorf("it is not said once: %s", errs.String())
	}
	look(time.Hour, false)
	look(time.Hour+maxSkew+time.Second, true)
	const says = "has said nothing for 44m0s, and the arming expired at 2026-11-29T09:00:00Z"
	if one.code != box.Failed.ExitCode() || !strings.Contains(out.String(), says) {
		t.Errorf("code %d: %s", one.code, out.String())
	}
}

// TestWorst: of several boxes the exit code is that of the one whose end is
// worst, whatever their order.
func TestWorst(t *testing.T) {
	order := []int{exitFailed, exitRefused, exitExpired, exitPending, exitBadSectors, exitDiffer, exitRescue, exitDone}
	for i, bad := range order {
		for _, better := range order[i:] {
			for _, codes := range [][]int{{bad, better}, {better, bad}} {
				if got := exitCode(worst(codes, []string{"why"}), true); got != bad {
					t.Errorf("of %v the code is %d", codes, got)
				}
			}
		}
	}
}

// TestStatus: a box that is armed is not done, and what is said of another
// arming is not said of this one.
func TestStatus(t *testing.T) {
	now := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	this, other := box.NewArming(), box.NewArming()
	track := func(id box.Arming, o box.Outcome) agent.Track {
		return agent.Track{Arming: id, Action: box.Restore, Ended: true, Outcome: o, End: "restore: " + string(o)}
	}
	armed := &arming{cmd: &bootcfg.Cmdline{Action: box.Restore, Arming: this, Expires: now.Add(time.Hour)}}
	for _, c := range []struct {
		st   boxStatus
		now  time.Time
		code int
	}{
		{boxStatus{armed: armed, session: track(this, box.Done)}, now, exitPending},
		{boxStatus{armed: armed, session: track(this, box.Refused)}, now, exitRefused},
		{boxStatus{armed: armed, session: track(other, box.Refused)}, now, exitPending},
		{boxStatus{armed: armed, session: track(other, box.Done)}, now.Add(2 * time.Hour), exitExpired},
		{boxStatus{session: track(this, box.Done)}, now, exitDone},
		{boxStatus{}, now, exitPending},
	} {
		if text, code := c.st.tell(c.now); code != c.code {
			t.Errorf("%+v: code %d, not %d: %s", c.st, code, c.code, text)
		}
	}
}

// TestRecorded: the record of another arming's action says nothing of this one.
func TestRecorded(t *testing.T) {
	dir := t.TempDir()
	if err := writeFile(dir+"/"+sharedir.Marker, ""); err != nil {
		t.Fatal(err)
	}
	area, err := sharedir.Open(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := box.ParseAddr("10.88.0.11")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := area.Box(addr)
	if err != nil {
		t.Fatal(err)
	}
	this := box.NewArming()
	one := &watch{folder: folder, plan: armPlan{file: bootcfg.BootFile{Cmdline: bootcfg.Cmdline{Arming: this}}}}
	for _, id := range []box.Arming{box.NewArming(), this} {
		if err := folder.SetLast(sharedir.LastAction{Arming: id, Action: box.Restore, Outcome: box.BadSectors}); err != nil {
			t.Fatal(err)
		}
		if got := one.recorded(); got != (id == this) || got && one.code != exitBadSectors {
			t.Errorf("the record of %s ends the wait for %s: %v, code %d", id, this, got, one.code)
		}
	}
}

// TestLogReader: a log that is cut, rotated away or removed while it is followed
// loses no line.
func TestLogReader(t *testing.T) {
	path := t.TempDir() + "/log"
	r := &logReader{path: path}
	defer r.close()
	for _, step := range []struct {
		what, text string
		do         func() error
		want       string
	}{
		{"it is not there", "", func() error { return nil }, ""},
		{"two lines, and half of one", "a\nb\nc", nil, "a b"},
		{"the rest of it", "a\nb\ncc\n", nil, "cc"},
		{"it was cut", "d\n", nil, "d"},
		{"it was rotated away, with new lines in both", "", func() error {
			return errors.Join(os.WriteFile(path, []byte("d\ne\nf"), 0o644), os.Rename(path, path+".1"), os.WriteFile(path, []byte("g\n"), 0o644))
		}, "e f g"},
		{"it is gone", "", func() error { return os.Remove(path) }, ""},
		{"it is there again", "h\n", nil, "h"},
	} {
		do := step.do
		if do == nil {
			do = func() error { return os.WriteFile(path, []byte(step.text), 0o644) }
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if lines, err := r.lines(); err != nil || strings.Join(lines, " ") != step.want {
			t.Errorf("%s: %q, %v; want %s", step.what, lines, err, step.want)
		}
	}
}
