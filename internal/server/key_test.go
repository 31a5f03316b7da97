package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	_, first, err := loadKey(dir, "agents")
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "agents.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", st.Mode(), err)
	}
	if err := os.Remove(filepath.Join(dir, "agents.crt")); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"a new certificate", "the same certificate"} {
		if _, again, err := loadKey(dir, "agents"); err != nil || again != first {
			t.Errorf("with %s the fingerprint is %v, not %v: %v", what, again, first, err)
		}
	}
	if _, other, err := loadKey(dir, "api"); err != nil || other == first {
		t.Errorf("another key has the fingerprint %v, %v", other, err)
	}
}

func TestKeyRefused(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"chmod 600": func(dir string) error { return os.Chmod(filepath.Join(dir, "a.key"), 0o640) },
		"a.key: it has no PRIVATE KEY": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "a.key"), []byte("no key"), 0o600)
		},
		"a.crt: it has no CERTIFICATE": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "a.crt"), []byte("no certificate"), 0o600)
		},
		"of another key": func(dir string) error { return os.Rename(filepath.Join(dir, "b.crt"), filepath.Join(dir, "a.crt")) },
	} {
		dir := t.TempDir()
		for _, name := range []string{"a", "b"} {
			if _, _, err := loadKey(dir, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, _, err := loadKey(dir, "a"); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the error is %v, and should have %q", err, what)
		}
	}
}
