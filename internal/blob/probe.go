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
// keep what it is told about the version that a blob may take the place of.
var ErrNoConditions = errors.New("the server does not keep conditions on writes")

const probePrefix = "probe/"

// IsProbe reports whether a blob is one that Probe left when its process was
// killed.
func IsProbe(name string) bool { return strings.HasPrefix(name, probePrefix) }

// probers is how many writes are made at once.
const probers = 6

// Probe tries whether a store keeps conditions, also when several processes
// write at once. It leaves nothing behind. What it finds is what was so just
// now: that two writes never meet worse is the server's promise.
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

// probeAtOnce writes over one version several times at once: one may succeed.
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

// probeWrite writes bytes that are nowhere else.
func probeWrite(ctx context.Context, s Store, name string, over Version) error {
	err := WriteOver(ctx, s, name, over, []byte(rand.Text()))
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrNoConditions, err)
	}
	return err
}
