package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"testbox-imaging/internal/durable"
)

// What ssh-keygen made, and what `ssh-keygen -lf` says of it.
const (
	ed25519Key   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFyNxM12UGrtNi4LlpQjE4aTuEUk1v3fX6kOuTWQDCC/ root@box11\n"
	ed25519Print = "SHA256:mNXF9XXrw1MFkpr4JSIhz/8kPhN5biVdVAn0Llnze+s"
	ecdsaKey     = "ecdsa-sha2-nistp256 " +
		"AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJ6z234GlFg5kZgS8A" +
		"2hStheaFQ6IECBqDVKWFRcoNNlIL8xDfnahHgv81Ptuz/nDsRwpZSxyIX9jRNJYsFK3gk="
	ecdsaPrint = "SHA256:Hg/4u2mDxvbXmp1F7AE5LYBPvcnoPFmQzDEZGqBoNHM"
)

func TestParseHostKey(t *testing.T) {
	for text, want := range map[string]string{ed25519Key: ed25519Print, ecdsaKey: ecdsaPrint} {
		if got, err := parseHostKey([]byte(text)); err != nil || fingerprint(got) != want || !strings.HasPrefix(text, got.String()) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	fields := strings.Fields(ed25519Key)
	for name, text := range map[string]string{
		"nothing":       "",
		"no key":        "ssh-ed25519\n",
		"a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
		"two lines":     ed25519Key + ecdsaKey,
		"another type":  strings.Replace(ed25519Key, "ssh-ed25519", "ssh-ed25518", 1),
		"a hostile one": "ssh\x1b[2J " + fields[1],
		"no base64":     "ssh-ed25519 !" + fields[1],
		"no padding":    strings.TrimRight(ecdsaKey, "="),
		"cut":           "ssh-ed25519 AAAA",
		"cut after it":  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
		"a long type":   "ssh-ed25519 /////3NzaC1lZDI1NTE5AAAAIFyN",
	} {
		if key, err := parseHostKey([]byte(text)); err == nil {
			t.Errorf("%s: taken for %+v", name, key)
		}
	}
}

func TestHostKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if keys, problems := hostKeys(durable.OS{}, dir); len(keys) != 0 || len(problems) != 1 {
		t.Errorf("of an empty folder: %v, %v", keys, problems)
	}
	if keys, problems := hostKeys(durable.OS{}, dir+"/none"); len(keys) != 0 || len(problems) != 1 {
		t.Errorf("of no folder: %v, %v", keys, problems)
	}
	write("ssh_host_ed25519_key", "secret")
	write("ssh_host_ed25519_key.pub", ed25519Key)
	write("ssh_host_ecdsa_key.pub", ecdsaKey)
	write("ssh_host_rsa_key.pub", "ssh-rsa "+strings.Repeat("A", maxHostKey))
	write("ssh_known_hosts", ed25519Key)
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "ssh_host_z_key.pub")); err != nil {
		t.Fatal(err)
	}
	keys, problems := hostKeys(durable.OS{}, dir)
	if len(keys) != 2 || fingerprint(keys[0]) != ecdsaPrint || fingerprint(keys[1]) != ed25519Print || len(problems) != 2 {
		t.Errorf("%v, %v", keys, problems)
	}
	for i := range 100 {
		write("ssh_host_"+strconv.Itoa(i)+"_key.pub", ed25519Key)
	}
	if keys, problems := hostKeys(durable.OS{}, dir); len(keys) != maxHostKeys || len(problems) != 1 {
		t.Errorf("of a hundred keys: %d, %v", len(keys), problems)
	}
}

func FuzzParseHostKey(f *testing.F) {
	for _, s := range []string{ed25519Key, ecdsaKey, "", "ssh-rsa AAAAB3NzaC1yc2E=", "a AAAAAWFh x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := parseHostKey(data); err == nil && !strings.HasPrefix(strings.Join(strings.Fields(string(data)), " "), key.String()) {
			t.Errorf("%q has the key %q", data, key)
		}
	})
}
