package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// powerSwitch is a power command for tests. It does for each box what its plan says, one word for each time: ok
// switches the box on, fail fails, and hang does not end.
type powerSwitch struct {
	t   testing.TB
	dir string
}

func newPowerSwitch(t testing.TB) powerSwitch {
	t.Helper()
	p := powerSwitch{t, tempDir(t)}
	must(t, os.WriteFile(p.path("script"), []byte(`cd "$1" || exit 9
echo "$3" >>"asked-$2"
set -- "$2" $(sed -n "$(wc -l <"asked-$2")p" "plan-$2")
echo "the switch does $2"
case $2 in
ok) echo on >>"on-$1" ;;
hang) sleep 600 & echo $! >"hangs-$1"; wait ;;
*) echo "the switch is busy" >&2; exit 1 ;;
esac
`), 0o600))
	return p
}

func (p powerSwitch) path(name string) string { return filepath.Join(p.dir, name) }

// config is the power command in a server's configuration.
func (p powerSwitch) config(more string) string {
	return fmt.Sprintf("[power.switch]\ncommand = \"sh %s %s {address} {action}\"\n%s", p.path("script"), p.dir, more)
}

// plan says what the next times lead to.
func (p powerSwitch) plan(b *servedBox, does ...string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path("plan-"+b.addr), []byte(strings.Join(does, "\n")+"\n"), 0o600))
}

func (p powerSwitch) read(what string, b *servedBox) string {
	text, _ := os.ReadFile(p.path(what + "-" + b.addr))
	return strings.Join(strings.Fields(string(text)), " ")
}

// on waits until the box is switched on, and starts it.
func (p powerSwitch) on(b *servedBox) *agent {
	p.t.Helper()
	b.site.until("box "+b.addr+" is switched on", 2*serverLimit, func() bool { return p.read("on", b) != "" })
	must(p.t, os.Remove(p.path("on-"+b.addr)))
	if !b.armed() {
		p.t.Errorf("box %s was switched on before its boot file was there", b.addr)
	}
	b.boot()
	return b.start()
}

// hangs waits until the command hangs, and returns the file of a process that it has started.
func (p powerSwitch) hangs(b *servedBox) (proc string) {
	p.t.Helper()
	b.site.until("the power command of "+b.addr+" hangs", serverLimit, func() bool { return p.read("hangs", b) != "" })
	return "/proc/" + p.read("hangs", b)
}

