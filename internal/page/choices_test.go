package page_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
)

var (
	inputs = regexp.MustCompile(`<input[^>]*>`)
	attr   = regexp.MustCompile(`\b(name|value|type)="([^"]*)"`)
)

// formOf reads the form of an action from its page, as a browser sends it.
func formOf(text string) url.Values {
	_, text, _ = strings.Cut(text, `<form method="post" action="/act/`)
	text, _, _ = strings.Cut(text, "</form>")
	form := url.Values{}
	for _, tag := range inputs.FindAllString(text, -1) {
		is := map[string]string{}
		for _, a := range attr.FindAllStringSubmatch(tag, -1) {
			is[a[1]] = html.UnescapeString(a[2])
		}
		if is["type"] != "checkbox" || strings.Contains(tag, " checked") {
			form.Add(is["name"], is["value"])
		}
	}
	return form
}

// next sends a form that leads to another page, and returns its path.
func (b *browser) next(path string, form url.Values) string {
	b.t.Helper()
	resp, text := b.post(path, form)
	if resp.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("%s: %d %s", path, resp.StatusCode, text)
	}
	return resp.Header.Get("Location")
}

// TestChoices asks for a restore of another box's backup with all that can be chosen. What was chosen is shown before anything is
// done, and the job has it.
func TestChoices(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "golden"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Name: "web-2"})
	r.done(addr(t, "10.0.0.1"), box.Backup)
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	text := b.shows("/act/restore?box=web-2")
	has(t, text, "Left out", `<details class="choices">`, `name="hook" value="machine-id"`)
	hasNone(t, text, "Overwrite and restore</button>")

	// A mistake stays where it was typed, with the reason.
	form := formOf(text)
	form.Set("from", "golden")
	form.Set("map", "sda")
	form.Set("why", "a <test>")
	form.Set("up", "1")
	form.Set("show", "1")
	at := b.next("/act/restore", form)
	text = b.shows(at)
	has(t, text, "Left out", "is not of the form IMAGE=DISK", `value="golden"`, `name="map" value="sda"`, `value="a &lt;test&gt;"`,
		`name="up" value="1" checked`, `<details class="choices" open>`)
	for _, wrong := range []url.Values{{"from": {"nobody"}}, {"hook": {"rm"}}, {"from": {foreign}}, {"image": {"20200101-000000"}}} {
		wrong.Set("box", "10.0.0.2")
		text := b.shows("/act/restore?" + wrong.Encode())
		has(t, text, "Left out", `name="left" value="10.0.0.2"`, "Show what will happen then")
		hasNone(t, text, "<script>alert", "Overwrite and restore</button>")
	}

	// All is right, and shown.
	form = formOf(text)
	form.Set("map", "sda=nvme0n1, sdz=sdq")
	form.Set("shrink", "1")
	form["hook"] = []string{"ssh-keys", "hostname"}
	form.Set("show", "1")
	text = b.shows(b.next("/act/restore", form))
	has(t, text, "Disks of this box are overwritten", "of the box <strong>10.0.0.1</strong>", "goes onto <strong>nvme0n1</strong>",
		"The backup has no image sdz", "smaller than its image is taken", "Then the restored system is changed: ssh-keys, hostname.",
		"gets the machine-id of 10.0.0.1 too", "Nothing has been done yet", "Overwrite and restore</button>")
	hasNone(t, text, "These disks are overwritten")

	// What was chosen since then is not done before it was shown, also if the main button is pressed.
	form = formOf(text)
	form.Set("map", "sda=nvme0n1")
	form["hook"] = []string{"hostname", "machine-id"}
	jobs := r.jobs()
	at = b.next("/act/restore", form)
	if !strings.HasPrefix(at, "/act/restore?") || r.jobs() != jobs {
		t.Fatalf("what was not shown leads to %q and %d jobs", at, r.jobs()-jobs)
	}
	form["hook"] = []string{"machine-id"} // somebody goes back, and chooses again
	text = b.shows(b.next("/act/restore", form))
	hasNone(t, text, "gets the machine-id of", "The backup has no image")
	form = formOf(text)
	at = b.next("/act/restore", form)
	st, err := r.lab.Dispatch.Job(t.Context(), strings.TrimPrefix(at, "/jobs/"))
	must(t, err)
	o := st.Options
	if st.Action != box.Restore || o.From != "10.0.0.1" || o.Image == "" || strings.Contains(o.Image, "@") || !o.ShrinkTable || !st.WaitUp ||
		!slices.Equal(o.Map, []string{"sda=nvme0n1"}) || !slices.Equal(o.Hooks, []box.Hook{box.HookMachineID}) || r.jobs() != jobs+1 {
		t.Errorf("%+v, %d jobs", st, r.jobs()-jobs)
	}
	has(t, b.shows(at), "From the box", "10.0.0.1", "sda=nvme0n1", "machine-id", "Smaller disks")
	if again := b.next("/act/restore", form); again != at {
		t.Errorf("the same form leads to %q, and then to %q", at, again)
	}
}

