package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/power"
)

// powerRig is a server's power commands. All of them run a script, which writes down what it was asked for.
type powerRig struct {
	*powers
	dir string
	box ledger.Box
	log strings.Builder
}

// newPowerRig makes the power commands of a configuration, in which SCRIPT is the script. The script fails if there is
// a file of the action's name.
func newPowerRig(t *testing.T, config string) *powerRig {
	t.Helper()
	r := &powerRig{dir: t.TempDir()}
	file := filepath.Join(r.dir, "script")
	script := fmt.Sprintf("cd %s; echo $* >>did; echo says $1; test ! -e fails-$1", r.dir)
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseConfig([]byte(strings.ReplaceAll(config, "SCRIPT", "sh "+file)))
	if err != nil {
		t.Fatal(err)
	}
	if r.powers, err = newPowers(cfg, slog.New(slog.NewTextHandler(&r.log, nil))); err != nil {
		t.Fatal(err)
	}
	addr, err := box.ParseAddr("10.40.41.42")
	if err != nil {
		t.Fatal(err)
	}
	r.gap = 0
	r.box = ledger.Box{Address: addr, Name: "web-1", Labels: []string{"outlet=7"}}
	return r
}

// fails lets the script fail for an action.
func (r *powerRig) fails(t *testing.T, action string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "fails-"+action), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// did is what the script was asked for.
func (r *powerRig) did() string {
	b, _ := os.ReadFile(filepath.Join(r.dir, "did"))
	os.Remove(filepath.Join(r.dir, "did"))
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
}

// restart asks for a box as package dispatch does.
func (r *powerRig) restart(t *testing.T) (short string, err error) {
	t.Helper()
	for try := 1; try < 10; try++ {
		did, err := r.Restart(t.Context(), r.box, nil, try, nil)
		if did.By != "x" {
			t.Errorf("it was done by %q", did.By)
		}
		if err == nil || !did.Again {
			return did.Short, err
		}
	}
	t.Error("it is tried without an end")
	return "", nil
}

