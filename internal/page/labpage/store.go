package labpage

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
)

// storeData is what the page of the store shows.
type storeData struct {
	Store  api.Store
	Now    *api.StoreSize // nil as long as nothing was noted
	Saved  int64          // bytes that equal parts and compression save
	Ahead  api.StoreForecast
	Charts []storeChart
	NoData string // why the figures are not known
	None   string // why there is no store
	Work   *api.Upkeep
	Active bool // the work has not ended
	May    struct{ Begin, Cancel bool }
}

func (p *Pages) store(r *http.Request, v Visitor) (any, error) {
	d := &storeData{}
	d.May.Begin, d.May.Cancel = v.May("add-upkeep"), v.May("cancel-upkeep")
	err := v.Ask(r.Context(), "get-store", nil, nil, &d.Store)
	var said *api.Problem
	switch {
	case errors.As(err, &said) && said.Status == http.StatusNotFound:
		d.None = said.Error()
		return d, nil
	case err != nil:
		return nil, err
	}
	if err := d.history(r.Context(), v); err != nil {
		d.NoData = err.Error() // the rest of the page is worth something all the same
	}
	d.Work = d.Store.Upkeep
	if id := r.URL.Query().Get("upkeep"); id != "" && v.May("get-upkeep") {
		var u api.Upkeep
		err := v.Ask(r.Context(), "get-upkeep", boxpage.Params{"upkeep": id}, nil, &u)
		if err != nil && !(errors.As(err, &said) && said.Status == http.StatusNotFound) {
			return nil, err
		}
		if err == nil && d.Work == nil {
			d.Work = &u
		}
	}
	d.Active = d.Work != nil && !d.Work.Ended()
	return d, nil
}

type storeChart struct {
	Title string
	Names map[int]string // of the lines, by their numbers from 1 on
	SVG   template.HTML
}

// drawnDays is for how long the page says what the store had: a year, and some days to see what was a year ago.
const drawnDays = 380

// history draws what the store had over time.
func (d *storeData) history(ctx context.Context, v Visitor) error {
	var h api.StoreHistory
	if err := v.Ask(ctx, "get-store-history", boxpage.Params{"days": strconv.Itoa(drawnDays)}, nil, &h); err != nil {
		return err
	}
	d.Ahead = h.Forecast
	if len(h.Sizes) == 0 {
		return nil
	}
	now := h.Sizes[len(h.Sizes)-1]
	d.Now, d.Saved = &now, max(0, now.Data-now.Stored)
	d.Charts = StoreCharts(h).Charts
	return nil
}

var storeTasks = []*task{
	{Name: "plan-gc", Title: "See what a collection would do", Button: "Look", Back: "/store", route: "add-upkeep",
		send:  begin(api.PlanGC),
		About: "The server looks for space that deleted backups have left. It changes nothing."},
	{Name: "gc", Title: "Get space back", Button: "Get the space back", Danger: true, Back: "/store", route: "add-upkeep",
		send:  begin(api.GC),
		About: "The space of deleted backups is got back. All that a backup needs stays. It gives way to restores."},
	{Name: "scrub", Title: "Read all of the store", Button: "Read all of it", Back: "/store", route: "add-upkeep", send: begin(api.Scrub),
		About: "All of the store is read, and compared with its sums. It can take hours, and gives way to restores."},
	{Name: "cancel-upkeep", Title: "Cancel work on the store", Button: "Cancel it", Danger: true, Back: "/store", route: "cancel-upkeep",
		send: sendCancelUpkeep, About: "What it has done until then counts. It may take a moment until it has ended."},
}

func begin(work api.Work) func(context.Context, Visitor, url.Values) (string, *done, error) {
	return func(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
		var u api.Upkeep
		err := v.Ask(ctx, "add-upkeep", nil, api.NewUpkeep{Work: work, Key: q.Get("key"), Why: q.Get("why")}, &u)
		return upkeepPath(u.ID), nil, err
	}
}

func sendCancelUpkeep(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	var u api.Upkeep
	err := v.Ask(ctx, "cancel-upkeep", boxpage.Params{"upkeep": q.Get("on")}, api.Reason{Why: q.Get("why")}, &u)
	return upkeepPath(u.ID), nil, err
}

func upkeepPath(id string) string { return "/store?upkeep=" + url.QueryEscape(id) }
