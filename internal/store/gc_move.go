package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// atOnce is how many packs are written before those that they replace are
// removed: each time, the whole index is looked through.
const atOnce = 8

// mover copies objects to new packs.
type mover struct {
	out    *openPack // nil: none is open
	moved  []place   // where the objects of out come from
	done   []GCPack  // all that is needed of them was copied
	copied int64     // bytes, since packs were removed last
	stored []byte    // what objects are read to,
	raw    []byte    // and unpacked to
}

// rewrite copies what is needed of some packs of a kind to new ones, and
// removes them when those are durable.
func (c *collector) rewrite(ctx context.Context, packs []GCPack) error {
	for _, p := range packs {
		whole, err := c.copyLive(ctx, p)
		if err != nil {
			c.abort()
			// What was copied before frees space, if that was what is short.
			return errors.Join(fmt.Errorf("rewrite %s: %w", p.Name, err), c.removeCopied(ctx))
		}
		if !whole {
			c.keep(p, "an object in it that is needed is damaged; `testbox store scrub` says what that costs")
			continue
		}
		c.done = append(c.done, p)
		if c.copied >= atOnce*c.s.cfg.PackSize {
			if err := c.removeCopied(ctx); err != nil {
				return err
			}
		}
	}
	return c.removeCopied(ctx)
}

// copyLive copies what is needed of a pack, and reports whether that is whole.
func (c *collector) copyLive(ctx context.Context, p GCPack) (whole bool, err error) {
	r := c.s.packReader(ctx, p.Name)
	entries, err := c.s.entries(ctx, r, p.Size)
	if err != nil {
		return false, err
	}
	whole = true
	for _, e := range c.plan.marks.live(p.number, entries) {
		err := c.copy(ctx, p, e)
		if errors.Is(err, object.ErrDamaged) {
			whole = false
		} else if err != nil {
			return false, err
		}
	}
	return whole, nil
}

// entries lists a pack: by its table, or what is whole of a damaged one.
func (s *loader) entries(ctx context.Context, r io.ReaderAt, size int64) ([]pack.Entry, error) {
	_, entries, err := pack.ReadTable(r, size)
	if errors.Is(err, object.ErrDamaged) {
		return s.salvage(ctx, r, size)
	}
	return entries, err
}

// copy copies an object. One that is not what its name says is damaged, and
// missing from now on.
func (c *collector) copy(ctx context.Context, p GCPack, e pack.Entry) error {
	n := int(e.End() - int64(e.Off))
	if cap(c.stored) < n {
		c.stored = make([]byte, n)
	}
	o, err := c.s.getAt(ctx, e.Key, loc(p.number, e), p.Name, c.stored)
	if err != nil {
		return err
	}
	if c.raw, err = o.Decode(c.raw); err != nil {
		c.s.foundBad(ctx, e.Key, place{p.number, e.Off}, err)
		return err
	}
	if c.out != nil && c.out.w.Size()+int64(n) > c.s.cfg.PackSize {
		if err := c.seal(); err != nil {
			return err
		}
	}
	return c.append(p, e.Off, o)
}

func (c *collector) append(p GCPack, off uint32, o object.Object) error {
	if c.out == nil {
		out, err := c.s.newPack(p.kind)
		if err != nil {
			return err
		}
		c.out = out
	}
	e, err := c.out.w.Append(o)
	if err != nil {
		return err
	}
	c.out.entries = append(c.out.entries, e)
	c.moved = append(c.moved, place{p.number, off})
	c.copied += e.End() - int64(e.Off)
	return nil
}

// seal makes the new pack durable, and lets the index point to it.
func (c *collector) seal() error {
	out := c.out
	if out == nil {
		return nil
	}
	if err := out.w.Seal(); err != nil {
		c.abort()
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	size := out.w.Size()
	c.s.packs[out.number] = packInfo{out.kind, size, uint32(out.w.Len())}
	for i, e := range out.entries {
		if c.s.isAt(e.Key, c.moved[i]) { // not found damaged meanwhile
			if err := c.s.index.Add(e.Key, loc(out.number, e)); err != nil {
				return err
			}
		}
	}
	c.s.dirty = true
	c.res.Written++
	c.res.Freed -= size
	c.out, c.moved = nil, nil
	return nil
}

// abort gives the new pack up. What was copied to it stays where it was.
func (c *collector) abort() {
	if c.out != nil {
		c.out.w.Abort()
		c.out, c.moved = nil, nil
	}
}

// removeCopied seals the new pack and removes those that are copied.
func (c *collector) removeCopied(ctx context.Context) error {
	err := c.seal()
	done := c.done
	c.done, c.copied = nil, 0
	return errors.Join(err, c.remove(ctx, done))
}
