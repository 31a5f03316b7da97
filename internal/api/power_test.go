package api_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/setting"
)

// TestPower: the answer says whether it was done, and what the command has said.
func TestPower(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Holder: ledger.Holder{Name: "bob"}})
	const path = "/api/v1/boxes/web-1/power"
	operator := r.with(r.token(ledger.Token{Role: ledger.Operator, Name: "ann"}))
	if p := operator.refused(api.CodeRefused, "POST", path, `{"action":"on"}`); !strings.Contains(p.Error(), "no power command") {
		t.Error(p)
	}
	var asked string
	did, said := dispatch.Switched{By: "bmc", Output: "one\ntwo"}, error(nil)
	r.runner.switches = func(_ context.Context, what string) (dispatch.Switched, error) {
		asked = what
		return did, said
	}
	want := func(body string, want api.Switched) {
		t.Helper()
		var got api.Switched
		operator.want(200, "POST", path, body, &got)
		if want.Box = "10.0.0.1"; got != want {
			t.Errorf("%+v", got)
		}
	}
	want(`{"action":"off","why":"a test"}`, api.Switched{Action: "off", Power: "bmc", Outcome: api.PowerDone, Output: "one\ntwo"})
	if asked != "10.0.0.1 off by token ann, false" {
		t.Error(asked)
	}
	said = errors.New("the power command bmc failed\x1b")
	want(`{"action":"cycle","force":true}`, api.Switched{Action: "cycle", Power: "bmc", Outcome: api.PowerFailed, Output: "one\ntwo",
		Text: "the power command bmc failed\ufffd"})
	if asked != "10.0.0.1 cycle by token ann, true" {
		t.Error(asked)
	}
	did, said = dispatch.Switched{}, dispatch.ErrPowerRuns
	want(`{"action":"on"}`, api.Switched{Action: "on", Outcome: api.PowerRunning, Text: said.Error()})
	did, said = dispatch.Switched{By: "bmc"}, problem.Refusef("the box has no label outlet=")
	operator.refused(api.CodeRefused, "POST", path, `{"action":"on"}`)
	did, said = dispatch.Switched{}, errors.New("the ledger is full")
	r.root().refused(api.CodeFailed, "POST", path, `{"action":"on"}`)
	for _, body := range []string{`{"action":"reset"}`, `{}`, `{"action":"on","more":1}`} {
		operator.refused(api.CodeWrong, "POST", path, body)
	}
	asked = ""
	operator.refused(api.CodeForbidden, "POST", "/api/v1/boxes/10.0.0.2/power", `{"action":"off","force":true}`)
	operator.refused(api.CodeNotFound, "POST", "/api/v1/boxes/10.0.0.3/power", `{"action":"off"}`)
	if asked != "" {
		t.Errorf("it was done: %s", asked)
	}
}

// TestPowerFacts: only an admin changes what decides which machine a power command switches.
func TestPowerFacts(t *testing.T) {
	r := newRigWith(t, func(cfg *api.Config) { cfg.Facts = []string{"label:outlet", "mac", "name"} })
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web-1", Labels: []string{"outlet=7", "ssd"}})
	const path = "/api/v1/boxes/10.0.0.1"
	operator := r.with(r.token(ledger.Token{Role: ledger.Operator}))
	for _, body := range []string{`{"name":"web-2"}`, `{"name":""}`, `{"labels":[]}`, `{"labels":["outlet=8"]}`, `{"labels":["outlet=7","outlet=8"]}`} {
		operator.refused(api.CodeForbidden, "PATCH", path, body)
	}
	for _, body := range []string{`{"name":"web-1"}`, `{"labels":["outlet=7"]}`, `{"labels":["nvme","outlet=7","outlet"]}`} {
		operator.want(200, "PATCH", path, body, nil)
	}
	r.root().want(200, "PATCH", path, `{"name":"web-2","labels":["outlet=8"]}`, nil)
}

// TestPowerGroups: only an admin changes by groups which power command a box has, and which of its backups are kept.
func TestPowerGroups(t *testing.T) {
	r := newRigWith(t, func(cfg *api.Config) { cfg.Site = setting.Site{Powers: []string{"bmc"}, Keep: setting.Keep{Last: 1}} })
	root := r.root()
	root.want(200, "PUT", "/api/v1/groups/kept", `{"keep":"all"}`, nil)
	root.want(200, "PUT", "/api/v1/groups/rack", `{"power":"bmc"}`, nil)
	root.want(200, "PUT", "/api/v1/groups/few", `{"most":3}`, nil)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"kept"}})
	const path = "/api/v1/boxes/10.0.0.1"
	operator := r.with(r.token(ledger.Token{Role: ledger.Operator}))
	for _, body := range []string{`{"groups":[]}`, `{"groups":["few"]}`, `{"groups":["kept","rack"]}`} {
		operator.refused(api.CodeForbidden, "PATCH", path, body)
	}
	var b api.Box
	operator.want(200, "PATCH", path, `{"groups":["few","kept"]}`, &b)
	if operator.refused(api.CodeForbidden, "PATCH", path, `{"groups":[]}`); len(b.Groups) != 2 {
		t.Errorf("%q", b.Groups)
	}
	root.want(200, "PATCH", path, `{"groups":["rack"]}`, nil)
}
