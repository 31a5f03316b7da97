package wire

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
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

// ErrKey is matched by the error for a server, or a peer, that has another key than it should.
var ErrKey = errors.New("another key than this box was told")

// Pinned checks that the other side of a connection has a key. The dates and names in its
// certificate do not matter. who is "the server" or "a peer".
func Pinned(who string, key Fingerprint) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("%s has %w", who, ErrKey)
		}
		if is := FingerprintOf(s.PeerCertificates[0]); subtle.ConstantTimeCompare(is[:], key[:]) != 1 {
			return fmt.Errorf("%s has %w: %v, and not %v", who, ErrKey, is, key)
		}
		return nil
	}
}
