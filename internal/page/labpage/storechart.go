package labpage

import (
	"fmt"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/chart"
	"testbox-imaging/internal/image"
)

// StoreDrawing is how the store grows, drawn and in words.
type StoreDrawing struct {
	Charts []storeChart
	Day    string // when it will be full, in a sentence
	Saved  string // how much less it takes than its backups have, in a sentence; "" if it has none
}

// maxDrawn is how many figures of a line are drawn. They are spread over all of the time.
const maxDrawn = 150

// StoreCharts draws what a store had over time.
func StoreCharts(h api.StoreHistory) StoreDrawing {
	d := StoreDrawing{Day: h.Forecast.Text()}
	if len(h.Sizes) == 0 {
		return d
	}
	last := h.Sizes[len(h.Sizes)-1]
	if last.Data > 0 && last.Stored > 0 {
		d.Saved = fmt.Sprintf("%d backups stand for %s and take %s: a byte stored stands for %.1f.", last.Backups, image.SizeText(last.Data),
			image.SizeText(last.Stored), float64(last.Data)/float64(last.Stored))
	}
	if len(h.Sizes) < 2 {
		return d
	}
	line := func(name string, of func(api.StoreSize) int64) chart.Series {
		s := chart.Series{Name: name}
		for _, z := range spread(h.Sizes, maxDrawn) {
			s.Points = append(s.Points, chart.Point{At: z.Time, Value: float64(of(z))})
		}
		return s
	}
	draw := func(id, title, about string, series ...chart.Series) {
		f := chart.Figures{ID: id, Title: title, About: about, Series: series, Bytes: true,
			Unit: func(v float64) string { return image.SizeText(int64(min(v, 1<<60))) }}
		names := map[int]string{}
		for i, s := range series {
			names[i+1] = s.Name
		}
		d.Charts = append(d.Charts, storeChart{title, names, f.SVG()})
	}
	if last.Room > 0 {
		draw("storeuse", "Use of the file system of the store, and how much it has room for",
			fmt.Sprintf("%s of %s are used. %s", image.SizeText(last.Room-last.Free), image.SizeText(last.Room), d.Day),
			line("used", func(z api.StoreSize) int64 { return z.Room - z.Free }), line("room", func(z api.StoreSize) int64 { return z.Room }))
	}
	draw("storesaved", "What the backups stand for, and what the store takes", d.Saved,
		line("stored", func(z api.StoreSize) int64 { return z.Stored }), line("backups stand for", func(z api.StoreSize) int64 { return z.Data }))
	return d
}

// spread takes so many sizes at most, over all of the time, with the first and the last.
func spread(all []api.StoreSize, most int) (some []api.StoreSize) {
	if len(all) <= most {
		return all
	}
	for i := range most {
		some = append(some, all[i*(len(all)-1)/(most-1)])
	}
	return some
}