// TestChoicesElsewhere: what makes no sense for an action is not offered, and a token of a group gets no other group's backup.
func TestChoicesElsewhere(t *testing.T) {
	r := newRig(t)
	must(t, r.lab.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutGroup(ledger.Group{Name: "rack"}) }))
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "secret-box"})
	r.box(ledger.Box{Address: addr(t, "10.0.0.2"), Groups: []string{"rack"}})
	for _, a := range []string{"10.0.0.1", "10.0.0.2"} {
		r.done(addr(t, a), box.Backup)
	}
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator, Group: "rack"})
	has(t, b.shows("/act/verify?box=10.0.0.2"), `name="map"`, `name="from"`, `name="shrink"`)
	hasNone(t, b.shows("/act/verify?box=10.0.0.2"), `name="hook"`)
	for _, a := range []string{"backup", "rescue", "hold", "cancel"} {
		hasNone(t, b.shows("/act/"+a+"?box=10.0.0.2&map=sda%3Dsdb&from=secret-box"), "More choices", `name="map"`)
	}
	for _, from := range []string{"secret-box", "10.0.0.1"} {
		text := b.shows("/act/restore?box=10.0.0.2&from=" + from)
		has(t, text, "Left out")
		hasNone(t, text, "Overwrite and restore</button>", "@2026")
	}
	jobs := r.jobs()
	form := formOf(b.shows("/act/restore?box=10.0.0.2"))
	form.Set("from", "secret-box")
	form.Set("shown", "from=secret-box")
	form.Set("meant", strings.ReplaceAll(form.Get("meant"), "=10.0.0.2@", "=10.0.0.1@"))
	if resp, text := b.post("/act/restore", form); resp.StatusCode != http.StatusConflict || r.jobs() != jobs {
		t.Errorf("a form made by hand: %d %s", resp.StatusCode, text)
	} else {
		has(t, text, "Look at it again", `href="/act/restore?box=10.0.0.2&amp;from=secret-box`)
	}
}

// TestChoicesOfMany: of many boxes, those that are left out are still there when the choices are mended.
func TestChoicesOfMany(t *testing.T) {
	r := newRig(t)
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		r.box(ledger.Box{Address: addr(t, a)})
	}
	r.done(addr(t, "10.0.0.1"), box.Backup)
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	text := b.shows("/act/restore?box=10.0.0.1&box=10.0.0.2&box=10.0.0.3")
	has(t, text, "2 of 3 boxes would be refused")
	form := formOf(text)
	form.Set("from", "10.0.0.1")
	form["hook"] = []string{"ssh-keys"}
	form.Set("show", "1")
	text = b.shows(b.next("/act/restore", form))
	has(t, text, "1 of 3 boxes would be refused", "also the one whose backup is used")
	if n := strings.Count(text, "gets the machine-id of 10.0.0.1 too"); n != 2 {
		t.Errorf("%d boxes get the machine-id of another: %s", n, text)
	}
}

// TestAgainWithoutDone: whoever looks again at what failed for some boxes does not ask a second time for the others.
func TestAgainWithoutDone(t *testing.T) {
	r := newRig(t)
	for _, a := range []string{"10.0.0.1", "10.0.0.2"} {
		r.box(ledger.Box{Address: addr(t, a)})
		r.done(addr(t, a), box.Backup)
	}
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	form := formOf(b.shows("/act/restore?box=10.0.0.1&box=10.0.0.2"))
	for i, mark := range form["mark"] {
		if strings.HasPrefix(mark, "10.0.0.2=") {
			form["mark"][i] = "10.0.0.2=another"
		}
	}
	resp, text := b.post("/act/restore", form)
	if resp.StatusCode != http.StatusConflict {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	has(t, text, "It has the job", `href="/act/restore?box=10.0.0.2"`)
}

// TestDisksOfBox: the form says which disks the box has, and which of them cannot be told apart.
func TestDisksOfBox(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	folder, err := r.lab.Area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	disk := func(name, path string) inventory.Disk {
		return inventory.Disk{Name: name, Transport: "virtio",
			Identity: image.Identity{Model: foreign, Path: path, Size: 1 << 30, SectorSize: 512}}
	}
	inv := inventory.Inventory{Format: 1, Disks: []inventory.Disk{disk("vda", "p1"), disk("vdb", "p2")}}
	must(t, folder.WriteFile(box.InfoJSON, inv.JSON()))
	b := r.as(ledger.Token{Name: "o", Role: ledger.Operator})
	for _, path := range []string{"/act/restore?box=10.0.0.1", "/boxes/10.0.0.1"} {
		text := b.shows(path)
		has(t, text, "vda", "vdb", "The disks vda, vdb are built alike", "1.00 GiB")
		hasNone(t, text, "<script>alert")
	}
}
