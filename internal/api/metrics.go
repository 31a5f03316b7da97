package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/forecast"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/sight"
	"testbox-imaging/internal/version"
)

// metrics gives the figures of a server. They are read when they are asked for.
type metrics struct {
	s       *Server
	handler http.Handler
	ended   *prometheus.CounterVec
	booted  *prometheus.CounterVec
	jobs    *prometheus.Desc
	boxes   *prometheus.Desc
	stored  *prometheus.Desc
	full    *prometheus.Desc
	sights  *prometheus.Desc
	times   *prometheus.Desc
	orders  *prometheus.Desc
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		s: s,
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testbox_jobs_ended_total",
			Help: "Jobs that have ended since the server began."}, []string{"action", "outcome", "class"}),
		booted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testbox_boot_tests_total",
			Help: "Boot tests of backups that have ended since the server began; none is one without a result."}, []string{"verdict"}),
		jobs:  prometheus.NewDesc("testbox_jobs", "Jobs that have not ended, by their state.", []string{"state"}, nil),
		boxes: prometheus.NewDesc("testbox_boxes", "Boxes, by their health.", []string{"health"}, nil),
		sights: prometheus.NewDesc("testbox_sights", "Machines that nobody knows (new), and boxes that are silent, have moved, "+
			"or share their address.", []string{"what"}, nil),
		times: prometheus.NewDesc("testbox_schedule_time_seconds", "Times of schedules, in seconds since 1970: the next start, which a "+
			"paused one does not have, the last start with jobs, and when starts were missed last.", []string{"schedule", "what"}, nil),
		full: prometheus.NewDesc("testbox_store_full_time_seconds", "The day on which the store will be full if it goes on as in the last "+
			"weeks, in seconds since 1970. It is left out if none is foreseen.", nil, nil),
		orders: prometheus.NewDesc("testbox_boot_orders", "Boxes, by what became of the boot order of their UEFI firmware at the latest start "+
			"of the maintenance system. Those that need somebody are ignored, failed and none.", []string{"result"}, nil),
		stored: prometheus.NewDesc("testbox_store_bytes", "Bytes that the store has.", nil, nil),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "testbox_info", Help: "The version of the server.",
		ConstLabels: prometheus.Labels{"version": version.String()}})
	info.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(m, m.ended, m.booted, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
	return m
}

// count counts a job that has ended.
func (m *metrics) count(j Job) {
	m.ended.WithLabelValues(string(j.Action), string(j.Outcome), string(j.Class)).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.jobs
	to <- m.boxes
	to <- m.stored
	to <- m.full
	to <- m.sights
	to <- m.times
	to <- m.orders
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(m.s.ctx, 20*time.Second)
	defer cancel()
	jobs, list, err := m.counts(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.jobs, err)
		return
	}
	for _, st := range job.States {
		if st != job.Ended {
			to <- prometheus.MustNewConstMetric(m.jobs, prometheus.GaugeValue, float64(jobs[string(st)]), string(st))
		}
	}
	boxes := map[ledger.Health]int{}
	for _, b := range list {
		boxes[b.Health]++
	}
	for _, h := range ledger.Healths {
		to <- prometheus.MustNewConstMetric(m.boxes, prometheus.GaugeValue, float64(boxes[h]), string(h))
	}
	orders := m.s.orders(list)
	for _, r := range []efi.Result{efi.OrderKept, efi.OrderRepaired, efi.OrderIgnored, efi.OrderFailed, efi.OrderNone} {
		to <- prometheus.MustNewConstMetric(m.orders, prometheus.GaugeValue, float64(orders[r]), string(r))
	}
	if m.s.cfg.Sights != nil {
		unknown, silent, moved, shared := m.s.cfg.Sights.Count()
		for what, n := range map[sight.Kind]int{sight.New: unknown, sight.Silent: silent, sight.Moved: moved, sight.Shared: shared} {
			to <- prometheus.MustNewConstMetric(m.sights, prometheus.GaugeValue, float64(n), string(what))
		}
	}
	m.schedules(ctx, to)
	m.forecast(ctx, to)
	if m.s.cfg.Stored != nil {
		to <- prometheus.MustNewConstMetric(m.stored, prometheus.GaugeValue, float64(m.s.cfg.Stored()))
	}
}

// forecast gives the day on which the store will be full.
func (m *metrics) forecast(ctx context.Context, to chan<- prometheus.Metric) {
	if m.s.cfg.Backups == nil {
		return
	}
	now := m.s.cfg.Now()
	var sizes []ledger.StoreSize
	err := m.s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		sizes, err = tx.StoreSizes(now.AddDate(0, 0, -forecast.Days))
		return err
	})
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.full, err)
		return
	}
	if f := foretell(sizes, now); f.Day != nil {
		to <- prometheus.MustNewConstMetric(m.full, prometheus.GaugeValue, float64(f.Day.Unix()))
	}
}

// schedules gives the times of schedules.
func (m *metrics) schedules(ctx context.Context, to chan<- prometheus.Metric) {
	if len(m.s.cfg.Schedules) == 0 {
		return
	}
	var entries map[string]schedule.Entry
	err := m.s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		entries, err = schedule.Entries(tx)
		return err
	})
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.times, err)
		return
	}
	for _, p := range m.s.cfg.Schedules {
		e := entries[p.Name]
		say := func(what string, at time.Time) {
			if !at.IsZero() {
				to <- prometheus.MustNewConstMetric(m.times, prometheus.GaugeValue, float64(at.Unix()), p.Name, what)
			}
		}
		if e.Pause == nil {
			say("next", p.First(m.s.cfg.Now()))
		}
		say("last", e.Start)
		if e.Missed != nil {
			say("missed", e.Missed.At)
		}
	}
}

// counts counts the jobs that have not ended by their states, and reads all boxes.
func (m *metrics) counts(ctx context.Context) (jobs map[string]int, boxes []ledger.Box, err error) {
	jobs = map[string]int{}
	err = m.s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		for p := (ledger.Page{}); ; {
			some, next, err := tx.Jobs(ledger.JobFilter{Open: true}, p)
			if err != nil {
				return err
			}
			for _, j := range some {
				jobs[j.State]++
			}
			if p.After = next; next == "" {
				break
			}
		}
		var err error
		boxes, err = groupBoxes(tx, ledger.BoxFilter{})
		return err
	})
	return jobs, boxes, err
}

func (s *Server) getMetrics(context.Context, *struct{}) (*stream, error) {
	return &stream{func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		s.metrics.handler.ServeHTTP(w, r)
	}}, nil
}

// Health says whether the server works.
type Health struct {
	Status string `json:"status" example:"ok"`
}

func (s *Server) getHealth(ctx context.Context, _ *struct{}) (*body[Health], error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		_, _, err := tx.Jobs(ledger.JobFilter{Open: true}, ledger.Page{Limit: 1})
		return err
	})
	if err != nil {
		s.cfg.Log.Error("the ledger cannot be read", "error", err)
		return nil, busy("the ledger cannot be read; the server's log says why")
	}
	return answer(Health{"ok"}, nil)
}

func (s *Server) getMe(ctx context.Context, _ *struct{}) (*body[Me], error) {
	c := callerOf(ctx)
	return answer(Me{c.name, c.role, c.group, c.expires, version.String()}, nil)
}

func (s *Server) getOpenAPI(context.Context, *struct{}) (*stream, error) {
	b, err := s.OpenAPI()
	if err != nil {
		return nil, err
	}
	return &stream{func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(b)
	}}, nil
}
