package chunk

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/image"
)

// Check reads all objects of an image, and checks each against its name. told
// may be nil. It is called with the number of bytes of data checked so far.
func (im *Image) Check(ctx context.Context, workers int, told func(done int64)) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(max(workers, 1) + 1)
	checked := make(chan int64, 64)
	buffers := make(chan []byte, max(workers, 1))
	for range cap(buffers) {
		buffers <- make([]byte, image.PieceSize)
	}
	g.Go(func() error { return im.checkPieces(inner, g, buffers, checked) })
	end := make(chan struct{})
	go func() {
		defer close(end)
		done := int64(0)
		for n := range checked {
			if done += n; told != nil {
				told(done)
			}
		}
	}()
	err := g.Wait()
	close(checked)
	<-end
	return err
}

// checkPieces checks the pieces of data in goroutines, as many at a time as
// there are buffers.
func (im *Image) checkPieces(ctx context.Context, g *errgroup.Group, buffers chan []byte, checked chan<- int64) error {
	r := im.Reader(ctx)
	for {
		p, err := r.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if p.Content != image.Data {
			continue
		}
		var b []byte
		select {
		case b = <-buffers:
		case <-ctx.Done():
			return ctx.Err()
		}
		g.Go(func() error {
			defer func() { buffers <- b }()
			if err := p.Decode(b[:p.Len]); err != nil {
				return err
			}
			checked <- p.Len
			return nil
		})
	}
}
