package box

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Limits of the ssh host keys of a box. The public part of an RSA key of 16384 bits
// has 3 kB.
const (
	MaxHostKeys = 8
	MaxHostKey  = 8 << 10 // bytes, in base64
	maxKeyType  = 64      // bytes
)

// HostKey is the public part of a key of an ssh server.
type HostKey struct {
	Kind string // "ssh-ed25519"
	Blob []byte // the key
}

// String is the key as a known_hosts file has it behind the name of the host.
func (k HostKey) String() string { return k.Kind + " " + base64.StdEncoding.EncodeToString(k.Blob) }

// ParseHostKey parses the type of a key and the key in base64, with one blank between
// them. The key begins with its type again, after four bytes of length (RFC 4253, 6.6).
// What it returns is safe to be a part of a line of a known_hosts file.
func ParseHostKey(s string) (HostKey, error) {
	kind, text, ok := strings.Cut(s, " ")
	if !ok {
		return HostKey{}, errors.New("it is no public key: a type and a key in base64 are missing")
	}
	if kind == "" || len(kind) > maxKeyType || strings.Trim(kind, keyTypeChars) != "" || kind[0] == '@' {
		return HostKey{}, fmt.Errorf("%.*q is no type of a key", maxKeyType, kind)
	}
	if len(text) > MaxHostKey {
		return HostKey{}, fmt.Errorf("the key has more than %d bytes", MaxHostKey)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which the decoder passes over
		return HostKey{}, errors.New("the key is no base64")
	}
	if len(blob) < 4 {
		return HostKey{}, errors.New("the key is cut")
	}
	n := int64(binary.BigEndian.Uint32(blob))
	if n > int64(len(blob)-4) || string(blob[4:4+n]) != kind {
		return HostKey{}, fmt.Errorf("the key is not of the type %s that stands before it", kind)
	}
	if int64(len(blob)) == 4+n {
		return HostKey{}, errors.New("the key is cut after its type")
	}
	return HostKey{kind, blob}, nil
}

const keyTypeChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.@"
