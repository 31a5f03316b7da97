package chunk

import (
	"context"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Stretch is a run of bytes of an image, for a drawing of its disk.
type Stretch struct {
	image.Range
	Content image.Content
	Changed bool // the image has bytes here, and the earlier one has others, or none
	Unread  bool // nothing was read about this place, so Content means nothing; Changed says that the pages differ
}

// Outline calls found for the whole disk of an image, in its order. base is an
// earlier image of the disk, or nil. It reads pages and no chunks, so that it costs
// little. Therefore a chunk counts as changed as a whole: some bytes of it may be
// the same. more is asked before each page is read. When it says no, what is left
// of the disk is told as unread.
func Outline(ctx context.Context, im, base *Image, more func() bool, found func(Stretch)) error {
	o := outliner{ctx: ctx, more: more, found: found}
	for i := range im.Root.Pages {
		if err := o.region(im, base, i); err != nil {
			return err
		}
	}
	return nil
}

type outliner struct {
	ctx   context.Context
	more  func() bool
	found func(Stretch)
	now   lastPage // of the image
	was   lastPage // of the earlier one
}

// lastPage keeps the page that was read last, since many regions of a disk that
// is nearly empty have the same page.
type lastPage struct {
	name object.Name
	page *Page
}

func (o *outliner) read(im *Image, i int, last *lastPage) (*Page, error) {
	if name := im.Root.Pages[i]; last.page == nil || last.name != name {
		if !o.more() {
			return nil, nil
		}
		p, err := im.Page(o.ctx, i)
		if err != nil {
			return nil, err
		}
		*last = lastPage{name, p}
	}
	return last.page, fits(last.page.Len(), im.Root.Region(i))
}

func (o *outliner) region(im, base *Image, i int) error {
	region := im.Root.Region(i)
	differs := base != nil && (i >= len(base.Root.Pages) || base.Root.Pages[i] != im.Root.Pages[i] || base.Root.Region(i) != region)
	now, err := o.read(im, i, &o.now)
	if err != nil {
		return err
	}
	var was *Page
	if now != nil && differs && i < len(base.Root.Pages) {
		if was, err = o.read(base, i, &o.was); err != nil {
			return err
		}
		if was == nil {
			now = nil
		}
	}
	if now == nil {
		o.found(Stretch{Range: region, Unread: true, Changed: differs})
		return nil
	}
	if !differs {
		was = now
	}
	as, bs := pageRuns(now, region.Len), pageRuns(was, region.Len)
	for at := int64(0); at < region.Len; {
		a, b := as[0], bs[0]
		n := min(a.Off+a.Len, b.Off+b.Len) - at
		o.found(Stretch{Range: image.Range{Off: region.Off + at, Len: n}, Content: a.Content,
			Changed: differs && a.Content != image.Unused && !a.same(b)})
		at += n
		as, bs = passed(as, at), passed(bs, at)
	}
	return nil
}

// same reports whether two runs are known to have the same bytes where they overlap.
func (r run) same(o run) bool {
	return r.Content == o.Content && (r.Content != image.Data || r.ref == o.ref && r.shift == o.shift)
}

// pageRuns returns the runs of a page, up to size. What the page does not have is
// unused, and so is all if there is no page.
func pageRuns(p *Page, size int64) (out []run) {
	at := int64(0)
	if p != nil {
		for sp := range p.Spans() {
			r := run{Span: sp}
			if sp.Content == image.Data {
				r.ref, r.shift = p.Chunks[sp.Chunk], int64(sp.At)-sp.Off
			}
			out = append(out, r)
			at = sp.Off + sp.Len
		}
	}
	if at < size {
		out = append(out, run{Span: Span{Off: at, Len: size - at, Content: image.Unused}})
	}
	return out
}
