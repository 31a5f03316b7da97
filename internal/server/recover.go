package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// ledgerFiles are the files of a ledger besides the first: SQLite's journal and its
// index.
var ledgerFiles = []string{"", "-wal", "-shm"}

// Recovered says what Recover did.
type Recovered struct {
	Made time.Time // when the copy was made
	Away string    // where the ledger of before is now; "" if there was none
	Jobs int       // that had not ended in the copy, and do not go on
}

// Recover puts the copy of the ledger that upkeep made last in the place of the
// ledger. The files of the ledger of before are moved away, not removed. If a server
// runs, or the ledger of before is whole and sure is false, it refuses and changes
// nothing. An interrupted Recover can be repeated.
func Recover(ctx context.Context, cfg *Config, sure bool) (*Recovered, error) {
	fsys := durable.Owned{} // root recovers what the server's user must be able to write
	st, err := os.Stat(cfg.LedgerCopy())
	if err != nil {
		return nil, problem.Wrongf("there is no copy of the ledger: %w", err)
	}
	if err := mayReplace(ctx, cfg, sure); err != nil {
		return nil, err
	}
	// The copy is checked before anything is moved. It is opened under another name,
	// so that it stays as it is.
	fresh := freshLedger(cfg)
	if err := copyDurably(fsys, cfg.LedgerCopy(), fresh); err != nil {
		return nil, err
	}
	did := &Recovered{Made: st.ModTime()}
	copied, err := ledger.Open(ctx, fresh, ledger.Options{})
	if err == nil {
		did.Jobs, err = dispatch.Outdated(ctx, copied, armedIn(bootfiles.New(fsys, cfg.BootDir())), time.Now())
		err = errors.Join(err, copied.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("the copy of the ledger cannot be used: %w", err)
	}
	away := cfg.LedgerFile() + time.Now().UTC().Format(".before-20060102-150405")
	for _, end := range ledgerFiles {
		switch err := fsys.Rename(cfg.LedgerFile()+end, away+end); {
		case err == nil:
			did.Away = away
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if err := fsys.Rename(fresh, cfg.LedgerFile()); err != nil {
		return nil, err
	}
	return did, fsys.SyncDir(filepath.Dir(cfg.LedgerFile()))
}

// freshLedger is the copy until it takes the place of the ledger.
func freshLedger(cfg *Config) string { return cfg.LedgerFile() + ".new" }

// notHalfRecovered refuses to start a server whose ledger was moved away by a Recover that
// did not come to its end. It would begin with an empty one.
func notHalfRecovered(cfg *Config) error {
	_, have := os.Lstat(cfg.LedgerFile())
	_, fresh := os.Lstat(freshLedger(cfg))
	if errors.Is(have, fs.ErrNotExist) && fresh == nil {
		return problem.Refusef("`testbox server recover` was interrupted, and there is no ledger; run it again")
	}
	return nil
}

// armedIn reports whether a box has a boot file of an arming.
func armedIn(folder *bootfiles.Folder) func(box.Addr, box.Arming) (bool, error) {
	return func(addr box.Addr, id box.Arming) (bool, error) {
		f, err := folder.Read(addr)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil && (f.Cmdline == nil || f.Cmdline.Arming == id), err // one that is not ours may have been of any arming
	}
}

// mayReplace refuses if the ledger is in use, or is whole.
func mayReplace(ctx context.Context, cfg *Config, sure bool) error {
	if _, err := os.Stat(cfg.LedgerFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := ledger.Open(ctx, cfg.LedgerFile(), ledger.Options{})
	switch {
	case errors.Is(err, ledger.ErrInUse):
		return problem.Refusef("%w; end the server first", err)
	case err != nil:
		return nil // it is damaged, which is what the copy is for
	}
	if err := l.Close(); err != nil {
		return err
	}
	if !sure {
		return problem.Refusef("the ledger %s is whole; --yes takes the copy all the same, and what came after the copy is lost",
			cfg.LedgerFile())
	}
	return nil
}

func copyDurably(fsys durable.FS, from, to string) error {
	f, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := durable.Create(fsys, to, 0o600)
	if err != nil {
		return err
	}
	defer p.Abort()
	if _, err := io.Copy(p, io.NewSectionReader(f, 0, f.Size())); err != nil {
		return err
	}
	return p.Commit()
}
