package follow

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
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
	f := bootfiles.New(durable.OS{}, dir+"/cfg")
	if err := errors.Join(os.Mkdir(f.Dir(), 0o755), os.WriteFile(f.BootFile(addr), text, 0o644)); err != nil {
		t.Fatal(err)
	}
	log := dir + "/" + box.LogFile
	var out, errs strings.Builder
	now := start
	one := &watch{box: Box{addr.String(), c}, log: logReader{path: log}, heard: start}
	to := func(b *strings.Builder) func(string) { return func(line string) { b.WriteString(line + "\n") } }
	w := &Waiter{Boot: f, Now: func() time.Time { return now }, Say: to(&out), Warn: to(&errs), watches: []*watch{one}}
	look := func(at time.Duration, ended bool) {
		t.Helper()
		if now = start.Add(at); w.look() != ended {
			t.Fatalf("after %s it ended: %v\n%s%s", at, !ended, out.String(), errs.String())
		}
	}
	look(20*time.Minute, false)
	if errs.Len() > 0 {
		t.Errorf("of a box that has not begun: %s", errs.String())
	}
	// What the box says of another arming is not what is waited for.
	const other = "==================== T\nT: 10.88.0.11: info: backup, arming 0123456789abcdef\nT: 10.88.0.11: info: backup: done\n"
	if err := write(log, other); err != nil {
		t.Fatal(err)
	}
	look(20*time.Minute+time.Second, false)
	if out.Len() > 0 {
		t.Errorf("it prints what is of another arming: %s", out.String())
	}
	if err := write(log, other+"==================== T\nT: 10.88.0.11: info: backup, arming "+string(c.Arming)+"\n"); err != nil {
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
	look(time.Hour+MaxSkew+time.Second, true)
	const says = "has said nothing for 44m0s, and the arming expired at 2026-11-29T09:00:00Z"
	if one.end.Outcome != box.Failed || !strings.Contains(out.String(), says) {
		t.Errorf("%+v: %s", one.end, out.String())
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
	armed := &bootfiles.File{Cmdline: &bootcfg.Cmdline{Action: box.Restore, Arming: this, Expires: now.Add(time.Hour)}}
	for _, c := range []struct {
		st   Status
		now  time.Time
		want box.Outcome
	}{
		{Status{Armed: armed, Log: track(this, box.Done)}, now, Pending},
		{Status{Armed: armed, Log: track(this, box.Refused)}, now, box.Refused},
		{Status{Armed: armed, Log: track(other, box.Refused)}, now, Pending},
		{Status{Armed: armed, Log: track(other, box.Done)}, now.Add(2 * time.Hour), box.Expired},
		{Status{Log: track(this, box.Done)}, now, box.Done},
		{Status{}, now, Pending},
	} {
		if text, got := c.st.Tell(c.now); got != c.want {
			t.Errorf("%+v: %q, not %q: %s", c.st, got, c.want, text)
		}
	}
	forever := &bootfiles.File{Cmdline: &bootcfg.Cmdline{Action: box.Restore, Arming: this}}
	if text, _ := (&Status{Armed: forever}).Tell(now); !strings.HasPrefix(text, "armed for restore (arming ") {
		t.Errorf("a boot file of a server: %s", text)
	}
}

// TestRecorded: the record of another arming's action says nothing of this one.
func TestRecorded(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir+"/"+sharedir.Marker, ""); err != nil {
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
	one := &watch{folder: folder, box: Box{Cmdline: bootcfg.Cmdline{Arming: this}}}
	for _, id := range []box.Arming{box.NewArming(), this} {
		if err := folder.SetLast(sharedir.LastAction{Arming: id, Action: box.Restore, Outcome: box.BadSectors}); err != nil {
			t.Fatal(err)
		}
		if got := one.recorded(); got != (id == this) || got && one.end.Outcome != box.BadSectors {
			t.Errorf("the record of %s ends the wait for %s: %v, %+v", id, this, got, one.end)
		}
	}
}

// TestHalfRestored: a restore that did not end well counts until one of the same arming did, also if the box refused or was
// too late when it tried again.
func TestHalfRestored(t *testing.T) {
	session := func(time, arming string, lines ...string) string {
		text := "==================== " + time + "\n" + time + ": 10.88.0.11: info: restore, arming " + arming + "\n"
		for _, line := range lines {
			text += time + ": 10.88.0.11: error: restore: " + line + "\n"
		}
		return text
	}
	const one, two = "0123456789abcdef", "fedcba9876543210"
	const refused, expired = "refused, no disk and no image was changed: it is busy", "expired, disarmed"
	area, err := sharedir.Open(durable.OS{}, share(t))
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := box.ParseAddr("10.88.0.11")
	folder, err := area.Box(addr)
	if err != nil {
		t.Fatal(err)
	}
	for log, want := range map[string]string{
		session("T1", one, refused):                                                                    "",
		session("T1", one, "failed: stale"):                                                            "of T1 has not",
		session("T1", one, "failed: stale") + session("T2", one, refused):                              "of T1 has not",
		session("T1", one) + session("T2", one, refused) + session("T3", one, expired):                 "began T1",
		session("T1", one, "failed: stale") + session("T2", one, refused) + session("T3", one, "done"): "",
		session("T1", one, "failed: stale") + session("T2", two, refused):                              "",
	} {
		if err := write(folder.Path(box.LogFile), log); err != nil {
			t.Fatal(err)
		}
		if got := Read(folder).HalfRestored(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s%q, and not %q", log, got, want)
		}
	}
}

// share makes an empty backup area.
func share(t *testing.T) string {
	dir := t.TempDir()
	if err := write(dir+"/"+sharedir.Marker, ""); err != nil {
		t.Fatal(err)
	}
	return dir
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

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }
