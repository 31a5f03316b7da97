package copier

import (
	"context"
	"time"
)

// sound reads what the store has for what will be written, so that an image
// that is damaged costs no disk. An image in a file is checked by the caller;
// who wants no proof (VerifyNone) does not wait for this one either.
func (r *restore) sound(ctx context.Context) error {
	for _, d := range r.disks {
		if !d.stored() || r.opt.Verify == VerifyNone {
			continue
		}
		start := time.Now()
		if err := d.err(r.unpackAll(ctx, d)); err != nil {
			return err
		}
		d.stage("check", start)
	}
	return nil
}

// unpackAll unpacks what write will, and throws it away.
func (r *restore) unpackAll(ctx context.Context, d *disk) error {
	st, err := openStream(d, true)
	if err != nil {
		return err
	}
	defer st.close()
	w := &writing{stream: st}
	collect := func(s *slot) error {
		w.done += s.n
		w.opt.Progress("check "+w.Name, w.done, w.RawSize)
		return nil
	}
	return r.ring.run(ctx, st.produce, collect, each(d.workers(), w.unpack))
}
