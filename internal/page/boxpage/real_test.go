package boxpage

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/testenv/fakelab"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// realSite has visitors of a real API, and no frame.
type realSite struct {
	fakeSite
	v *api.Visitor
}

func (s realSite) API(*http.Request) API { return s.v }
func (s realSite) Forward(w http.ResponseWriter, r *http.Request, route string, params Params) {
	s.v.Pass(w, r, route, params)
}

// TestRealAPI makes the pages of what a real API answers, over a real store.
func TestRealAPI(t *testing.T) {
	dir := t.TempDir()
	u, err := user.Current()
	must(t, err)
	g, err := user.LookupGroupId(u.Gid)
	must(t, err)
	lab, err := fakelab.Start(dir, filepath.Join(dir, "s"), g.Name)
	must(t, err)
	t.Cleanup(lab.Close)
	addr, err := box.ParseAddr("10.0.0.1")
	must(t, err)
	secrets := map[ledger.Role]string{}
	must(t, lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		for _, role := range []ledger.Role{ledger.Viewer, ledger.Admin} {
			secrets[role] = "secret-of-" + string(role)
			err := tx.PutToken(ledger.Token{Hash: sha256.Sum256([]byte(secrets[role])), Name: string(role), Role: role})
			if err != nil {
				return err
			}
		}
		return tx.PutBox(ledger.Box{Address: addr, Name: "web-1", Health: ledger.Good, LastSeen: time.Now()})
	}))
	folder, err := lab.Area.Box(addr)
	must(t, err)
	inv := &inventory.Inventory{Format: 1, Memory: 1 << 30, Disks: []inventory.Disk{{Name: "sda", Health: inventory.Health{Status: "good"}}}}
	must(t, folder.WriteFile(box.InfoBefore, inv.JSON()))
	inv.Memory = 2 << 30
	must(t, folder.WriteFile(box.InfoJSON, inv.JSON()))
	must(t, folder.WriteFile(box.InfoText, []byte("a machine <b>")))
	state := efi.State{Kind: efi.UEFI, SecureBoot: "on", Order: []efi.Number{1, 2}, Entries: []efi.Entry{
		{Number: 1, Name: "a card", Active: true, Kind: efi.NetworkEntry}, {Number: 2, Name: "debian <b>", Active: true, Kind: efi.DiskEntry}}}
	note := &efi.Note{Format: efi.NoteFormat, State: state, NetworkFirst: &efi.NetworkFirst{Result: efi.OrderNone}}
	must(t, folder.WriteFile(box.FirmwareFile, note.Marshal()))
	must(t, folder.WriteFile(box.LogFile, []byte("a line </pre><script>alert(1)</script>\n")))

	must(t, store.InitDir(t.Context(), filepath.Join(dir, "store")))
	s, err := store.OpenDir(t.Context(), filepath.Join(dir, "store"), nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	var ids []string
	for i := range 3 {
		b := s.Begin()
		r := &image.Record{Format: image.RecordFormat, Box: addr.String(), Disks: []image.RecordedDisk{{
			Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Data: 8192, Stored: 1000,
			Root: conform.SaveImage(t, b, bytes.Repeat([]byte{byte(i), 'x'}, 4096)),
		}}}
		if then := state; i > 0 {
			then.Order = []efi.Number{efi.Number(i), efi.Number(3 - i)} // the last one has another order
			r.Firmware = &then
		}
		must(t, b.Commit(t.Context(), r))
		must(t, b.Close())
		ids = append(ids, r.ID)
	}
	server := api.New(api.Config{Ledger: lab.Ledger, Jobs: lab.Dispatch, Area: lab.Area, Sights: lab.Sights, Backups: s})
	t.Cleanup(server.Close)
	site := func(role ledger.Role) http.Handler {
		v, err := visit(t, server, secrets[role])
		must(t, err)
		mux := http.NewServeMux()
		(&Pages{}).Routes(mux, realSite{v: v})
		return mux
	}
	admin := site(ledger.Admin)
	v, err := visit(t, server, secrets[ledger.Admin])
	must(t, err)
	var jobs api.JobList
	must(t, v.Ask(t.Context(), "add-jobs", nil, api.NewJobs{Action: box.Backup, Targets: []string{"web-1"}}, &jobs))
	for end := time.Now().Add(2 * time.Minute); !jobs.Jobs[0].Ended() && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		must(t, v.Ask(t.Context(), "get-job", Params{"job": jobs.Jobs[0].ID}, nil, &jobs.Jobs[0]))
	}

	page := func(h http.Handler, path string, wants ...string) {
		t.Helper()
		w := get(t, h, path)
		for _, want := range wants {
			if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: %d, without %q: %s", path, w.Code, want, w.Body)
			}
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" { // what is forwarded is a plain text
			tame(t, path, w.Body.String())
		}
	}
	page(admin, "/boxes/web-1", "10.0.0.1", "good", ids[0], ids[2], "1000 B", "2.00 GiB", "backup: done", `value="delete"`)
	page(admin, "/boxes/web-1", "Switch booting from the network on", "debian &lt;b&gt;", "Boot order: none",
		"At the latest backup, <code>"+ids[2], "<ins>0001 a card, 0002 debian &lt;b&gt;</ins>")
	page(site(ledger.Viewer), "/boxes/10.0.0.1", "10.0.0.1", ids[0], "have the inventory taken")
	page(admin, "/boxes/10.0.0.1/disks?backup="+ids[2], "At backup <code>"+ids[1]+"</code> it was different")
	page(admin, "/boxes/10.0.0.1/disks?backup="+ids[0], "says nothing of the firmware")
	page(admin, "/boxes/10.0.0.1/disks?backup="+ids[2], "chart-disk", "changed since "+ids[1]+": 8.00 KiB")
	page(admin, "/jobs/"+jobs.Jobs[0].ID, "Ended", "web-1", "Read back and right")
	page(admin, "/jobs/"+jobs.Jobs[0].ID+"/now", "Ended")
	page(admin, "/boxes/web-1/now", "good", "backup: done")
	for path, header := range map[string]string{"/boxes/web-1/now": Idle, "/jobs/" + jobs.Jobs[0].ID + "/now": Ended} {
		if get(t, admin, path).Header().Get(header) != "1" {
			t.Errorf("%s is looked at again and again", path)
		}
	}
	page(admin, "/boxes/10.0.0.1/log?offset=0", "a line </pre><script>")
	page(admin, "/boxes/10.0.0.1/inventory", "a machine <b>")
	if w := get(t, admin, "/boxes/10.0.0.1/log?offset=0"); !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") ||
		!strings.Contains(w.Header().Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("the log comes as %v", w.Header())
	}

	post := func(h http.Handler, id, form string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/boxes/10.0.0.1/backups/"+id, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(w, r)
		return w.Code
	}
	if got := post(site(ledger.Viewer), ids[1], "do=pin"); got != 400 {
		t.Errorf("a viewer pins: %d", got)
	}
	for _, act := range []struct {
		id, form string
		want     int
	}{{ids[1], "do=pin", 303}, {ids[1], "do=note&note=" + url.QueryEscape("good <b>"), 303}, {ids[1], "do=delete&confirm=" + ids[1], 400},
		{ids[0], "do=delete&confirm=" + ids[0], 303}} {
		if got := post(admin, act.id, act.form); got != act.want {
			t.Errorf("%s: %d, want %d", act.form, got, act.want)
		}
	}
	page(admin, "/boxes/10.0.0.1", "pinned", "good &lt;b&gt;")
	if records, _, err := s.RecordsOf(t.Context(), addr.String()); err != nil || len(records) != 2 {
		t.Errorf("%d backups are left, %v", len(records), err)
	}
}

// visit logs somebody in.
func visit(t *testing.T, server *api.Server, token string) (*api.Visitor, error) {
	t.Helper()
	login, _, err := server.Login(t.Context(), token, "192.0.2.1:1000")
	if err != nil {
		return nil, err
	}
	return server.Visit(t.Context(), login, "192.0.2.1:1000")
}