// gone reports whether a process has ended. Nobody may have waited for it yet.
func gone(proc string) bool {
	stat, err := os.ReadFile(proc + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestServedPower: the server restarts boxes by a power command that works at once, at the second try, or when half of
// the time is over. A box whose command never ends stays armed, and waits for people.
func TestServedPower(t *testing.T) {
	t.Parallel()
	p := newPowerSwitch(t)
	s := newServerSite(t, "[jobs]\npower = \"switch\"\nstart = \"2m\"\n"+
		p.config("timeout = \"2s\"\nactions = { cycle = \"cycle\", off = \"off\" }\n"))
	works, second, later, never := s.box(11, disk("sda", scattered(1))), s.box(12), s.box(13), s.box(14)
	p.plan(works, "ok")
	p.plan(second, "fail", "ok")
	p.plan(later, "fail", "fail", "ok")
	p.plan(never, "hang", "hang", "hang", "hang")

	backup := s.waits("backup", works.addr, "--wait", "--json")
	id := map[*servedBox]string{}
	for _, b := range []*servedBox{second, later, never} {
		id[b] = b.ask("refresh-info")
	}
	hung := p.hangs(never)
	armed := func(b *servedBox, why string) {
		t.Helper()
		text := ""
		defer func() {
			if t.Failed() {
				t.Log(text)
			}
		}()
		s.until("the server gives up on the power command of "+b.addr, serverLimit, func() bool {
			text = s.does(done, []string{"jobs", id[b]})
			return strings.Contains(text, "armed; restart the box (The power command failed: the power command sh "+why)
		})
	}
	armed(never, "did not end within 2s; it said: the switch does hang)")
	if !gone(hung) {
		t.Error("what the command has started lives on")
	}
	armed(later, "failed with exit code 1; it said: the switch is busy)")
	never.boot()
	agents := []*agent{p.on(works), p.on(second), never.start()}
	for _, a := range agents {
		a.ends(done)
	}
	if jobs := backup.ends(t, "a backup of a box that the server restarts", done); len(jobs) != 1 || jobs[0].Outcome != "done" {
		t.Errorf("%+v", jobs)
	}
	p.on(later).ends(done)

	for b, want := range map[*servedBox]string{works: "cycle", second: "cycle cycle", later: "cycle cycle cycle", never: "cycle cycle"} {
		if asked := p.read("asked", b); asked != want {
			t.Errorf("power of %s was asked for: %s", b.addr, asked)
		}
		if b == works {
			continue
		}
		if j := b.job(id[b]); j.State != "ended" || j.Outcome != "done" || b.armed() {
			t.Errorf("%s: %+v, armed: %v", b.addr, j, b.armed())
		}
	}
	for _, want := range []string{"power: the switch is busy", "power: the switch does ok",
		"restart (the power command switch): the power command sh failed with exit code 1", "restart (the power command switch): done."} {
		if log := s.does(done, []string{"log", second.addr, "--all"}); !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

// TestServedSwitch: an admin switches a box, but not one that is at work, unless it is forced. A server that ends stops
// a command that hangs, and the next one runs it once more.
func TestServedSwitch(t *testing.T) {
	t.Parallel()
	p := newPowerSwitch(t)
	s := newServerSite(t, p.config(""))
	b := s.box(11, disk("sda", scattered(1)).ofSize(64*mib))
	p.plan(b, "ok", "fail", "hang", "ok", "ok")
	s.does(done, []string{"box", "add", b.addr, "--labels", "rack3"})
	s.does(refused, []string{"box", "power", b.addr, "off"}, "has no power command; `testbox box set 10.88.0.11 --power NAME` gives it one")
	s.does(done, []string{"box", "set", b.addr, "--power", "switch"}, "switch (for the box)")
	s.does(done, []string{"box", "power", b.addr, "off"}, "the switch does ok", "10.88.0.11: off: done by the power command switch")
	s.does(failed, []string{"box", "power", b.addr, "on"}, "the switch is busy", "failed with exit code 1")
	if asked := p.read("asked", b); asked != "off on" {
		t.Errorf("power was asked for: %s", asked)
	}
	must(t, os.Remove(p.path("on-"+b.addr)))

	id := b.ask("backup")
	hung := p.hangs(b)
	begun := time.Now()
	s.end()
	if !gone(hung) {
		t.Error("what the command has started outlives the server")
	}
	if took := time.Since(begun); took > serverLimit/2 {
		t.Errorf("the server took %v to end", took)
	}
	s.start()
	a := p.on(b)
	a.waitLine("seen: disk")
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP)) // so that it stays at work
	s.does(refused, []string{"box", "power", b.addr, "cycle"}, "10.88.0.11 is at work for job "+id)
	s.does(done, []string{"box", "power", b.addr, "cycle", "--force", "--why", "a test"}, "done by the power command switch")
	must(t, a.cmd.Process.Signal(syscall.SIGCONT))
	a.ends(done)
	if asked := p.read("asked", b); asked != "off on cycle cycle cycle" {
		t.Errorf("power was asked for: %s", asked)
	}
	if audit := s.does(done, []string{"audit"}); strings.Count(audit, "power cycle") != 1 || strings.Count(audit, "power off") != 1 ||
		!strings.Contains(audit, "forced: a test") {
		t.Errorf("the audit log is\n%s", audit)
	}
}
