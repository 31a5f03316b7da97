// Package chart draws disks and figures as SVG, for pages whose policy allows no
// styles in attributes. All places are given in percent of the width, so that a
// drawing fits every screen while its texts keep their size. Colours come from the
// classes in the stylesheet. Every drawing has a title and a description; what it
// shows must be on the page as text too. All texts are hostile: a box can have
// chosen them.
package chart

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// svg collects the text of a drawing.
type svg struct {
	b strings.Builder
}

// begin begins a drawing of a fixed height. id is a name that no other drawing of
// the page has, made of letters and digits.
func (s *svg) begin(id, class string, height int, title, about string) {
	id = html.EscapeString(id)
	fmt.Fprintf(&s.b, `<svg class="chart %s" width="100%%" height="%d" role="img" aria-labelledby="%s-t %s-d">`, class, height, id, id)
	fmt.Fprintf(&s.b, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, id, text(title, 200), id, text(about, 1000))
}

func (s *svg) end() template.HTML {
	s.b.WriteString("</svg>")
	return template.HTML(s.b.String()) // all foreign text went through text
}

// text escapes a text, and cuts it off behind so many bytes.
func text(t string, most int) string {
	t = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError || r == 0xfffe || r == 0xffff {
			return ' '
		}
		return r
	}, t)
	if len(t) > most {
		t = strings.ToValidUTF8(t[:most], "") + "…"
	}
	return html.EscapeString(t)
}

// num writes a number of pixels or percents.
func num(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		x = 0
	}
	return strconv.FormatFloat(math.Round(min(max(x, -1e6), 1e6)*1000)/1000, 'f', -1, 64)
}

// rect draws a rectangle: x and w in percent, y and h in pixels.
func (s *svg) rect(class string, x, y, w, h float64) {
	if w > 0 && h > 0 {
		fmt.Fprintf(&s.b, `<rect class="%s" x="%s%%" y="%s" width="%s%%" height="%s"/>`, class, num(x), num(y), num(w), num(h))
	}
}

// Disk is a disk for drawing: its parts, and below them how much of each piece is
// used, in doubt and changed.
type Disk struct {
	ID    string // as svg.begin wants
	Name  string
	About string // all that is seen, in sentences
	Size  int64  // bytes
	Parts []Part
	Cells []Cell
}

// Part is a part of a disk that has a place.
type Part struct {
	Name  string // in the first line
	Note  string // in the second line
	Off   int64  // bytes
	Len   int64
	Doubt bool
}

// Cell is a piece of a disk. Each figure is a share of the piece, from 0 to 1.
type Cell struct {
	Used, Doubt, Changed, Unread float64
}

// What of a disk is drawn at most.
const (
	maxParts = 128
	maxCells = 1024
)

// The rows of a drawing of a disk, in pixels.
const (
	partsHigh   = 40
	usedTop     = partsHigh + 4
	usedHigh    = 32
	changedTop  = usedTop + usedHigh + 3
	changedHigh = 10
)

