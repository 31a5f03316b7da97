package copier

import (
	"context"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// Verify compares a disk with an image, as Restore would have written it, and
// writes nothing. A difference is not an error. The receipt then lists the first
// differing ranges, in whole sectors, and its Verified is less than its Read.
// Unreadable sectors are listed in Bad and count as different. Bytes that the
// image does not have are not compared, and are counted in Unused. differs is
// called for each run that differs, from one goroutine at a time. The disk's
// first and last MiB come last. If differs is nil, it is not called. The stage in
// Progress is "compare".
func Verify(ctx context.Context, job Job, opt Options, differs func(image.Range)) (image.Receipt, error) {
	if err := job.checkSize(); err != nil {
		return image.Receipt{}, fmt.Errorf("%s: %w", job.Name, err)
	}
	d := newDisk(job, RestoreOptions{Options: opt}.withDefaults())
	err := d.err(d.verify(ctx, differs))
	return d.receipt, err
}

func (d *diskState) verify(ctx context.Context, differs func(image.Range)) error {
	c, err := newComparison(ctx, d)
	if err != nil {
		return err
	}
	c.exact, c.differs = true, differs
	start := time.Now()
	err = c.pass(ctx, newPieceRing(comparers+2*d.workers(), true, true, d.opt.Options), "compare", c.collect)
	if err == nil {
		err = c.stream.finish(&d.receipt)
	}
	if err == nil {
		err = c.compareEdges()
	}
	if err == nil {
		d.receipt.Changed = d.edges.changed
	}
	d.compared(c, time.Since(start))
	d.setFound(c.found)
	d.receipt.Bad = c.bad.ranges
	return err
}

// maxDifferLines is how many places DifferText names one by one.
const maxDifferLines = 20

// DifferText says for people where a disk and an image differ. Its first line says
// how much differs, and in which parts of the disk. The lines behind it name the
// first places. r is Verify's receipt. The caller has added every range that
// differs to t.
func DifferText(r *image.Receipt, t *usedmap.Tally) []string {
	if len(r.Differ) == 0 {
		return nil
	}
	places := words.Count(len(r.Differ), "place")
	if len(r.Differ) >= maxDiffer {
		places += " or more"
	}
	line := fmt.Sprintf("%s of %s differ, in %s", image.SizeText(t.Bytes), image.SizeText(r.Read), places)
	var parts []string
	for _, p := range t.Parts() {
		parts = append(parts, p.String())
	}
	if len(parts) > 0 {
		line += " (" + strings.Join(parts, "; ") + ")"
	}
	lines := []string{line}
	for _, d := range r.Differ[:min(len(r.Differ), maxDifferLines)] {
		lines = append(lines, fmt.Sprintf("bytes %d to %d differ", d.Off, d.End()-1))
	}
	if more := len(r.Differ) - maxDifferLines; more > 0 {
		lines = append(lines, "and "+words.Count(more, "more place"))
	}
	return lines
}
