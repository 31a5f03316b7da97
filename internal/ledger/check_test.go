package ledger_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/ledger"
)

// Check says what Open would say. What is not yet in the ledger's own file, as after a
// crash, belongs to what it looks at.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ledger.db")
	if err := ledger.Check(t.Context(), file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a ledger: %v", err)
	}
	l, err := ledger.Open(t.Context(), file, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "g"}) })
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.Check(t.Context(), file); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("beside a server: %v", err)
	}
	crashed := filepath.Join(t.TempDir(), "ledger.db")
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(file + end)
		if err == nil {
			err = os.WriteFile(crashed+end, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, crashed} {
		if err := ledger.Check(t.Context(), f); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(crashed + "-shm"); err == nil {
		t.Error("the look has written beside the ledger")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i++ {
		b[i] = 0xff
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Check(t.Context(), file); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("a damaged ledger: %v", err)
	}
	if err := os.Remove(crashed); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Check(t.Context(), crashed); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("a journal without a ledger: %v", err)
	}
}