// SVG draws the disk.
func (d *Disk) SVG() template.HTML {
	var s svg
	s.begin(d.ID, "chart-disk", changedTop+changedHigh, d.Name, d.About)
	id := html.EscapeString(d.ID)
	fmt.Fprintf(&s.b, `<defs><pattern id="%s-h" patternUnits="userSpaceOnUse" width="6" height="6">`+
		`<path class="chart-hatch" d="M-1 1l2 -2M0 6l6 -6M5 7l2 -2"/></pattern></defs>`, id)
	s.rect("chart-none", 0, 0, 100, partsHigh)
	size := float64(d.Size)
	for _, p := range d.Parts[:min(len(d.Parts), maxParts)] {
		if d.Size <= 0 || p.Off < 0 || p.Len <= 0 || p.Off >= d.Size || p.Len > d.Size-p.Off {
			continue
		}
		class := "chart-part"
		if p.Doubt {
			class += " chart-part-doubt"
		}
		x, w := float64(p.Off)/size*100, float64(p.Len)/size*100
		fmt.Fprintf(&s.b,
			`<svg x="%s%%" y="0" width="%s%%" height="%d"><title>%s, %s</title><rect class="%s" x="0" y="0" width="100%%" height="%d"/>`,
			num(x), num(w), partsHigh, text(p.Name, 80), text(p.Note, 120), class, partsHigh)
		if w >= 2 { // HTML is cut off with dots where there is no more room, and SVG is not
			fmt.Fprintf(&s.b, `<foreignObject x="0" y="0" width="100%%" height="%d"><div class="chart-label"><div>%s</div><div>%s</div></div>`+
				`</foreignObject>`, partsHigh, text(p.Name, 80), text(p.Note, 80))
		}
		s.b.WriteString(`</svg>`)
	}
	s.rect("chart-none", 0, usedTop, 100, usedHigh)
	s.rect("chart-none", 0, changedTop, 100, changedHigh)
	cells := d.Cells[:min(len(d.Cells), maxCells)]
	wide := 100 / float64(max(len(cells), 1))
	s.runs(cells, wide, func(c Cell) float64 { return c.Used }, func(x, w, level float64) {
		s.rect("chart-used", x, usedTop+usedHigh*(1-level), w, usedHigh*level)
	})
	s.runs(cells, wide, func(c Cell) float64 { return c.Doubt }, func(x, w, level float64) {
		h := usedHigh * level
		s.rect("chart-doubt", x, usedTop+usedHigh-h, w, h)
		fmt.Fprintf(&s.b, `<rect x="%s%%" y="%s" width="%s%%" height="%s" fill="url(#%s-h)"/>`, num(x), num(usedTop+usedHigh-h), num(w),
			num(h), id)
	})
	s.runs(cells, wide, func(c Cell) float64 { return c.Unread }, func(x, w, level float64) {
		s.rect("chart-unread", x, usedTop, w, usedHigh)
	})
	s.runs(cells, wide, func(c Cell) float64 { return c.Changed }, func(x, w, level float64) {
		s.rect("chart-changed", x, changedTop, w, changedHigh)
	})
	return s.end()
}

// levels are how many heights there are. Few of them let neighbours be drawn as one.
const levels = 16

// runs draws neighbouring cells with the same level as one. A share that is not zero
// has the lowest level at least, so that it is seen.
func (s *svg) runs(cells []Cell, wide float64, share func(Cell) float64, draw func(x, w, level float64)) {
	level := func(i int) int {
		v := share(cells[i])
		if !(v > 0) {
			return 0
		}
		return int(math.Ceil(min(v, 1) * levels))
	}
	for i := 0; i < len(cells); {
		n := i + 1
		for n < len(cells) && level(n) == level(i) {
			n++
		}
		if l := level(i); l > 0 {
			draw(float64(i)*wide, float64(n-i)*wide, float64(l)/levels)
		}
		i = n
	}
}

// Figures are figures over time.
type Figures struct {
	ID     string // as svg.begin wants
	Title  string
	About  string // what is seen, in sentences
	Series []Series
	Unit   func(float64) string // writes a figure
	Bytes  bool                 // the figures are bytes, so that powers of 1024 are round
}

// Series are figures of one kind.
type Series struct {
	Name   string
	Bars   bool // drawn as bars and not as a line
	Points []Point
}

// Point is a figure at a time.
type Point struct {
	At    time.Time
	Value float64
	Note  string // for people, beside time and figure
}

// maxPoints is how many of the latest points of a series are drawn.
const maxPoints = 200

// The rows of a drawing of figures, in pixels.
const (
	figuresTop  = 18
	figuresHigh = 130
	figuresLow  = figuresTop + figuresHigh
)

