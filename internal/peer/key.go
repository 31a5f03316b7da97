// Package peer is both sides of what one box asks another one that restores the same image:
// which units it has, and the bytes of chunks. docs/protocol.md describes it, and package
// wire has the messages. Both sides are hostile to each other: a server sends only what it
// has proved, to who has a ticket for it, and a client believes nothing but hashes.
package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"testbox-imaging/internal/wire"
)

// NewKey makes the key of this start of the box. It is shown to clients and to peers. Nobody
// looks at the names and dates of its certificate.
func NewKey() (tls.Certificate, wire.Fingerprint, error) {
	fail := func(err error) (tls.Certificate, wire.Fingerprint, error) {
		return tls.Certificate{}, wire.Fingerprint{}, fmt.Errorf("make a key for this box: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	plan := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testbox"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, plan, plan, key.Public(), key)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, wire.FingerprintOf(cert), nil
}
