package api

import (
	"context"
	"fmt"
	"time"

	"testbox-imaging/internal/forecast"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
)

// StoreHistory is what the store had over time.
type StoreHistory struct {
	Sizes    []StoreSize   `json:"sizes" doc:"the oldest first"`
	Forecast StoreForecast `json:"forecast"`
}

// StoreSize is what the store had at a time.
type StoreSize struct {
	Time    time.Time `json:"time"`
	Stored  int64     `json:"stored" doc:"bytes that its packs take"`
	Data    int64     `json:"data" doc:"bytes that its backups stand for: of all their disks, what is used and not zero"`
	Room    int64     `json:"room,omitempty" doc:"bytes of its file system; without it they are not known, as in object storage"`
	Free    int64     `json:"free,omitempty" doc:"bytes of it that are free"`
	Backups int64     `json:"backups"`
}

// StoreForecast tells when the store will be full.
type StoreForecast struct {
	State  forecast.State `json:"state" enum:"unknown,not-growing,far,full" doc:"unknown: too little is known, as in the first week; not-growing: it does not become fuller; far: it is not full within three years; full: it is full on the day"`
	Day    *time.Time     `json:"day,omitempty" doc:"the day in UTC on which its file system is full"`
	PerDay int64          `json:"perDay,omitempty" doc:"bytes that its file system becomes fuller by each day, as the last weeks were. What happened once does not count"`
}

func (s *Server) getStoreHistory(ctx context.Context, in *struct {
	Days int `query:"days" minimum:"1" maximum:"1830" default:"90" doc:"sizes of so many days"`
}) (*body[StoreHistory], error) {
	if s.cfg.Backups == nil {
		return nil, errNoStore
	}
	now := s.cfg.Now()
	var sizes []ledger.StoreSize
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		sizes, err = tx.StoreSizes(now.AddDate(0, 0, -max(in.Days, forecast.Days)))
		return err
	})
	if err != nil {
		return nil, err
	}
	h := StoreHistory{Sizes: []StoreSize{}, Forecast: foretell(sizes, now)}
	for _, z := range sizes {
		if !z.Time.Before(now.AddDate(0, 0, -in.Days)) {
			h.Sizes = append(h.Sizes, StoreSize{z.Time, z.Stored, z.Data, z.Room, z.Free, z.Backups})
		}
	}
	return answer(h, nil)
}

// foretell tells from sizes of the store when it will be full.
func foretell(sizes []ledger.StoreSize, now time.Time) StoreForecast {
	points := make([]forecast.Point, 0, len(sizes))
	for _, z := range sizes {
		points = append(points, forecast.Point{At: z.Time, Used: z.Room - z.Free, Room: z.Room})
	}
	f := forecast.Of(points, now)
	return StoreForecast{State: f.State, Day: timeOrNone(f.Day), PerDay: f.PerDay}
}

// Text says it in a sentence.
func (f StoreForecast) Text() string {
	switch {
	case f.State == forecast.Full && f.Day != nil && f.PerDay <= 0:
		return "It is full."
	case f.State == forecast.Full && f.Day != nil:
		return fmt.Sprintf("It will be full on %s, if it goes on as in the last weeks, with %s a day.", f.Day.UTC().Format(time.DateOnly),
			image.SizeText(f.PerDay))
	case f.State == forecast.Far:
		return fmt.Sprintf("It will not be full within three years, if it goes on as in the last weeks, with %s a day.", image.SizeText(f.PerDay))
	case f.State == forecast.NotGrowing:
		return "It does not become fuller."
	}
	return "When it will be full is not known: that takes a week of figures, and a file system whose size is known."
}
