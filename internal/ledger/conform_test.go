package ledger_test

import (
	"context"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/conform/ledgerside"
	"testbox-imaging/internal/ledger"
)

// open opens a ledger that is closed at the end of the test.
func open(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(context.Background(), path, ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestConforms(t *testing.T) {
	ledgerside.Conforms(t, func(t *testing.T) *ledger.Ledger { return open(t, filepath.Join(t.TempDir(), "ledger.db")) })
}
