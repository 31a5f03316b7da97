package store

import "context"

type paceKey struct{}

// WithPace makes upkeep that is done with the context call wait again and again,
// between pieces of work of some milliseconds, so that wait can make it go slower.
// No lock is held then that a backup or a restore needs. Work ends with an error of
// wait. nil takes away what an outer context has.
func WithPace(ctx context.Context, wait func(context.Context) error) context.Context {
	return context.WithValue(ctx, paceKey{}, wait)
}

// pace waits as WithPace says.
func pace(ctx context.Context) error {
	if wait, _ := ctx.Value(paceKey{}).(func(context.Context) error); wait != nil {
		return wait(ctx)
	}
	return ctx.Err()
}
