package loaders

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"testbox-imaging/internal/durable"
)

// TrustFile is a file beside the loaders, in PEM, with the certificates of a site whose firmware has keys of the
// site's own. Where it is, the loaders are the site's own too: no build replaces them.
const TrustFile = "uefi-trust.pem"

const (
	MaxTrust = 1 << 20 // bytes of TrustFile
	maxOwn   = 64      // certificates
)

// Own reads the certificates of a site. It returns none and no error if there is no such file.
func Own(fsys durable.FS, dir string) ([]*x509.Certificate, error) {
	text, err := durable.ReadFile(fsys, filepath.Join(dir, TrustFile), MaxTrust)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []*x509.Certificate
	if err == nil {
		all, err = ParseOwn(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", TrustFile, err)
	}
	return all, nil
}

// ParseOwn reads the text of such a file.
func ParseOwn(text []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		switch {
		case block == nil && len(bytes.TrimSpace(text)) > 0:
			return nil, errors.New("it has something that is no certificate in PEM")
		case block == nil && len(all) == 0:
			return nil, errors.New("it has no certificate")
		case block == nil:
			return all, nil
		case block.Type != "CERTIFICATE" || len(all) == maxOwn:
			return nil, fmt.Errorf("it has a %.40q where at most %d certificates belong", block.Type, maxOwn)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
}

// Read checks the pair of a kind that is in a folder. The error is fs.ErrNotExist if shim is not there, as where
// nothing was built for this kind.
func Read(fsys durable.FS, dir string, k Kind) (*Pair, error) {
	own, err := Own(fsys, dir)
	if err != nil {
		return nil, err
	}
	shim, err := durable.ReadFile(fsys, filepath.Join(dir, k.Shim), MaxSize)
	if err != nil {
		return nil, err
	}
	grub, err := durable.ReadFile(fsys, filepath.Join(dir, k.GRUB), MaxSize)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read, and shim would wait for a key: %v", k.GRUB, err) // not %w: shim is there
	}
	return Check(k, shim, grub, own)
}

// Publish puts a pair into a folder that Check has found right. Each file gets its name only when it is durable.
// Between the two there is a moment in which one is new and one is old. The order is such that these fit too. If
// neither order does that, shim goes first, because a machine that finds none starts its own disk.
func Publish(fsys durable.FS, dir string, k Kind, shim, grub []byte) (changed bool, err error) {
	own, err := Own(fsys, dir)
	if err != nil {
		return false, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string, data []byte) error { return durable.WriteFile(fsys, path(name), data, 0o644) }
	oldShim, shimErr := durable.ReadFile(fsys, path(k.Shim), MaxSize)
	oldGRUB, grubErr := durable.ReadFile(fsys, path(k.GRUB), MaxSize)
	if shimErr == nil && grubErr == nil && bytes.Equal(oldShim, shim) && bytes.Equal(oldGRUB, grub) {
		return false, nil
	}
	if errors.Is(shimErr, fs.ErrNotExist) {
		return true, firstError(func() error { return put(k.GRUB, grub) }, func() error { return put(k.Shim, shim) })
	}
	if _, err := Check(k, oldShim, grub, own); err == nil {
		return true, firstError(func() error { return put(k.GRUB, grub) }, func() error { return put(k.Shim, shim) })
	}
	if _, err := Check(k, shim, oldGRUB, own); err == nil {
		return true, firstError(func() error { return put(k.Shim, shim) }, func() error { return put(k.GRUB, grub) })
	}
	return true, firstError(func() error { return durable.Remove(fsys, path(k.Shim)) },
		func() error { return put(k.GRUB, grub) }, func() error { return put(k.Shim, shim) })
}

// checked is what Wrong has found before.
var checked = struct {
	sync.Mutex
	folders map[string]finding
}{folders: map[string]finding{}}

type finding struct {
	state string // of the files
	err   error
}

// maxChecked bounds the folders of which something is remembered.
const maxChecked = 16

// Wrong says which pairs in a folder are there and not right. Whoever serves them without a check sends machines to a
// shim that waits for a key. Files that did not change since the last call are not read again.
func Wrong(dir string) error {
	names := []string{TrustFile}
	for _, k := range Kinds {
		names = append(names, k.Shim, k.GRUB)
	}
	state := ""
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil {
			s, _ := st.Sys().(*syscall.Stat_t)
			state += fmt.Sprint(name, st.Size(), st.ModTime().UnixNano(), s.Dev, s.Ino, s.Ctim, " ")
		}
	}
	checked.Lock()
	defer checked.Unlock()
	if f, ok := checked.folders[dir]; ok && f.state == state {
		return f.err
	}
	var all []error
	for _, k := range Kinds {
		if _, err := Read(durable.OS{}, dir, k); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, fmt.Errorf("the loaders for UEFI machines (%s) in %s: %w", k.Arch, dir, err))
		}
	}
	if len(checked.folders) >= maxChecked {
		clear(checked.folders)
	}
	checked.folders[dir] = finding{state, errors.Join(all...)}
	return checked.folders[dir].err
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
