package dispatch

import (
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/wire"
)

// BenchmarkReport measures a report with 5 lines of the log.
func BenchmarkReport(b *testing.B) {
	r := newRig(b, openLedger(b))
	r.start(&knife{})
	defer func() { r.server().Close() }()
	if _, err := r.server().Add(ctx, Request{Boxes: []box.Addr{here}, Action: box.Backup, By: "ann"}); err != nil {
		b.Fatal(err)
	}
	for {
		if _, armed := r.boots.get(here); armed {
			break
		}
	}
	f, _ := r.boots.get(here)
	h := wire.Hello{Protocol: wire.Version, Box: here, Arming: f.job.Arming, Secret: f.secret, Token: strings.Repeat("x", 32)}
	if _, err := r.server().Hello(ctx, &h, here.IP()); err != nil {
		b.Fatal(err)
	}
	line := wire.Line{Text: strings.Repeat("x", 100)}
	for n := uint64(1); b.Loop(); n++ {
		_, err := r.server().Report(ctx, h.Token, here.IP(), &wire.Report{Number: n, Lines: []wire.Line{line, line, line, line, line}})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGive measures a look of the queue at 1000 boxes that wait.
func BenchmarkGive(b *testing.B) {
	r := newRig(b, openLedger(b))
	r.start(&knife{})
	defer func() { r.server().Close() }()
	r.server().SetClosed("The server is being moved.")
	var all []box.Addr
	for n := range 1000 {
		all = append(all, boxAddr(1<<8+n))
	}
	if _, err := r.server().Add(ctx, Request{Boxes: all, Action: box.Backup, By: "ann"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.server().give(); err != nil {
			b.Fatal(err)
		}
	}
}
