package api_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
)

// TestBootTestTold: a boot test is told to who follows events and may see the box, and counted.
func TestBootTestTold(t *testing.T) {
	s, ids := newStore(t)
	var mu sync.Mutex
	var hooked []api.BootTestEvent
	k := &fakeKeeper{boots: &api.BootTesting{Window: "20:00-06:00", Waiting: 3}}
	r := newRigWith(t, func(cfg *api.Config) {
		cfg.Backups, cfg.Keeper = s, k
		cfg.BootTested = func(e api.BootTestEvent) {
			mu.Lock()
			defer mu.Unlock()
			hooked = append(hooked, e)
		}
	})
	for group, at := range map[string]string{"rack": "10.0.0.1", "other": "10.0.0.2"} {
		addr, err := box.ParseAddr(at)
		must(t, err)
		r.group(group)
		r.box(ledger.Box{Address: addr, Name: "in-" + group, Groups: []string{group}, Health: ledger.Good})
	}
	all, stop := r.root().follow("")
	defer stop()
	some, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack", Name: "rack"})).follow("")
	defer stop()
	none, stop := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "other", Name: "other"})).follow("")
	defer stop()
	for _, c := range []<-chan event{all, some, none} {
		next(t, c)
	}
	const at = "/api/v1/backups/10.0.0.1/"
	r.root().want(200, "PUT", at+ids[0]+"/boot-test", api.NewBootTest{BootTest: api.BootTest{Time: r.clock(), Verdict: image.BootFailed,
		Sign: image.SignRead, Text: "it says \x1b[31m", Firmware: "bios"}}, nil)
	for _, c := range []<-chan event{all, some} {
		e := next(t, c)
		var v api.BootTestEvent
		must(t, json.Unmarshal([]byte(e.data), &v))
		if e.name != "boot-test" || v.Box != "10.0.0.1" || v.Name != "in-rack" || v.Backup != ids[0] || v.By == "" || v.Error != "" ||
			v.Boot == nil || v.Boot.Verdict != image.BootFailed || strings.Contains(v.Boot.Text, "\x1b") {
			t.Errorf("the event is %s %s", e.name, e.data)
		}
	}
	r.api.TellBootTest(api.BootTestEvent{Box: "10.0.0.2", Backup: ids[0], Time: r.clock(), Error: "no result"})
	if e := next(t, none); e.name != "boot-test" || !strings.Contains(e.data, "no result") {
		t.Errorf("who sees another group is told %s %s", e.name, e.data)
	}
	_, text := r.root().do("GET", "/metrics", nil)
	for _, want := range []string{`testbox_boot_tests_total{verdict="failed"} 1`, `testbox_boot_tests_total{verdict="none"} 1`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(hooked) != 2 {
		t.Errorf("hooks would be told %+v", hooked)
	}
	var st api.Store
	r.root().want(200, "GET", "/api/v1/store", nil, &st)
	if st.Boot == nil || st.Boot.Waiting != 3 || st.Boot.Window != "20:00-06:00" {
		t.Errorf("the store says %+v", st.Boot)
	}
}
