package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/durable"
)

// Limits of the files in the folder of an ssh server. A server has three keys.
// The public part of an RSA key of 16384 bits has 3 kB.
const (
	maxHostKeys = 16
	maxHostKey  = 16 << 10 // bytes
	maxKeyType  = 64       // bytes
)

// hostKey is what the log has of a host key.
type hostKey struct {
	kind        string // "ssh-ed25519"
	fingerprint string // as `ssh-keygen -lf` prints it
}

func (k hostKey) String() string { return k.kind + ": " + k.fingerprint }

// hostKeys reads the public host keys in the folder of an ssh server.
func hostKeys(fsys durable.FS, dir string) (keys []hostKey, problems []error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, []error{err}
	}
	slices.Sort(names)
	for _, name := range names {
		if ok, _ := filepath.Match("ssh_host_*_key.pub", name); !ok {
			continue
		}
		if len(keys)+len(problems) == maxHostKeys {
			return keys, append(problems, fmt.Errorf("%s has more than %d", dir, maxHostKeys))
		}
		path := filepath.Join(dir, name)
		data, err := durable.ReadFile(fsys, path, maxHostKey)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		key, err := parseHostKey(data)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys)+len(problems) == 0 {
		problems = append(problems, fmt.Errorf("there are none in %s", dir))
	}
	return keys, problems
}

// parseHostKey reads a public key file. It is one line with the type, the key
// in base64 and an optional comment (sshd(8), AUTHORIZED_KEYS FILE FORMAT). The
// key begins with its type again, after four bytes of length (RFC 4253, 6.6).
func parseHostKey(data []byte) (hostKey, error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	if len(rest) > 0 {
		return hostKey{}, errors.New("it has more than one line")
	}
	fields := strings.Fields(string(line))
	if len(fields) < 2 {
		return hostKey{}, errors.New("it is no public key: a type and a key in base64 are missing")
	}
	kind := fields[0]
	if len(kind) > maxKeyType || strings.Trim(kind, keyTypeChars) != "" {
		return hostKey{}, fmt.Errorf("%.*q is no type of a key", maxKeyType, kind)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return hostKey{}, fmt.Errorf("the key is no base64: %w", err)
	}
	if len(blob) < 4 {
		return hostKey{}, errors.New("the key is cut")
	}
	n := int64(binary.BigEndian.Uint32(blob))
	if n > int64(len(blob)-4) || string(blob[4:4+n]) != kind {
		return hostKey{}, fmt.Errorf("the key is not of the type %s that stands before it", kind)
	}
	if int64(len(blob)) == 4+n {
		return hostKey{}, errors.New("the key is cut after its type")
	}
	sum := sha256.Sum256(blob)
	return hostKey{kind, "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])}, nil
}

const keyTypeChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.@"
