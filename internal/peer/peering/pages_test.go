package peering

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// asked is a server that counts questions, and has all pages but one.
type asked struct {
	chunk.Getter
	questions atomic.Int32
	lacks     object.Name
}

var errLacks = errors.New("it is not there")

func (g *asked) GetAll(_ context.Context, at []chunk.Place, _ []byte, got func(object.Object, error) error) error {
	g.questions.Add(1)
	for _, p := range at {
		o := object.Object{Key: p.Key(), Data: []byte{p.Key().Name[0]}}
		var err error
		if p.Key().Name == g.lacks {
			o, err = object.Object{}, errLacks
		}
		if err := got(o, err); err != nil {
			return err
		}
	}
	return nil
}

func (g *asked) CheckAll(context.Context, []chunk.Place, []byte, func(error) error) error {
	panic("not asked for")
}

// pagesOf is an image of n pages, each of another name.
func pagesOf(n int) *chunk.Image {
	im := &chunk.Image{Root: &chunk.Root{}}
	for i := range n {
		im.Root.Pages = append(im.Root.Pages, object.Name{byte(i + 1)})
	}
	return im
}

// TestPagesAtOnce: passes that need the same pages at the same time get each in its place.
func TestPagesAtOnce(t *testing.T) {
	const n = 20
	im := pagesOf(n)
	for range 5000 {
		var p pages
		var passes sync.WaitGroup
		for range 4 {
			passes.Go(func() {
				for i := range n {
					o, err := p.get(t.Context(), &asked{}, im.PagePlaces(i, pagesTogether), make([]byte, 0, 8))
					if err != nil || len(o.Data) != 1 || o.Data[0] != byte(i+1) {
						t.Errorf("page %d is %v, %v", i, o, err)
						return
					}
				}
			})
		}
		if passes.Wait(); t.Failed() {
			return
		}
	}
}

// TestPagesTogether: pages are asked for together. One that lacks does no harm to those before it.
func TestPagesTogether(t *testing.T) {
	const n = 20
	im := pagesOf(n)
	read := func(from *asked) (lack []int) {
		var p pages
		for i := range n {
			o, err := p.get(t.Context(), from, im.PagePlaces(i, pagesTogether), make([]byte, 0, 8))
			switch {
			case errors.Is(err, errLacks):
				lack = append(lack, i)
			case err != nil || len(o.Data) != 1 || o.Data[0] != byte(i+1):
				t.Fatalf("page %d is %v, %v", i, o, err)
			}
		}
		return lack
	}
	whole := &asked{}
	if lack := read(whole); len(lack) > 0 || whole.questions.Load() != 3 {
		t.Errorf("%v lack, after %d questions", lack, whole.questions.Load())
	}
	holed := &asked{lacks: object.Name{6}}
	if lack := read(holed); len(lack) != 1 || lack[0] != 5 || holed.questions.Load() != 4 {
		t.Errorf("%v lack, after %d questions", lack, holed.questions.Load())
	}
}
