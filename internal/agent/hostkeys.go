package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// Limits of the files in the folder of an ssh server. A server has three keys.
const (
	maxHostKeys = 16
	maxHostKey  = 16 << 10 // bytes
)

// hostKeys reads the public host keys in the folder of an ssh server.
func hostKeys(fsys durable.FS, dir string) (keys []box.HostKey, problems []error) {
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
// in base64 and an optional comment (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
func parseHostKey(data []byte) (box.HostKey, error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	if len(rest) > 0 {
		return box.HostKey{}, errors.New("it has more than one line")
	}
	fields := strings.Fields(string(line))
	return box.ParseHostKey(strings.Join(fields[:min(len(fields), 2)], " "))
}

// fingerprint is the key's as `ssh-keygen -lf` prints it.
func fingerprint(k box.HostKey) string {
	sum := sha256.Sum256(k.Blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