// SVG draws the figures. Each point has its own title.
func (f *Figures) SVG() template.HTML {
	var s svg
	s.begin(f.ID, "chart-figures", figuresLow+20, f.Title, f.About)
	first, last, most := f.bounds()
	top := nice(most, f.Bytes)
	for i := range 3 {
		v := top * float64(i) / 2
		y := num(figuresLow - figuresHigh*float64(i)/2)
		fmt.Fprintf(&s.b, `<line class="chart-grid" x1="0%%" x2="100%%" y1="%s" y2="%s"/>`, y, y)
		// The stylesheet leaves room for it at the left, so that nothing is drawn over it.
		fmt.Fprintf(&s.b, `<text class="chart-note" x="-8" y="%s" text-anchor="end">%s</text>`,
			num(figuresLow-figuresHigh*float64(i)/2+4), text(axisText(f.Unit, v), 40))
	}
	span := last.Sub(first).Seconds()
	x := func(p Point) float64 { // with room at both sides
		if !(span > 0) {
			return 50
		}
		return 2 + p.At.Sub(first).Seconds()/span*96
	}
	y := func(p Point) float64 { return figuresLow - figuresHigh*min(value(p)/top, 1) }
	for i, series := range f.Series[:min(len(f.Series), 8)] {
		points := drawn(series.Points)
		name := fmt.Sprintf("chart-series-%d", i+1)
		wide := min(4, 60/float64(max(len(points), 1)))
		dot := 3.0
		if len(points) > 60 { // they would hide the line
			dot = 1.5
		}
		for j, p := range points {
			if series.Bars {
				fmt.Fprintf(&s.b, `<rect class="chart-bar %s" x="%s%%" y="%s" width="%s%%" height="%s">`, name, num(x(p)-wide/2), num(y(p)),
					num(wide), num(figuresLow-y(p)))
			} else {
				if j > 0 {
					fmt.Fprintf(&s.b, `<line class="chart-line %s" x1="%s%%" y1="%s" x2="%s%%" y2="%s"/>`, name, num(x(points[j-1])),
						num(y(points[j-1])), num(x(p)), num(y(p)))
				}
				fmt.Fprintf(&s.b, `<circle class="chart-dot %s" cx="%s%%" cy="%s" r="%s">`, name, num(x(p)), num(y(p)), num(dot))
			}
			note := strings.TrimSuffix(series.Name+": "+f.Unit(value(p))+", "+p.At.UTC().Format("2006-01-02 15:04")+", "+p.Note, ", ")
			fmt.Fprintf(&s.b, `<title>%s</title>`, text(note, 200))
			if series.Bars {
				s.b.WriteString(`</rect>`)
			} else {
				s.b.WriteString(`</circle>`)
			}
		}
	}
	if !first.IsZero() {
		fmt.Fprintf(&s.b, `<text class="chart-note" x="0" y="%d">%s</text>`, figuresLow+15, first.UTC().Format("2006-01-02"))
		if span > 0 {
			fmt.Fprintf(&s.b, `<text class="chart-note" x="100%%" y="%d" text-anchor="end">%s</text>`, figuresLow+15,
				last.UTC().Format("2006-01-02"))
		}
	}
	return s.end()
}

// axisText writes a figure beside a line of the grid.
func axisText(unit func(float64) string, v float64) string {
	if v == 0 {
		return "0"
	}
	return unit(v)
}

func drawn(points []Point) []Point { return points[max(0, len(points)-maxPoints):] }

// value is a figure that can be drawn.
func value(p Point) float64 {
	if !(p.Value > 0) || math.IsInf(p.Value, 0) {
		return 0
	}
	return p.Value
}

func (f *Figures) bounds() (first, last time.Time, most float64) {
	for _, s := range f.Series {
		for _, p := range drawn(s.Points) {
			if first.IsZero() || p.At.Before(first) {
				first = p.At
			}
			if p.At.After(last) {
				last = p.At
			}
			most = max(most, value(p))
		}
	}
	return first, last, most
}

// nice is a round figure that is not smaller.
func nice(most float64, bytes bool) float64 {
	if !(most > 0) {
		return 1
	}
	if bytes && most > 1024 {
		unit := math.Pow(1024, math.Floor(math.Log2(most)/10))
		return nice(most/unit, false) * unit
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, n := range []float64{1, 2, 4, 5, 8, 10} {
		if n*unit >= most {
			return n * unit
		}
	}
	return most
}
