package server

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
)

// names opens a ledger, and returns the names of its groups.
func names(t *testing.T, path string) (all []string) {
	t.Helper()
	l, err := ledger.Open(t.Context(), path, ledger.Options{})
	must(t, err)
	defer l.Close()
	must(t, l.View(t.Context(), func(tx *ledger.Tx) error {
		groups, err := tx.Groups()
		for _, g := range groups {
			all = append(all, g.Name)
		}
		return err
	}))
	return all
}

func addGroup(t *testing.T, l *ledger.Ledger, name string) {
	t.Helper()
	must(t, l.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: name}) }))
}

// TestRecoverCut: power is cut after each step of a recovery. A server that is started then
// begins with no empty ledger, and the recovery can be repeated.
func TestRecoverCut(t *testing.T) {
	for steps := range 5 {
		p := newParts(t)
		cfg := p.Config
		l, err := ledger.Open(t.Context(), cfg.LedgerFile(), ledger.Options{})
		must(t, err)
		addGroup(t, l, "before")
		must(t, l.CopyTo(t.Context(), cfg.LedgerCopy()))
		addGroup(t, l, "after")
		wal, err := os.ReadFile(cfg.LedgerFile() + "-wal") // as after a crash
		must(t, err)
		main, err := os.ReadFile(cfg.LedgerFile())
		must(t, err)
		must(t, l.Close())
		must(t, os.WriteFile(cfg.LedgerFile(), main, 0o600))
		must(t, os.WriteFile(cfg.LedgerFile()+"-wal", wal, 0o600))
		away := cfg.LedgerFile() + ".before-20260101-000000"
		for _, step := range []func() error{
			func() error { return copyDurably(durable.OS{}, cfg.LedgerCopy(), freshLedger(cfg)) },
			func() error { return os.Rename(cfg.LedgerFile(), away) },
			func() error { return os.Rename(cfg.LedgerFile()+"-wal", away+"-wal") },
			func() error { return os.Rename(freshLedger(cfg), cfg.LedgerFile()) },
		}[:steps] {
			must(t, step())
		}
		if steps == 2 || steps == 3 { // there is no ledger
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // a server that starts ends well by that
			if err := Run(ctx, p); err == nil || !strings.Contains(err.Error(), "recover") {
				t.Errorf("after %d steps a server says %v", steps, err)
			}
			cancel()
			if _, err := os.Stat(cfg.LedgerFile()); err == nil {
				t.Errorf("after %d steps a server has made a ledger", steps)
			}
		}
		_, err = Recover(t.Context(), cfg, true)
		must(t, err)
		if got := names(t, cfg.LedgerFile()); len(got) != 1 || got[0] != "before" {
			t.Errorf("after %d steps and another try the ledger has the groups %q", steps, got)
		}
		must(t, notHalfRecovered(cfg))
	}
}

func TestRecover(t *testing.T) {
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	if _, err := Recover(t.Context(), &cfg, true); !errors.As(err, new(*problem.Error)) {
		t.Errorf("without a copy: %v", err)
	}
	l, err := ledger.Open(t.Context(), cfg.LedgerFile(), ledger.Options{})
	must(t, err)
	addGroup(t, l, "before")
	must(t, l.CopyTo(t.Context(), cfg.LedgerCopy()))
	addGroup(t, l, "after")
	if _, err := Recover(t.Context(), &cfg, true); !errors.As(err, new(*problem.Error)) || !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("beside a server: %v", err)
	}
	must(t, l.Close())
	if _, err := Recover(t.Context(), &cfg, false); !errors.As(err, new(*problem.Error)) {
		t.Errorf("with a whole ledger: %v", err)
	}
	if got := names(t, cfg.LedgerFile()); len(got) != 2 {
		t.Fatalf("what was refused left the groups %q", got)
	}
	did, err := Recover(t.Context(), &cfg, true)
	must(t, err)
	if got := names(t, cfg.LedgerFile()); len(got) != 1 || got[0] != "before" {
		t.Errorf("the ledger has the groups %q", got)
	}
	if got := names(t, did.Away); len(got) != 2 {
		t.Errorf("the ledger of before has the groups %q", got)
	}
	if time.Since(did.Made) > time.Hour || did.Made.IsZero() {
		t.Errorf("the copy is said to be of %v", did.Made)
	}

	// A damaged ledger needs no word, nor does one that is gone.
	must(t, os.WriteFile(cfg.LedgerFile(), []byte("this is no database"), 0o600))
	time.Sleep(1100 * time.Millisecond) // the ledgers of before have names by the second
	_, err = Recover(t.Context(), &cfg, false)
	must(t, err)
	must(t, os.Remove(cfg.LedgerFile()))
	did, err = Recover(t.Context(), &cfg, false)
	must(t, err)
	if got := names(t, cfg.LedgerFile()); len(got) != 1 || did.Away != "" {
		t.Errorf("the ledger has the groups %q, and the one of before is %q", got, did.Away)
	}

	// A copy that is damaged takes no place.
	must(t, os.WriteFile(cfg.LedgerCopy(), []byte("this is no database"), 0o600))
	if _, err := Recover(context.Background(), &cfg, true); err == nil {
		t.Error("a damaged copy is taken")
	}
	if got := names(t, cfg.LedgerFile()); len(got) != 1 {
		t.Errorf("after a damaged copy the ledger has the groups %q", got)
	}
}

// TestRecoverAsRoot: a server that runs as a user of its own can use the ledger that root has recovered.
func TestRecoverAsRoot(t *testing.T) {
	testenv.Root(t)
	cfg := DefaultConfig()
	cfg.State = t.TempDir()
	l, err := ledger.Open(t.Context(), cfg.LedgerFile(), ledger.Options{})
	must(t, err)
	must(t, errors.Join(l.CopyTo(t.Context(), cfg.LedgerCopy()), l.Close()))
	must(t, errors.Join(os.Remove(cfg.LedgerFile()), os.Remove(cfg.LedgerFile()+".lock"), os.Chown(cfg.State, 1234, 1235)))
	_, err = Recover(t.Context(), &cfg, false)
	must(t, err)
	_, err = Recover(t.Context(), &cfg, true)
	must(t, err)
	for _, end := range []string{"", ".lock"} {
		st, err := os.Stat(cfg.LedgerFile() + end)
		must(t, err)
		if s := st.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 1235 {
			t.Errorf("ledger%s belongs to %d:%d", end, s.Uid, s.Gid)
		}
	}
}
