package copier

import (
	"context"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/image"
)

// Gatherer is an Image that fetches pieces before the copier asks for them, for
// instance from several places at once.
type Gatherer interface {
	Image
	// Gather is called once for a disk, after the disk was compared and before its
	// body is written. An error ends the restore. From the return on, Open may begin
	// with another region than before, but always with the same. Several goroutines
	// call it then. end is called when the writing and its read-back have ended, with
	// success or not. It is not nil, unless there is an error.
	Gather(ctx context.Context, g Gathering) (end func(), err error)
}

// Gathering is what a Gatherer is told of the disk. It may be used until end is
// called, and by many goroutines at once.
type Gathering struct {
	Target     Target // it may be read until the caller of Restore closes it
	Rotational bool   // as in Job
	Cached     bool   // as in Job
	// ReadsBack says that an Arriving image is asked for what arrived.
	ReadsBack bool
	// Coming opens the list of the pieces of data, in the order in which the pass that
	// writes will take them. That is the order of Open. Each call opens a list of its own.
	Coming func(ctx context.Context) (*Coming, error)
}

// Arriving is an Image that compares each piece with its Sum when it comes, which may
// be long before the copier asks for it. Then the read-back need not make the Sum
// again, which is most of what a read-back costs the processors.
type Arriving interface {
	Image
	// Arrives is asked after Gather. If it is false, the image does not do so after all.
	Arrives() bool
	// Arrived gives the SumOf of the data of a piece that Bring has brought. It was made
	// right after the data was compared with Sum, of the same bytes. So the read-back
	// finds too what changed in memory since then. ok is false if the image does not know
	// it. Then the restore fails, since no sum at all would be that of zeros.
	Arrived(s image.Stored) (sum xxh3.Uint128, ok bool)
}

// beginGathering lets an image that is a Gatherer begin.
func (d *diskState) beginGathering(ctx context.Context) (end func(), err error) {
	g, ok := d.job.Image.(Gatherer)
	if !ok {
		return func() {}, nil
	}
	return g.Gather(ctx, Gathering{
		Target: d.job.Target, Rotational: d.job.Rotational, Cached: d.job.Cached, ReadsBack: d.opt.Verify != VerifyNone, Coming: d.coming,
	})
}

// Coming lists the pieces of data of an image. It is for one goroutine.
type Coming struct{ st *stream }

// coming lists the pieces as write takes them.
func (d *diskState) coming(ctx context.Context) (*Coming, error) {
	st, err := openStream(ctx, d)
	if err != nil {
		return nil, err
	}
	st.buffers = d.needsBytes
	return &Coming{st}, nil
}

// Next gives the next piece of data, and io.EOF itself after the last one. brought
// reports whether the pass that writes will bring the piece. Otherwise the disk was
// found to have all of its bytes.
func (c *Coming) Next() (p image.Piece, brought bool, err error) {
	for {
		p, err := c.st.part()
		if err != nil {
			return image.Piece{}, false, err
		}
		if p.content == image.Data {
			return p.piece, p.buffered, nil
		}
	}
}

// Close ends the list.
func (c *Coming) Close() { c.st.close() }
