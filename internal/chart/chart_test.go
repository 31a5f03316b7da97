package chart

import (
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

const evil = `</text><script>alert(1)</script>"' onload="x` + "\x00\x1b\u202e\xff"

// wellFormed reads a drawing as XML, and gives its elements and texts.
func wellFormed(t *testing.T, drawn template.HTML) (count map[string]int) {
	t.Helper()
	count = map[string]int{}
	d := xml.NewDecoder(strings.NewReader(string(drawn)))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return count
		}
		if err != nil {
			t.Fatalf("%v in %.300s", err, drawn)
		}
		e, is := tok.(xml.StartElement)
		if !is {
			continue
		}
		count[e.Name.Local]++
		for _, a := range e.Attr {
			if a.Name.Local == "style" || strings.HasPrefix(a.Name.Local, "on") {
				t.Errorf("an attribute %s=%q", a.Name.Local, a.Value)
			}
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("an attribute %s=%q", a.Name.Local, a.Value)
			}
		}
	}
}

func TestDisk(t *testing.T) {
	d := Disk{ID: "d1", Name: evil, About: evil, Size: 1000, Parts: []Part{
		{Name: evil, Note: "ext4", Off: 0, Len: 500}, {Name: "b", Off: 500, Len: 500, Doubt: true},
		{Off: -1, Len: 5}, {Off: 0}, {Off: 900, Len: 101}, {Off: math.MaxInt64, Len: math.MaxInt64},
	}, Cells: []Cell{{Used: 1}, {Used: 1}, {Used: 0.5, Doubt: 0.5, Changed: 0.01}, {Unread: 1, Changed: 1},
		{Used: math.NaN(), Doubt: -1, Changed: math.Inf(1)}}}
	drawn := d.SVG()
	got := wellFormed(t, drawn)
	if got["script"] > 0 || got["svg"] != 3 || got["title"] != 3 || got["desc"] != 1 || !strings.Contains(string(drawn), "&lt;script&gt;") {
		t.Errorf("the drawing has %v", got)
	}
	if n := strings.Count(string(drawn), "chart-used"); n != 2 { // neighbours are one
		t.Errorf("%d rectangles for what is used", n)
	}
	if n := strings.Count(string(drawn), "chart-changed"); n != 2 {
		t.Errorf("%d rectangles for what has changed", n)
	}
	for _, d := range []Disk{{}, {Size: -1, Parts: []Part{{Len: 1}}}, {Size: 1, Parts: []Part{{Len: 1}}}} {
		wellFormed(t, d.SVG())
	}
}

// TestManyParts: thousands of parts and cells do not make a page that nobody can open.
func TestManyParts(t *testing.T) {
	d := Disk{ID: "d", Size: 100000}
	for i := range int64(100000) {
		d.Parts = append(d.Parts, Part{Name: strings.Repeat("ü", 5000), Note: strings.Repeat("<", 5000), Off: i, Len: 1})
		d.Cells = append(d.Cells, Cell{Used: float64(i%7) / 7, Doubt: float64(i%3) / 3, Changed: float64(i % 2)})
	}
	drawn := d.SVG()
	wellFormed(t, drawn)
	if len(drawn) > 1<<20 {
		t.Errorf("the drawing has %d bytes", len(drawn))
	}
}

func TestFigures(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	unit := func(v float64) string { return fmt.Sprintf("%.0f <MB>", v) }
	f := Figures{ID: "f", Title: evil, About: evil, Unit: unit, Series: []Series{
		{Name: evil, Points: []Point{{at, 3, evil}, {at.Add(time.Hour), 7, ""},
			{at.Add(2 * time.Hour), math.NaN(), ""}, {at.Add(3 * time.Hour), math.Inf(1), ""}}},
		{Name: "bars", Bars: true, Points: []Point{{at, 8, ""}, {at, -8, ""}}},
	}}
	drawn := f.SVG()
	got := wellFormed(t, drawn)
	if got["script"] > 0 || got["circle"] != 4 || got["rect"] != 2 || got["line"] != 6 {
		t.Errorf("the drawing has %v", got)
	}
	// What stands beside the lines of the grid is at the left of all that is drawn.
	if n := strings.Count(string(drawn), `x="-8"`); n != 3 {
		t.Errorf("%d texts beside the lines of the grid", n)
	}
	many := Figures{Unit: unit, Series: make([]Series, 1000)}
	for i := range many.Series {
		for j := range 1000 {
			many.Series[i].Points = append(many.Series[i].Points, Point{At: at.Add(time.Duration(j) * time.Hour), Value: float64(j)})
		}
	}
	if drawn := many.SVG(); len(drawn) > 1<<20 {
		t.Errorf("the drawing has %d bytes", len(drawn))
	}
	for _, f := range []Figures{{Unit: unit}, {Unit: unit, Series: []Series{{Points: []Point{{}}}}},
		{Unit: unit, Series: []Series{{Points: []Point{{At: at}}}}}} {
		wellFormed(t, f.SVG())
	}
	for _, v := range []float64{0, -1, 1, 3, 99, 1e-9, 1e18, math.MaxFloat64, math.NaN()} {
		for _, bytes := range []bool{false, true} {
			if n := nice(v, bytes); !(n >= v) && v > 0 || !(n > 0) {
				t.Errorf("nice of %v is %v", v, n)
			}
		}
	}
}
