package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// atOnce is the number of packs that are written before the packs that they
// replace are removed. Each removal goes through the whole index.
const atOnce = 8

// mover copies objects to new packs.
type mover struct {
	out    *openPack // nil if none is open
	moved  []place   // where the objects of out were copied from
	done   []GCPack  // packs whose needed objects were all copied
	copied int64     // bytes since packs were last removed
	stored []byte    // buffer for an object as it is stored
	raw    []byte    // buffer for it when it is unpacked
}

// rewrite copies the needed objects of some packs of one kind to new packs. The
// old packs are removed when the new ones are durable.
func (c *collector) rewrite(ctx context.Context, packs []GCPack) error {
	for _, p := range packs {
		whole, err := c.copyLive(ctx, p)
		if err != nil {
			c.abort()
			// Removing the packs that were copied before frees space, which may be what
			// is missing.
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

// copyLive copies the needed objects of a pack, and reports whether all of them
// are undamaged.
func (c *collector) copyLive(ctx context.Context, p GCPack) (whole bool, err error) {
	r := c.s.packReader(ctx, p.Name)
	entries, err := c.s.entries(ctx, r, p.Size)
	if err != nil {
		return false, err
	}
	whole = true
	for _, e := range c.plan.marks.live(p.number, entries) {
		if err := pace(ctx); err != nil {
			return false, err
		}
		err := c.copy(ctx, p, e)
		if errors.Is(err, object.ErrDamaged) {
			whole = false
		} else if err != nil {
			return false, err
		}
	}
	return whole, nil
}

// entries lists a pack's objects by its table. Of a damaged pack, it lists the
// undamaged objects.
func (s *loader) entries(ctx context.Context, r io.ReaderAt, size int64) ([]pack.Entry, error) {
	_, entries, err := pack.ReadTable(r, size)
	if errors.Is(err, object.ErrDamaged) {
		return s.salvage(ctx, r, size)
	}
	return entries, err
}

// copy copies an object. If the object does not match its name, it counts as
// damaged and missing from now on.
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

// seal makes the new pack durable, and makes the index point to it.
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

// abort drops the new pack. Its objects stay where they were.
func (c *collector) abort() {
	if c.out != nil {
		c.out.w.Abort()
		c.out, c.moved = nil, nil
	}
}

// removeCopied seals the new pack, and removes the packs that were copied.
func (c *collector) removeCopied(ctx context.Context) error {
	err := c.seal()
	done := c.done
	c.done, c.copied = nil, 0
	return errors.Join(err, c.remove(ctx, done))
}
