package peering

import (
	"context"
	"errors"
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// asked is a server that counts questions, and has all pages but one.
type asked struct {
	chunk.Getter
	questions int
	lacks     object.Name
}

var errLacks = errors.New("it is not there")

func (g *asked) GetAll(_ context.Context, at []chunk.Place, _ []byte, got func(object.Object, error) error) error {
	g.questions++
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

// TestPagesTogether: pages are asked for together. One that lacks does no harm to those before it.
func TestPagesTogether(t *testing.T) {
	const n = 20
	im := &chunk.Image{Root: &chunk.Root{}}
	for i := range n {
		im.Root.Pages = append(im.Root.Pages, object.Name{byte(i + 1)})
	}
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
	if lack := read(whole); len(lack) > 0 || whole.questions != 3 {
		t.Errorf("%v lack, after %d questions", lack, whole.questions)
	}
	holed := &asked{lacks: object.Name{6}}
	if lack := read(holed); len(lack) != 1 || lack[0] != 5 || holed.questions != 4 {
		t.Errorf("%v lack, after %d questions", lack, holed.questions)
	}
}
