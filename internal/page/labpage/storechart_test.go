package labpage

import (
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/forecast"
)

// TestStoreCharts draws a store of two years with what it has room for.
func TestStoreCharts(t *testing.T) {
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	day := start.AddDate(2, 0, 9)
	h := api.StoreHistory{Forecast: api.StoreForecast{State: "full", Day: &day, PerDay: 1 << 30}}
	for n := range 700 {
		h.Sizes = append(h.Sizes, api.StoreSize{Time: start.AddDate(0, 0, n), Stored: int64(n+1) << 30, Data: int64(n+1) << 33, Room: 1 << 40,
			Free: 1<<40 - int64(n+1)<<30, Backups: int64(n)})
	}
	d := StoreCharts(h)
	if len(d.Charts) != 2 || !strings.Contains(d.Day, "2027-01-10") ||
		!strings.Contains(d.Saved, "699 backups") || !strings.Contains(d.Saved, "8.0.") {
		t.Errorf("%d charts, %q, %q", len(d.Charts), d.Day, d.Saved)
	}
	for _, c := range d.Charts {
		for _, want := range []string{"2025-01-01", h.Sizes[699].Time.Format(time.DateOnly), "chart-series-2"} {
			if !strings.Contains(string(c.SVG), want) {
				t.Errorf("a chart does not have %s", want)
			}
		}
		if strings.Contains(string(c.SVG), "style=") || len(c.SVG) > 200_000 {
			t.Errorf("a chart has %d bytes, or a style", len(c.SVG))
		}
	}
	if !strings.Contains(string(d.Charts[0].SVG), "room: ") {
		t.Error("the limit is not drawn")
	}
	h.Sizes = h.Sizes[:2]
	h.Sizes[0].Room, h.Sizes[1].Room = 0, 0 // object storage
	if d := StoreCharts(h); len(d.Charts) != 1 {
		t.Errorf("of object storage there are %d charts", len(d.Charts))
	}
	for state, want := range map[forecast.State]string{forecast.Unknown: "not known", forecast.NotGrowing: "not become fuller",
		forecast.Far: "three years"} {
		h.Forecast = api.StoreForecast{State: state}
		if got := StoreCharts(h).Day; !strings.Contains(got, want) {
			t.Errorf("%s: %q", state, got)
		}
	}
}
