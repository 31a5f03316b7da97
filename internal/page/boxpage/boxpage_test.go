package boxpage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

const evil = `<script>alert(1)</script>"' onload="x` + "\u202e"

var now = time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)

// fake is an API whose answers are written down. It notes what it was asked for.
type fake struct {
	answers map[string]any // by path, without the query
	asked   []string
}

func (f *fake) Ask(_ context.Context, route string, params Params, body, answer any) error {
	b, _ := json.Marshal(body)
	p, _ := json.Marshal(params)
	f.asked = append(f.asked, fmt.Sprintf("%s %s %s", route, p, b))
	path := map[string]string{"get-me": "/me", "get-box": "/boxes/{box}", "list-jobs": "/jobs", "get-job": "/jobs/{job}",
		"list-backups": "/backups/{owner}", "set-backup": "/backups/{owner}/{backup}", "delete-backup": "/backups/{owner}/{backup}",
		"get-rates": "/boxes/{box}/rates", "get-changes": "/boxes/{box}/inventory/changes",
		"get-map":      "/backups/{owner}/{backup}/disks/{disk}/map",
		"get-firmware": "/boxes/{box}/firmware", "get-backup-firmware": "/backups/{owner}/{backup}/firmware"}[route]
	for name, value := range params {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	a, is := f.answers[path]
	if err, bad := a.(error); bad {
		return err
	}
	if !is {
		return &api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "there is no " + path + evil}
	}
	if answer == nil {
		return nil
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// lab is an API with one box of which everything is hostile that a box can say.
func lab(role ledger.Role, backups int) *fake {
	b := api.Box{Address: "10.0.0.1", Name: "web-1", Health: ledger.Suspect, HealthReason: "it is slow " + evil,
		MACs:   []string{"52:54:00:00:00:01"},
		Labels: []string{evil}, Groups: []string{"rack-3"}, LastSeen: now.Add(-5 * time.Minute), UUID: "u-" + evil, SilentSince: now,
		UsualPause: 7200,
		Holder:     &api.Holder{Name: evil, Reason: evil, Expires: now.Add(time.Hour)},
		Moved:      &api.Moved{Address: evil, Since: now},
		Shared:     &api.SharedAddress{MAC: evil, Last: now},
		Last:       &api.LastJob{ID: "j1", Action: box.Restore, State: job.Held, Text: evil},
		Effective:  &api.Effective{Power: "bmc", PowerWhy: "group rack-3", Keep: "last=3,daily=7"},
		Firmware:   &api.BoxFirmware{Kind: evil, Version: evil, SecureBoot: evil, BootOrder: efi.OrderIgnored, Why: evil, Needs: true},
		Schedules:  []api.BoxSchedule{{Name: "nightly", Action: box.Backup, Next: now.Add(20 * time.Hour)}},
		Machines: []api.Machine{{MAC: evil, Arch: evil, LastSeen: now, Asked: []api.Ask{{Time: now, Over: "tftp", Asked: evil, Given: evil},
			{Time: now, Over: "dhcp", Asked: "an address"}}}},
	}
	receipt := image.Receipt{Image: "sda", Disk: evil, Identity: image.Identity{Model: evil, Serial: evil, Size: 256 << 30},
		Read: 20 << 30, Verified: 20 << 30, FromServer: 1 << 30, FromPeers: 12 << 30,
		Root: strings.Repeat("ab", 32), Bad: []image.Range{{Off: 1, Len: 2}},
		Stages: []image.Stage{{Name: "read", Bytes: 20 << 30, Elapsed: 70 * time.Second, Active: 60 * time.Second}}}
	j := api.Job{ID: "j1", Box: "10.0.0.1", Name: "web-1", Action: box.Backup, By: evil, Asked: now.Add(-time.Hour),
		State: job.Running, Text: evil,
		Progress: &api.Progress{Step: "read", Text: evil, Done: 3, Total: 10}, Warnings: []string{evil},
		Room: &api.Room{Boxes: 16, FromServer: 2 << 30, FromPeers: 5 << 30, ToPeers: 7 << 30,
			Faults: []api.RoomFault{{Fault: "garbage", Boxes: 2, Text: "two say " + evil}}},
		Receipts: []image.Receipt{receipt}, Sent: 1 << 30,
		HostKeys: []string{evil}, Options: api.Options{Image: evil, Disks: []string{evil}, Map: []string{evil}}}
	list := api.BackupList{Backups: []api.Backup{}, Unreadable: []string{evil}}
	rates := api.Rates{Rates: []api.Rate{}}
	for i := range backups {
		at := now.Add(time.Duration(i-backups) * 24 * time.Hour)
		list.Backups = append(list.Backups, api.Backup{Box: "10.0.0.1", ID: at.Format("20060102-150405"), Time: at, Note: "note " + evil,
			Pinned: i%7 == 3, Baseline: i == backups-2, Disks: []api.BackupDisk{
				{Name: "sda", Size: 256 << 30, Data: int64(60+i%9) << 30, Stored: int64(200+(i*37)%900) << 20, Lacks: i == backups-3,
					Bad: i == backups-4},
			}})
		rates.Rates = append(rates.Rates, api.Rate{Job: "j1", Asked: now.Add(-time.Duration(i) * 24 * time.Hour), Action: evil,
			Disk: "sda", Key: evil,
			Stage: "read", Bytes: 20 << 30, Took: time.Minute, Rate: 3e8, DiskRate: 4e8 + float64(i%5)*1e7})
	}
	if backups > 0 {
		list.Backups[backups-1].Boot = &api.BootTest{Time: now, Verdict: image.BootPassed, Sign: image.SignLogin, Text: evil, Firmware: "uefi",
			HasImage: true}
	}
	rates.Rates = rates.Rates[:min(len(rates.Rates), 50)]
	m := api.DiskMap{Disk: "sda", Size: 256 << 30, Table: "gpt", With: "20261128-060000", Cell: 1 << 30, Data: 60 << 30, Zero: 1 << 30,
		InDoubt: 16 << 30,
		Unused:  195 << 30, Changed: 900 << 20, Doubt: evil, Parts: []api.MapPart{
			{Title: "partition 1", Number: 1, FS: "vfat", Label: "EFI", Off: 1 << 20, Len: 8 << 30, Used: 30 << 20},
			{Title: "partition 2", Number: 2, FS: "ext4", Label: evil, Off: 9 << 30, Len: 180 << 30, Used: 44 << 30, Changed: 900 << 20},
			{Title: "partition 3", Number: 3, FS: "LVM2_member", Name: "data", Off: 190 << 30, Len: 50 << 30, Used: 16 << 30, Doubt: evil},
			{Title: "volume home", Volume: true, Name: evil, FS: evil, Off: 191 << 30, Len: 16 << 30, Used: 16 << 30},
		}}
	for i := range 256 {
		c := api.MapCell{}
		switch {
		case i < 3 || i > 8 && i < 60:
			c.Data = int64(i%5+1) << 28 / 2
		case i >= 190 && i < 206:
			c.Data, c.InDoubt = 1<<30, 1<<30
		}
		if i%17 == 9 && c.Data > 0 && i < 60 {
			c.Changed = 64 << 20
		}
		m.Cells = append(m.Cells, c)
	}
	ch := api.InventoryChanges{Time: now, Before: now.Add(-240 * time.Hour), Changes: []inventory.Change{{What: evil, Was: evil,
		Is: "8.0 GiB"}, {What: "disk", Is: evil}},
		More: true, Disks: []api.DiskHealth{{Name: "sda", Model: evil, Serial: evil, Size: 256 << 30, Status: "failing", Note: evil,
			Attributes: []inventory.Attribute{{ID: 5, Name: "reallocated sectors", Raw: "8", Value: 90, Threshold: 10, Failing: true},
				{Name: evil, Raw: evil}},
			Counters: []string{"reallocated sectors"}}}}
	net, disk := efi.Number(0x2a), efi.Number(3)
	state := efi.State{Kind: efi.UEFI, Bits: 64, Vendor: evil, Version: evil, Date: evil, SecureBoot: evil, Order: []efi.Number{disk, net},
		Current: &net, Next: &disk, Problems: []string{evil}, Entries: []efi.Entry{
			{Number: disk, Name: evil, Active: true, Kind: efi.DiskEntry, File: evil, Partition: &efi.Partition{Number: 1, GUID: evil, Disk: evil}},
			{Number: net, Name: evil, Kind: efi.NetworkEntry, MAC: evil, URI: evil}, {Number: 0x30, Kind: efi.OtherEntry, Path: evil}},
		Variables: []efi.Variable{{Name: evil, Size: 5, SHA256: "abcdef0123456789", Value: evil}},
		NVMe:      []efi.Namespace{{Disk: evil, Serial: evil, ID: 1, Formats: []efi.LBAFormat{{Block: 4096}}}}}
	changes := []efi.Change{{What: "boot order", Was: evil, Is: "0003 debian"}, {What: evil, Is: evil}}
	f := &fake{answers: map[string]any{"/me": api.Me{Name: "eve", Role: role}, "/boxes/10.0.0.1": b,
		"/jobs": api.JobList{Jobs: []api.Job{j}}, "/jobs/j1": j,
		"/backups/10.0.0.1": list, "/boxes/10.0.0.1/rates": rates, "/boxes/10.0.0.1/inventory/changes": ch,
		"/boxes/10.0.0.1/firmware": api.FirmwareNow{BoxFirmware: *b.Firmware, First: &net, State: state, Since: "20261129-060000",
			SinceKind: efi.BIOS, PutBack: &efi.PutBack{Put: []efi.Number{0xab}, Left: []string{"the rest " + evil}},
			Changes: changes}}}
	for _, b := range list.Backups {
		f.answers["/backups/10.0.0.1/"+b.ID+"/disks/sda/map"] = m
		f.answers["/backups/10.0.0.1/"+b.ID] = b
		f.answers["/backups/10.0.0.1/"+b.ID+"/firmware"] = api.FirmwareThen{State: state, With: "20261128-060000", Changes: changes}
	}
	return f
}

// TestCopy: the page of a box warns if its latest restore gave it the machine-id of another box.
func TestCopy(t *testing.T) {
	restore := func(from string, o box.Outcome, hooks ...box.Hook) api.Job {
		return api.Job{ID: "j" + from, Box: "10.0.0.1", Action: box.Restore, State: job.Ended, Settled: true, Outcome: o,
			Options: api.Options{From: from, Hooks: hooks}}
	}
	for _, c := range []struct {
		jobs []api.Job
		want bool
	}{
		{[]api.Job{restore("10.0.0.7", box.Failed), restore("10.0.0.8", box.Done, box.HookHostname)}, true},
		{[]api.Job{restore("", box.Done), restore("10.0.0.8", box.Done)}, false},
		{[]api.Job{restore("10.0.0.8", box.Done, box.HookMachineID)}, false},
	} {
		f := lab(ledger.Viewer, 1)
		f.answers["/jobs"] = api.JobList{Jobs: c.jobs}
		body := get(t, serve(f), "/boxes/10.0.0.1").Body.String()
		if has := strings.Contains(body, "has the system of 10.0.0.8"); has != c.want {
			t.Errorf("after %+v it warns: %v", c.jobs, has)
		}
	}
}

// fakeSite has no frame.
type fakeSite struct{ f *fake }

func (s fakeSite) API(*http.Request) API { return s.f }
func (s fakeSite) Show(w http.ResponseWriter, _ *http.Request, p Page) {
	fmt.Fprintf(w, "<title>page</title>%s", p.Body)
}
func (s fakeSite) Fail(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), 400)
}
func (s fakeSite) Forward(w http.ResponseWriter, r *http.Request, route string, params Params) {
	fmt.Fprintf(w, "forwarded %s %v", route, params)
}

