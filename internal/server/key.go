package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/wire"
)

// maxKey is how many bytes of a key or certificate are read at most.
const maxKey = 64 << 10

// loadKey reads a key and its certificate from NAME.key and NAME.crt. If there is
// no key, it makes one. A key is made once: boxes and admins know it by its
// fingerprint. A certificate is made anew whenever it is missing.
func loadKey(dir, name string) (tls.Certificate, wire.Fingerprint, error) {
	var none wire.Fingerprint
	fsys := durable.OS{}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, none, err
	}
	keyFile, certFile := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt")
	key, err := readKey(fsys, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(fsys, keyFile)
	}
	if err != nil {
		return tls.Certificate{}, none, fmt.Errorf("%s: %w", keyFile, err)
	}
	if err := keyIsSecret(keyFile); err != nil {
		return tls.Certificate{}, none, err
	}
	cert, err := readCertificate(fsys, certFile)
	if errors.Is(err, fs.ErrNotExist) {
		cert, err = makeCertificate(fsys, certFile, key)
	}
	if err == nil {
		err = belongTogether(key, cert, keyFile)
	}
	if err != nil {
		return tls.Certificate{}, none, fmt.Errorf("%s: %w", certFile, err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, wire.FingerprintOf(cert), nil
}

// KeyPrint is the fingerprint of the key "agents" or "api", from its certificate. It makes
// nothing.
func KeyPrint(dir, name string) (wire.Fingerprint, error) {
	cert, err := readCertificate(durable.OS{}, filepath.Join(dir, name+".crt"))
	if err != nil {
		return wire.Fingerprint{}, err
	}
	return wire.FingerprintOf(cert), nil
}

func keyIsSecret(keyFile string) error {
	if st, err := os.Stat(keyFile); err == nil && st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others than its owner, so it may be known to them; run: chmod 600 %s", keyFile, keyFile)
	}
	return nil
}

func belongTogether(key *ecdsa.PrivateKey, cert *x509.Certificate, keyFile string) error {
	if !key.PublicKey.Equal(cert.PublicKey) {
		return fmt.Errorf("the certificate is of another key than %s; remove it to have it made anew", keyFile)
	}
	return nil
}

func readKey(fsys durable.FS, path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(fsys, path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it has a key of another kind than ECDSA")
	}
	return ec, nil
}

func makeKey(fsys durable.FS, path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(fsys, path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func readCertificate(fsys durable.FS, path string) (*x509.Certificate, error) {
	der, err := readPEM(fsys, path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// makeCertificate makes a certificate that the key signs itself. Clients compare
// the key, so names and dates do not matter to them.
func makeCertificate(fsys durable.FS, path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	plan := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "testbox server"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no end
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, plan, plan, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(fsys, path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func readPEM(fsys durable.FS, path, kind string) ([]byte, error) {
	text, err := durable.ReadFile(fsys, path, maxKey)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("it has no %s in PEM form", kind)
	}
	return block.Bytes, nil
}

// AgentsKey is the fingerprint of the key for agents, as boot files name it.
func AgentsKey(cfg *Config) (string, error) {
	cert, err := readCertificate(durable.OS{}, filepath.Join(cfg.KeyDir(), "agents.crt"))
	if err != nil {
		return "", err
	}
	return wire.FingerprintOf(cert).String(), nil
}
