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
// writes nothing. A disk that differs is no error: the receipt lists the first
// differing ranges, in sectors, and its Verified is less than its Read.
// Unreadable sectors are in Bad and count as different. What the image does not
// have is not looked at, and in Unused. The stage in Progress is "compare".
func Verify(ctx context.Context, job Job, opt Options) (image.Receipt, error) {
	opt = opt.withDefaults()
	opt.Unused = UnusedKeep
	if err := job.check(opt); err != nil {
		return image.Receipt{}, err
	}
	d := newDisk(&job, opt)
	err := d.err(d.verifyAll(ctx))
	return d.receipt, err
}

func (d *disk) verifyAll(ctx context.Context) error {
	l, err := newLook(d)
	if err != nil {
		return err
	}
	l.exact = true
	start := time.Now()
	err = l.pass(ctx, newRing(lookers+3*d.workers(), pieceSize, d.opt.Alloc), "compare", l.collect)
	if err == nil {
		err = l.finish(&d.receipt)
	}
	if err == nil {
		err = l.compareEdges()
	}
	if err == nil {
		d.receipt.Changed = d.edges.changed
	}
	d.stage("compare", start)
	d.take(l.found)
	d.receipt.Bad = l.bad.ranges
	return err
}

// maxDifferLines is how many places DifferText names one by one.
const maxDifferLines = 20

// DifferText says where a disk and an image differ, for people: how much, and
// in which parts, in one sentence; then the first places, each in a line. The
// receipt is Verify's, the tally of all that Options.Differs was told.
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
