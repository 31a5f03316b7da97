package maintenance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultCache is the default folder for downloads. It is testbox in the user's
// cache folder (os.UserCacheDir). For root without $XDG_CACHE_HOME it is
// /var/cache/testbox. Nothing depends on its contents.
func DefaultCache() (string, error) {
	if os.Getenv("XDG_CACHE_HOME") == "" && os.Geteuid() == 0 {
		return "/var/cache/testbox", nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "testbox"), err
}

// cache is the folder of downloads. One build at a time uses it.
type cache struct {
	dir  string
	lock *os.File
}

// workPrefix begins the names of folders that exist only during a build.
const workPrefix = "work-"

// openCache makes the folder and waits until no other build uses it.
func openCache(ctx context.Context, dir string) (*cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, "debs"), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, lock, dir); err != nil {
		return nil, err
	}
	c := &cache{dir, lock}
	c.sweep()
	return c, nil
}

// waitLock locks f as soon as no other build has it locked. If ctx ends before
// that, it closes f. dir is what the lock protects.
func waitLock(ctx context.Context, f *os.File, dir string) error {
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			f.Close()
			return fmt.Errorf("another build uses %s: %w", dir, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// sweep removes the work folders that killed builds left behind.
func (c *cache) sweep() {
	left, _ := filepath.Glob(filepath.Join(c.dir, workPrefix+"*"))
	for _, l := range left {
		os.RemoveAll(l)
	}
}

func (c *cache) close() {
	c.sweep()
	c.lock.Close()
}

// work makes a folder that is removed after the build. Apt's own user may enter
// it.
func (c *cache) work() (string, error) {
	dir, err := os.MkdirTemp(c.dir, workPrefix)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// path is the path that the package's file has in the cache.
func (c *cache) path(p pkg) string {
	return filepath.Join(c.dir, "debs", fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.SHA256))
}

// has reports whether the package is in the cache and has the right checksum.
func (c *cache) has(p pkg) bool {
	sum, err := fileSHA256(c.path(p))
	return err == nil && sum == p.SHA256
}

// keep moves a downloaded file into the cache, if its checksum is that of the
// index.
func (c *cache) keep(p pkg, downloaded string) error {
	sum, err := fileSHA256(downloaded)
	if err != nil {
		return err
	}
	if sum != p.SHA256 {
		return fmt.Errorf("package %s has SHA-256 %s, apt's index says %s", p.Name, sum, p.SHA256)
	}
	return os.Rename(downloaded, c.path(p))
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
