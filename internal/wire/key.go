package wire

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// Fingerprint names the key of a server: the SHA-256 of its SubjectPublicKeyInfo.
// It stays the same when the certificate is made anew for the same key.
type Fingerprint [32]byte

// FingerprintOf returns the fingerprint of a certificate's key.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String returns 64 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint parses 64 lower-case hexadecimal digits.
func ParseFingerprint(s string) (f Fingerprint, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(f) || hex.EncodeToString(b) != s {
		return Fingerprint{}, fmt.Errorf("%.80q is no fingerprint of a key: 64 hexadecimal digits", s)
	}
	return Fingerprint(b), nil
}
