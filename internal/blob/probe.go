package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

// ErrNoConditions is matched by errors of Probe that say that a store does not
// support conditional writes, that is, ignores which version a blob may
// replace.
var ErrNoConditions = errors.New("the server does not keep conditions on writes")

const probePrefix = "probe/"

// IsProbe reports whether a blob is one that Probe left because its process was
// killed.
func IsProbe(name string) bool { return strings.HasPrefix(name, probePrefix) }

// probers is the number of concurrent writes.
const probers = 6

// Probe tests whether a store supports conditional writes, also when several
// processes write at once. It removes its blobs. A test cannot prove that two
// writes never collide, so in the end the server's promise counts.
func Probe(ctx context.Context, s Store) error {
	for range 2 {
		if err := probe(ctx, s, probePrefix+rand.Text()); err != nil {
			return err
		}
	}
	return nil
}

func probe(ctx context.Context, s Store, name string) error {
	defer s.Remove(context.WithoutCancel(ctx), name)
	if err := probeAtOnce(ctx, s, name, None); err != nil {
		return err
	}
	if err := probeWrite(ctx, s, name, None); err == nil {
		return fmt.Errorf("%w: a blob was created where one was", ErrNoConditions)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, err := s.Version(ctx, name)
	if err != nil {
		return err
	}
	if err := probeAtOnce(ctx, s, name, old); err != nil {
		return err
	}
	if err := probeWrite(ctx, s, name, old); err == nil {
		return fmt.Errorf("%w: a blob was written over a version that it did not have any more", ErrNoConditions)
	} else if !errors.Is(err, ErrChanged) {
		return err
	}
	return nil
}

// probeAtOnce writes over one version several times at once. Exactly one write
// may succeed.
func probeAtOnce(ctx context.Context, s Store, name string, over Version) error {
	errs := make([]error, probers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = probeWrite(ctx, s, name, over) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil || errors.Is(err, ErrOverwritten):
			won++
		case !errors.Is(err, fs.ErrExist) && !errors.Is(err, ErrChanged):
			return err
		}
	}
	if won != 1 {
		return fmt.Errorf("%w: of %d writes at once that only one may win, %d did", ErrNoConditions, probers, won)
	}
	return nil
}

// probeWrite writes bytes that no other write has.
func probeWrite(ctx context.Context, s Store, name string, over Version) error {
	err := WriteOver(ctx, s, name, over, []byte(rand.Text()))
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrNoConditions, err)
	}
	return err
}