func serve(f *fake) http.Handler {
	mux := http.NewServeMux()
	(&Pages{Now: func() time.Time { return now }}).Routes(mux, fakeSite{f})
	return mux
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w
}

// tame fails if a text became a part of the page, or if the page has what its policy forbids.
func tame(t *testing.T, what, body string) {
	t.Helper()
	for _, bad := range []string{"\u202e", "<script", " style=", "onload=\"x", "javascript:", "ZgotmplZ", "%!"} {
		if strings.Contains(body, bad) {
			i := strings.Index(body, bad)
			t.Errorf("%s has %q: %s", what, bad, body[max(0, i-100):min(len(body), i+100)])
		}
	}
}

func TestPages(t *testing.T) {
	f := lab(ledger.Admin, 120)
	h := serve(f)
	latest := f.answers["/backups/10.0.0.1"].(api.BackupList).Backups[119].ID
	for path, wants := range map[string][]string{
		"/boxes/10.0.0.1": {"suspect", "it is slow", "web-1", "nightly", "in 20 hours", "last=3,daily=7", "The store lacks some of sda",
			"baseline",
			"Older backups", "type its id", "failing", "reallocated sectors", "8.0 GiB", "reserved for", "chart-figures", "400 MB/s",
			"/disks?backup=" + latest,
			"cannot be restored", "not there", "5 minutes ago", "It asked for a login.", "/backups/" + latest + "/boot.png",
			"had put the network first in the boot order, and that did not stay", "look at the systems on the disks",
			"/act/refresh-info?box=10.0.0.1",
			"at its latest backup it started by BIOS", "that were put back: <code>00AB</code>", "the rest &lt;script",
			"At the latest backup, <code>20261129-060000</code>, it was different", "<code>002A</code>", "belongs at the beginning",
			`aria-label="Boot entries in their order"`, `aria-label="Boot entries that are not in the order"`,
			"started the maintenance system", "Boot entries that are not in the boot order", "<code>abcdef012345</code>", "format 4096 bytes",
			"<ins>0003 debian</ins>"},
		"/boxes/10.0.0.1?older=" + f.answers["/backups/10.0.0.1"].(api.BackupList).Backups[50].ID: {"The latest backups"},
		"/boxes/10.0.0.1/disks?backup=" + latest: {"chart-disk", "EFI", "24 %",
			"In doubt:", "changed since 20261128-060000", "<title>page", "At backup <code>20261128-060000</code> it was different",
			"<ins>0003 debian</ins>", "<code>002A</code>"},
		"/boxes/10.0.0.1/disks?part=1&backup=" + latest: {"chart-disk"},
		"/jobs/j1": {"running", "30 %", "abababab", "1.00 GiB", "data-live", "Cancel", "Could not be read",
			"12.0 GiB came from other boxes, 1.00 GiB from the server", "One of 16 boxes that restore",
			"5.00 GiB came from other boxes, 2.00 GiB from the server. 7.00 GiB went to other boxes.", "two say "},
		"/jobs/j1/now":        {"running", "30 %"},
		"/boxes/10.0.0.1/now": {"suspect", "30 %", "Restore it, or release it"},
	} {
		w := get(t, h, path)
		body := w.Body.String()
		if w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, body)
		}
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
		tame(t, path, body)
		if strings.Contains(path, "part=1") && strings.Contains(body, "firmware-h") {
			t.Errorf("%s is put into a page that has the firmware already", path)
		}
		if strings.Contains(path, "part=1") && strings.Contains(body, "<title>page") {
			t.Errorf("%s has a frame", path)
		}
	}
	for path, want := range map[string]string{
		"/boxes/10.0.0.1/log?offset=-5&follow=true&x=y": "get-log map[box:10.0.0.1 follow:true offset:-5]",
		"/boxes/10.0.0.1/log?offset=abc":                "get-log map[box:10.0.0.1]",
		"/boxes/..%2fx/inventory":                       "get-inventory map[box:../x form:text]",
		"/boxes/10.0.0.1/backups/b1/boot.png":           "get-boot-picture map[backup:b1 owner:10.0.0.1]",
	} {
		w := get(t, h, path)
		if w.Body.String() != "forwarded "+want || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	for _, path := range []string{"/boxes/10.0.0.9", "/jobs/x", "/jobs/x/now", "/boxes/10.0.0.1/disks?backup=x"} {
		if w := get(t, h, path); w.Code != 400 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestParts: what cannot be known of a box leaves the rest of its page, and says so.
func TestParts(t *testing.T) {
	f := lab(ledger.Viewer, 3)
	for _, path := range []string{"/jobs", "/backups/10.0.0.1", "/boxes/10.0.0.1/rates", "/boxes/10.0.0.1/inventory/changes",
		"/boxes/10.0.0.1/firmware"} {
		f.answers[path] = &api.Problem{Status: 500, Code: api.CodeFailed, Detail: "out of order: " + path + evil}
	}
	body := get(t, serve(f), "/boxes/10.0.0.1").Body.String()
	if n := strings.Count(body, "out of order: "); n != 6 || !strings.Contains(body, "suspect") {
		t.Errorf("%d parts say why they are not there", n)
	}
	tame(t, "the page", body)
	empty := &fake{answers: map[string]any{"/me": api.Me{Role: ledger.Viewer}, "/boxes/10.0.0.1": api.Box{Address: "10.0.0.1"}}}
	if w := get(t, serve(empty), "/boxes/10.0.0.1"); w.Code != 200 {
		t.Errorf("an empty box: %s", w.Body)
	}
}

// TestRolesOfPages: nobody is offered what the role does not allow.
func TestRolesOfPages(t *testing.T) {
	for role, want := range map[ledger.Role][2]bool{ledger.Viewer: {}, ledger.Operator: {true, false}, ledger.Admin: {true, true}} {
		body := get(t, serve(lab(role, 5)), "/boxes/10.0.0.1").Body.String()
		if got := [2]bool{strings.Contains(body, `value="pin"`), strings.Contains(body, `value="delete"`)}; got != want {
			t.Errorf("%s is offered to pin and to delete: %v", role, got)
		}
		if strings.Contains(body, "/act/") != want[0] {
			t.Errorf("%s is offered wrong actions", role)
		}
	}
}

func TestActs(t *testing.T) {
	const id = "20261129-060000"
	post := func(f *fake, form url.Values) (*httptest.ResponseRecorder, string) {
		f.asked = nil
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/boxes/10.0.0.1/backups/"+id, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		serve(f).ServeHTTP(w, r)
		return w, strings.Join(f.asked, "\n")
	}
	f := lab(ledger.Admin, 5)
	for _, test := range []struct {
		form string
		want string // what is asked of the API
		code int
	}{
		{"do=pin", `set-backup {"backup":"` + id + `","owner":"10.0.0.1"} {"pinned":true,"why":"from the page"}`, 303},
		{"do=unpin", `set-backup {"backup":"` + id + `","owner":"10.0.0.1"} {"pinned":false,"why":"from the page"}`, 303},
		{"do=baseline", `set-backup {"backup":"` + id + `","owner":"10.0.0.1"} {"baseline":true,"why":"from the page"}`, 303},
		{"do=unbaseline", `set-backup {"backup":"` + id + `","owner":"10.0.0.1"} {"baseline":false,"why":"from the page"}`, 303},
		{"do=note&note=hello", `set-backup {"backup":"` + id + `","owner":"10.0.0.1"} {"note":"hello","why":"from the page"}`, 303},
		{"do=note&note=" + strings.Repeat("x", 1001), "", 400},
		{"do=delete", "", 400},
		{"do=delete&confirm=20261128-060000", "", 400},
		{"do=delete&confirm=" + id, `delete-backup {"backup":"` + id + `","owner":"10.0.0.1","why":"from the page"} null`, 303},
		{"do=everything", "", 400}, {"", "", 400}, {"do=note&note=" + strings.Repeat("x", 20000), "", 400},
	} {
		form, _ := url.ParseQuery(test.form)
		w, asked := post(f, form)
		if asked != test.want || w.Code != test.code {
			t.Errorf("%.60s: %d, and the API was asked %s", test.form, w.Code, asked)
		}
	}
	// What the API refuses is not shown as done.
	f.answers["/backups/10.0.0.1/"+id] = &api.Problem{Status: 409, Code: api.CodeRefused, Detail: "a job needs it"}
	if w, _ := post(f, url.Values{"do": {"pin"}}); w.Code == 303 || !strings.Contains(w.Body.String(), "a job needs it") {
		t.Errorf("a refusal: %d %s", w.Code, w.Body)
	}
}

// BenchmarkBox makes the page of a box with 1000 backups.
func BenchmarkBox(b *testing.B) {
	f := lab(ledger.Admin, 1000)
	h := serve(f)
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/boxes/10.0.0.1", nil))
		if w.Code != 200 || w.Body.Len() > 1<<20 {
			b.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
		}
	}
}

// TestPercent: a share is rounded down, so that nothing looks whole that is not.
func TestPercent(t *testing.T) {
	for _, test := range []struct {
		part, all int64
		want      string
	}{{0, 0, "0 %"}, {0, 5, "0 %"}, {-1, 5, "0 %"}, {1, 1000, "under 1 %"}, {299, 1000, "29 %"}, {999, 1000, "99 %"}, {5, 5, "100 %"},
		{6, 5, "100 %"}, {1 << 62, 1<<63 - 1, "50 %"}} {
		if got := Percent(test.part, test.all); got != test.want {
			t.Errorf("%d of %d is %q, not %q", test.part, test.all, got, test.want)
		}
	}
}

// TestFailedBootTest: that the latest backup did not start is said at the top, and of an older one it is not.
func TestFailedBootTest(t *testing.T) {
	f := lab(ledger.Viewer, 3)
	list := f.answers["/backups/10.0.0.1"].(api.BackupList)
	for i, want := range map[int]bool{0: false, 2: true} {
		for n := range list.Backups {
			list.Backups[n].Boot = nil
		}
		list.Backups[i].Boot = &api.BootTest{Time: now, Verdict: image.BootFailed, Sign: image.SignRead, Text: evil, Firmware: "bios"}
		body := get(t, serve(f), "/boxes/10.0.0.1").Body.String()
		tame(t, "a failed boot test", body)
		if got := strings.Contains(body, "The boot test of the latest backup failed."); got != want ||
			!strings.Contains(body, "It read its disks") || strings.Contains(body, "boot.png") {
			t.Errorf("backup %d: %v in %s", i, got, body)
		}
	}
}
