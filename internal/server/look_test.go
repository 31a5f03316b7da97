package server

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/testenv"
)

// tree has all files of a folder, with their times and owners.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			fmt.Fprintf(&b, "%s %v %d %v\n", path, info.Mode(), info.Size(), info.ModTime())
		} else {
			fmt.Fprintf(&b, "%s %v\n", path, info.Mode())
		}
		return err
	}))
	return b.String()
}

func (p Parts) ready(a box.Action) error { return p.Place.Ready(a, p.Config.Served()) }

// TestLook: the look says what would keep a server from working, before its first start,
// beside it and after its end, and changes nothing.
func TestLook(t *testing.T) {
	p := newParts(t)
	cfg := p.Config
	runs := false
	tree := func() string {
		all := tree(t, cfg.State)
		if !runs {
			return all
		}
		// A server that runs writes to its ledger at any time.
		return strings.Join(slices.DeleteFunc(strings.Split(all, "\n"), func(s string) bool { return strings.Contains(s, "/ledger.db") }), "\n")
	}
	look := func(want string) {
		t.Helper()
		before := tree()
		all := Look(t.Context(), cfg, p.ready)
		err := Wrong(all)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q is wanted, and the error is %v", want, err)
		}
		if after := tree(); after != before {
			t.Errorf("the state folder was\n%s\nand is\n%s", before, after)
		}
	}
	look("")
	cfg.Hooks = []Hook{{"https://ci.example/x", secretFile(t, hookSecret)}}
	look("")
	cfg.Hooks[0].SecretFile = secretFile(t, "whsec_")
	look("web hook https://ci.example/x: ")
	cfg.Hooks[0].SecretFile = "/nonexistent/secret"
	look("web hook https://ci.example/x: ")
	cfg.Hooks = nil
	_, stop := run(t, p)
	runs = true
	look("")
	must(t, stop())
	runs = false
	look("")

	spoil := func(path, want string, f func() error) {
		t.Helper()
		away := path + ".away"
		must(t, os.Rename(path, away))
		must(t, f())
		look(want)
		must(t, os.RemoveAll(path))
		must(t, os.Rename(away, path))
	}
	write := func(path, text string, mode fs.FileMode) func() error {
		return func() error { return os.WriteFile(path, []byte(text), mode) }
	}
	nothing := func() error { return nil }
	key := filepath.Join(cfg.KeyDir(), "agents.key")
	cert := filepath.Join(cfg.KeyDir(), "agents.crt")
	other, err := os.ReadFile(filepath.Join(cfg.KeyDir(), "api.crt"))
	must(t, err)
	spoil(cfg.LedgerFile(), "testbox server recover", write(cfg.LedgerFile(), "this is no database, "+strings.Repeat("x", 200), 0o600))
	spoil(cfg.LedgerFile(), "", nothing)
	spoil(key, "PRIVATE KEY", write(key, "x", 0o600))
	spoil(cert, "another key", write(cert, string(other), 0o644))
	spoil(cert, "", nothing)
	spoil(cert, "ended on 2001-02-03", func() error { return ended(key, cert) })
	spoil(cfg.BoxesDir(), "boxes' logs", nothing)
	spoil(cfg.StoreDir(), "server init", nothing)
	spoil(filepath.Join(p.Place.Boot.TFTP(), bootcfg.MaintDir), "boot files", nothing)
	must(t, os.Chmod(key, 0o644))
	look("chmod 600")
	must(t, os.Chmod(key, 0o600))
	look("")
	secret := filepath.Join(t.TempDir(), "secret")
	cfg.Power = map[string]PowerCommand{"bmc": {Command: "true", EnvFiles: map[string]string{"A": secret}}}
	look("power command bmc: the variable A of the power command has no value")
	must(t, os.WriteFile(secret, []byte("x"), 0o600))
	look("")
	cfg.Power["pdu"] = PowerCommand{Command: "no-such-program"}
	look("power command pdu: there is no program no-such-program")
	delete(cfg.Power, "pdu")

	testenv.Root(t)
	must(t, os.Chown(cfg.State, 12345, 12345)) // as if it were that of the user of the server
	look("folder " + cfg.BoxesDir() + ": user 12345, to whom the state folder belongs, cannot write there")
	look("user 12345, as whom the server runs, cannot read " + secret)
	gone := *cfg
	gone.State += "x"
	if err := Wrong(Look(t.Context(), &gone, p.ready)); err == nil || !strings.Contains(err.Error(), "server init") {
		t.Errorf("without a state folder: %v", err)
	}
}

// ended makes a certificate of a key that does not count any more.
func ended(keyFile, certFile string) error {
	key, err := readKey(durable.OS{}, keyFile)
	if err != nil {
		return err
	}
	plan := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Unix(0, 0), NotAfter: time.Date(2001, 2, 3, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, plan, plan, key.Public(), key)
	if err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
