package pid1

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
)

func TestServiceRunsAgent(t *testing.T) {
	needRoot(t)
	for play, want := range map[string]string{"good": "", "rescues": "in rescue", "refuses": "exited with status 2: wrong use",
		"killed": "killed by signal 9"} {
		t.Run(play, func(t *testing.T) {
			name, beats, rescues := testInbox(t)
			t.Setenv("PID1_TEST_CHILD", play)
			s := testSystem(t, &bootcfg.Cmdline{Host: "box42"})
			var out lockedBuffer
			s.con.add(&out)
			var err error
			if s.keeper, err = dialKeeper(name); err != nil {
				t.Fatal(err)
			}
			err = s.serveAgent()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("ended with %v, want %q", err, want)
			}
			if errors.Is(err, errRescue) {
				waitFor(t, "rescue", func() bool { return rescues.Load() == 1 })
			}
			if play == "good" {
				waitFor(t, "a beat", func() bool { return beats.Load() > 0 })
			}
			waitFor(t, "the agent's words", func() bool { return strings.Contains(out.String(), "args run --reboot") })
			if strings.Contains(out.String(), "--address") {
				t.Errorf("the agent was told an address: %s", out.String())
			}
		})
	}
}

func TestOtherConsoles(t *testing.T) {
	for active, want := range map[string][]string{
		"tty0 ttyS0\n": {"tty0"},
		"ttyS0 tty0\n": {"ttyS0"},
		"ttyS1\n":      {"tty0", "ttyS0"},
		"":             {"tty0", "ttyS0"},
	} {
		if got := otherConsoles(active); !slices.Equal(got, want) {
			t.Errorf("%q gave %v, want %v", active, got, want)
		}
	}
	if len(consoles) != 2 {
		t.Error("the list of all consoles changed")
	}
}

func TestNotMounted(t *testing.T) {
	there, away := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(there, "pxelinux.0"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := notMounted([]area{{dir: there, mark: "pxelinux.0"}, {dir: away, mark: "testbox-backup"}})
	if len(got) != 1 || got[0].dir != away {
		t.Errorf("%+v", got)
	}
}

func TestTerminalReopens(t *testing.T) {
	dev, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.WriteFile("tty0", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	term := &terminal{dev: dev, name: "tty0"}
	if err := term.open(); err != nil {
		t.Fatal(err)
	}
	term.file.Close() // as a hang-up leaves it
	if _, err := term.Write([]byte("last words")); err != nil {
		t.Error(err)
	}
	if text, _ := dev.ReadFile("tty0"); string(text) != "last words" {
		t.Errorf("the terminal has %q", text)
	}
	term.file.Close()
	if err := dev.Remove("tty0"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := term.Write([]byte("x")); err == nil {
			t.Error("wrote to a terminal that is gone")
		}
	}
}
