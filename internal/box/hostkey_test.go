package box

import (
	"strings"
	"testing"
)

// What ssh-keygen made.
const someHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFyNxM12UGrtNi4LlpQjE4aTuEUk1v3fX6kOuTWQDCC/"

func TestParseHostKey(t *testing.T) {
	if k, err := ParseHostKey(someHostKey); err != nil || k.Kind != "ssh-ed25519" || len(k.Blob) != 51 || k.String() != someHostKey {
		t.Errorf("%+v, %v", k, err)
	}
	key := strings.TrimPrefix(someHostKey, "ssh-ed25519 ")
	for name, text := range map[string]string{
		"nothing":         "",
		"no key":          "ssh-ed25519",
		"a comment":       someHostKey + " root@box",
		"a second line":   someHostKey + "\n",
		"a line in it":    "ssh-ed25519 " + key[:8] + "\n" + key[8:],
		"another type":    "ssh-ed25518 " + key,
		"a marker":        "@revoked " + key,
		"a hostile one":   "ssh\x1b[2J " + key,
		"two blanks":      "ssh-ed25519  " + key,
		"no base64":       "ssh-ed25519 !" + key,
		"cut":             "ssh-ed25519 AAAA",
		"cut after it":    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
		"too long a type": "ssh-ed25519 /////3NzaC1lZDI1NTE5AAAAIFyN",
		"too long":        "ssh-ed25519 " + key + strings.Repeat("A", MaxHostKey),
	} {
		if k, err := ParseHostKey(text); err == nil {
			t.Errorf("%s: taken for %+v", name, k)
		}
	}
}

// FuzzHostKey: whatever is taken can stand in a line of a known_hosts file, and means
// the same there.
func FuzzHostKey(f *testing.F) {
	for _, s := range []string{someHostKey, "ssh-rsa AAAAB3NzaC1yc2E=", "a AAAAAWFh", "@a AAAAAWFh"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseHostKey(s)
		if err == nil && (k.String() != s || len(strings.Fields(s)) != 2 || strings.ContainsAny(s, "\n\r\x1b*,") || s[0] == '@') {
			t.Errorf("%q is taken for %q", s, k)
		}
	})
}