// TestRestart: what is done to restart a box, and how often it is tried.
func TestRestart(t *testing.T) {
	for name, c := range map[string]struct {
		actions, fails   string
		did, short, fail string
	}{
		"works":             {`cycle = "cycle"`, "", "cycle 7", "", ""},
		"fails":             {`cycle = "cycle"`, "cycle", "cycle 7, cycle 7", "", "exit code 1"},
		"is off":            {`on = "on", off = "off", cycle = "cycle"`, "cycle", "cycle 7, cycle 7, on 7", "could not restart the box", ""},
		"nothing works":     {`on = "on", cycle = "cycle"`, "cycle,on", "cycle 7, cycle 7, on 7", "", "exit code 1; it said: says on"},
		"wakes":             {`on = "on"`, "", "on 7", "If it ran already, restart it.", ""},
		"wakes not":         {`on = "on"`, "on", "on 7, on 7", "", "exit code 1"},
		"switches off only": {`off = "off"`, "", "", "", `cannot do "on"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPowerRig(t, "jobs.power = \"x\"\n[power.x]\ncommand = \"SCRIPT {action} {label:outlet}\"\nactions = { "+c.actions+" }")
			for a := range strings.SplitSeq(c.fails, ",") {
				r.fails(t, a)
			}
			short, err := r.restart(t)
			if got := r.did(); got != c.did || !strings.Contains(short, c.short) || (short == "") != (c.short == "") {
				t.Errorf("%q is done, and %q is said", got, short)
			}
			if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestWhichPower: the command of a box is that of the box, its groups, or the configuration.
func TestWhichPower(t *testing.T) {
	r := newPowerRig(t, "jobs.power = \"a\"\n[power.a]\ncommand = \"SCRIPT a\"\n[power.b]\ncommand = \"SCRIPT b\"\n"+
		"[power.gone]\ncommand = \"/no/such/program\"")
	if log := r.log.String(); !strings.Contains(log, "power=gone") || strings.Contains(log, "power=a") {
		t.Error(log)
	}
	groups := []ledger.Group{{Name: "rack", Settings: []byte(`{"power":"b"}`)}, {Name: "other", Settings: []byte(`{"power":"none"}`)}}
	for _, c := range []struct{ settings, groups, want string }{
		{`{}`, "", "a"},
		{`{}`, "rack", "b"},
		{`{"power":"a"}`, "rack", "a"},
		{`{"power":"none"}`, "rack", ""},
		{`{}`, "rack,other", ""},
		{`{"power":"later"}`, "", ""},
		{`x`, "", ""},
	} {
		r.box.Settings, r.box.Groups = []byte(c.settings), nil
		if c.groups != "" {
			r.box.Groups = strings.Split(c.groups, ",")
		}
		if has := r.Has(r.box, groups); has != (c.want != "") {
			t.Errorf("%+v: it has one: %v", c, has)
		}
		did, err := r.Restart(t.Context(), r.box, groups, 1, nil)
		if got := r.did(); got != c.want || did.By != c.want || (err == nil) != (c.want != "") || did.Again {
			t.Errorf("%+v: %q, %+v, %v", c, got, did, err)
		}
	}
}

func TestSwitch(t *testing.T) {
	r := newPowerRig(t, "jobs.power = \"x\"\n[power.x]\ncommand = \"SCRIPT {action} {name}\"\nactions = { on = \"on\", off = \"off\" }")
	did, err := r.Switch(t.Context(), r.box, nil, power.Off, nil)
	if got := r.did(); got != "off web-1" || err != nil || did.Output != "says off" || did.By != "x" {
		t.Errorf("%q, %+v, %v", got, did, err)
	}
	r.fails(t, "off")
	if did, err = r.Switch(t.Context(), r.box, nil, power.Off, nil); err == nil || did.Output != "says off" {
		t.Errorf("%+v, %v", did, err)
	}
	if got := strings.Join(r.facts(), " "); got != "name" {
		t.Errorf("it depends on %q", got)
	}
	wakes := newPowerRig(t, "jobs.power = \"x\"\n[power.x]\ntemplate = \"wake\"")
	if _, err = wakes.Switch(t.Context(), r.box, nil, power.Off, nil); err == nil || !strings.Contains(err.Error(), "it can do on") {
		t.Error(err)
	}
	if (*powers)(nil).facts() != nil {
		t.Error("no power command depends on something")
	}
}

// TestPowerGap: boxes are switched one after the other, with a pause between.
func TestPowerGap(t *testing.T) {
	r := newPowerRig(t, "jobs.power = \"x\"\n[power.x]\ncommand = \"SCRIPT\"")
	r.gap = 300 * time.Millisecond
	begun := time.Now()
	ended := make(chan error)
	for range 4 {
		go func() {
			_, err := r.Restart(t.Context(), r.box, nil, 1, nil)
			ended <- err
		}()
	}
	for range 4 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begun); took < 3*r.gap {
		t.Errorf("four boxes are switched within %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.next = time.Now().Add(time.Hour)
	if did, err := r.Restart(ctx, r.box, nil, 1, nil); err == nil || did.Again {
		t.Errorf("%+v, %v", did, err)
	}
}

// TestPowerAsksFirst: what was refused by whoever asked is not begun, also by a packet, and not by a command that is run twice.
func TestPowerAsksFirst(t *testing.T) {
	for _, way := range []string{`command = "SCRIPT {action}"`, "command = \"SCRIPT {action}\"\nactions = { on = \"on\", off = \"off\" }",
		`template = "wake"`} {
		r := newPowerRig(t, "jobs.power = \"x\"\n[power.x]\n"+way)
		r.box.MACs = []string{"52:54:00:12:34:56"}
		busy := errors.New("it is at work")
		did, err := r.Restart(t.Context(), r.box, nil, 1, func() error { return busy })
		if !errors.Is(err, busy) || did.Again || r.did() != "" {
			t.Errorf("%s: %+v, %v", way, did, err)
		}
	}
}
