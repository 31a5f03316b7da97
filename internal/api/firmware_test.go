package api_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
)

// uefi is the state of a firmware that has this boot order.
func uefi(order ...efi.Number) efi.State {
	return efi.State{Kind: efi.UEFI, Bits: 64, Vendor: "Maker", Version: "1.0", SecureBoot: "on", Order: order, Entries: []efi.Entry{
		{Number: 1, Name: "PXE", Active: true, Kind: efi.NetworkEntry, Option: bytes.Repeat([]byte{1}, 500)},
		{Number: 2, Name: "debian", Active: true, Kind: efi.DiskEntry, File: `\EFI\debian\shimx64.efi`}}}
}

// notes writes what a start of a box has noted of its firmware.
func (r *rig) notes(of string, n *efi.Note) {
	r.t.Helper()
	folder, err := r.area.Box(addr(r.t, of))
	must(r.t, err)
	n.Format = efi.NoteFormat
	must(r.t, folder.WriteFile(box.FirmwareFile, n.Marshal()))
}

// commitFirmware makes a backup with a state of the firmware.
func commitFirmware(t *testing.T, s *store.Locked, of string, state *efi.State) string {
	t.Helper()
	b := s.Begin()
	defer b.Close()
	r := &image.Record{Format: image.RecordFormat, Box: of, Firmware: state, Disks: []image.RecordedDisk{{
		Name: "sda", Disk: image.Identity{Size: 8192, SectorSize: 512}, Data: 8192,
		Root: conform.SaveImage(t, b, bytes.Repeat([]byte("fw"), 4096)),
	}}}
	must(t, b.Commit(t.Context(), r))
	return r.ID
}

// Boxes say what their latest start of the maintenance system has noted of their firmware, and the metrics count those that
// need somebody.
func TestFirmwareOfBoxes(t *testing.T) {
	r := newRig(t)
	r.group("rack")
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		r.box(ledger.Box{Address: addr(t, a), Groups: []string{"rack"}})
	}
	at := time.Date(2026, 11, 29, 11, 0, 0, 0, time.UTC)
	r.notes("10.0.0.1", &efi.Note{Time: at, State: uefi(1, 2),
		NetworkFirst: &efi.NetworkFirst{Result: efi.OrderRepaired, Text: "It was 0002."}})
	r.notes("10.0.0.2", &efi.Note{Time: at, State: efi.State{Kind: efi.BIOS, Version: "2.0"}})
	folder, err := r.area.Box(addr(t, "10.0.0.3"))
	must(t, err)
	must(t, folder.WriteFile(box.FirmwareFile, []byte(`{"format":1,"state":{"kind":"\u202e"}}`)))
	c := r.root()
	list := func() []api.Box {
		var l api.BoxList
		c.want(200, "GET", "/api/v1/boxes", nil, &l)
		if len(l.Boxes) != 4 {
			t.Fatalf("%+v", l)
		}
		return l.Boxes
	}
	boxes := list()
	want := api.BoxFirmware{Kind: "UEFI", Version: "Maker 1.0", SecureBoot: "on", BootOrder: efi.OrderRepaired, Why: "It was 0002.", Time: at}
	if f := boxes[0].Firmware; f == nil || *f != want {
		t.Errorf("the first is %+v", f)
	}
	if f := boxes[1].Firmware; f == nil || *f != (api.BoxFirmware{Kind: "BIOS", Version: "2.0", Time: at}) {
		t.Errorf("the second is %+v", f)
	}
	if boxes[2].Firmware != nil || boxes[3].Firmware != nil {
		t.Errorf("the others are %+v, %+v", boxes[2].Firmware, boxes[3].Firmware)
	}
	metric := func(result string, n string) {
		t.Helper()
		if _, text := c.do("GET", "/metrics", nil); !strings.Contains(string(text), `testbox_boot_orders{result="`+result+`"} `+n) {
			t.Errorf("the metrics do not have %s boxes with the result %s", n, result)
		}
	}
	metric("repaired", "1")
	metric("ignored", "0")

	// The next start finds that the order did not stay.
	r.notes("10.0.0.1", &efi.Note{Time: at, State: uefi(1, 2),
		NetworkFirst: &efi.NetworkFirst{Result: efi.OrderIgnored, Text: "It was undone."}})
	for _, b := range []api.Box{list()[0], func() (b api.Box) { c.want(200, "GET", "/api/v1/boxes/10.0.0.1", nil, &b); return b }()} {
		if f := b.Firmware; f == nil || f.BootOrder != efi.OrderIgnored || !f.Needs || f.Why != "It was undone." {
			t.Errorf("it says %+v", f)
		}
	}
	metric("ignored", "1")
	must(t, os.Remove(folder.Path(box.FirmwareFile)))
	metric("repaired", "0")

	// A file that is none of this box is not read.
	other := r.area.Look(addr(t, "10.0.0.1"))
	must(t, os.Symlink(other.Path(box.FirmwareFile), folder.Path(box.FirmwareFile)))
	if f := list()[2].Firmware; f != nil {
		t.Errorf("a link is read: %+v", f)
	}
	must(t, os.Symlink(other.Dir(), r.area.Look(addr(t, "10.0.0.4")).Dir()))
	if f := list()[3].Firmware; f != nil {
		t.Errorf("the folder of another box is read: %+v", f)
	}
}

// lostLatest is a store that cannot say which backups are the latest.
type lostLatest struct{ api.Backups }

func (lostLatest) Latest(context.Context, []string) (map[string]store.Backup, error) {
	return nil, errors.New("the store is away")
}

// The state of a box's firmware is compared with the latest backup, and that of a backup with an earlier one.
func TestFirmwareCompared(t *testing.T) {
	s, ids := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups = s })
	far := newRigWith(t, func(cfg *api.Config) { cfg.Backups = lostLatest{s} })
	c := r.root()
	for _, r := range []*rig{r, far} {
		r.group("rack")
		r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
		r.box(ledger.Box{Address: addr(t, "10.0.0.2")})
	}
	const now, then = "/api/v1/boxes/10.0.0.1/firmware", "/api/v1/backups/10.0.0.1/"
	c.want(404, "GET", now, nil, nil)
	note := &efi.Note{Time: r.clock(), State: uefi(2, 1), PutBack: &efi.PutBack{Left: []string{"It is full."}},
		NetworkFirst: &efi.NetworkFirst{Result: efi.OrderFailed, Text: "It is full."}}
	r.notes("10.0.0.1", note)
	far.notes("10.0.0.1", note)
	var is api.FirmwareNow
	c.want(200, "GET", now, nil, &is)
	if is.Since != "" || is.Unknown != "" || is.Changes == nil || len(is.Changes) > 0 || is.State.Entries[1].Name != "debian" ||
		is.PutBack == nil || !is.Needs {
		t.Errorf("without a backup that says something: %+v", is)
	}
	first := uefi(1, 2)
	ids = append(ids, commitFirmware(t, s, "10.0.0.1", &first))
	c.want(200, "GET", now, nil, &is)
	order := efi.Change{What: "boot order", Was: "0001 PXE, 0002 debian", Is: "0002 debian, 0001 PXE"}
	if is.Since != ids[3] || is.SinceKind != efi.UEFI || !slices.Equal(is.Changes, []efi.Change{order}) {
		t.Errorf("it is compared: %+v", is)
	}
	far.root().want(200, "GET", now, nil, &is)
	if is.Unknown == "" || len(is.State.Entries) != 2 {
		t.Errorf("without the store: %+v", is)
	}

	second := uefi(1, 2)
	second.Kind, second.SecureBoot = efi.UEFI, "off"
	ids = append(ids, commitFirmware(t, s, "10.0.0.1", &second))
	var list api.BackupList
	c.want(200, "GET", "/api/v1/backups/10.0.0.1", nil, &list)
	brief := api.BackupFirmware{Kind: "UEFI", Version: "Maker 1.0", SecureBoot: "off"}
	if list.Backups[0].Firmware != nil || *list.Backups[3].Firmware != brief {
		t.Errorf("the list has %+v", list)
	}
	var was api.FirmwareThen
	secure := efi.Change{What: "Secure Boot", Was: "on", Is: "off"}
	c.want(200, "GET", then+ids[4]+"/firmware", nil, &was)
	if was.With != ids[3] || !slices.Equal(was.Changes, []efi.Change{secure}) || len(was.State.Entries[0].Option) != 500 {
		t.Errorf("the backup: %+v", was)
	}
	was = api.FirmwareThen{}
	c.want(200, "GET", then+ids[3]+"/firmware", nil, &was)
	if was.With != "" || was.Changes == nil || len(was.Changes) > 0 {
		t.Errorf("the first one that says something: %+v", was)
	}
	c.want(200, "GET", then+ids[3]+"/firmware?with="+ids[4], nil, &was)
	if was.With != ids[4] || len(was.Changes) != 1 || was.Changes[0].Is != "on" {
		t.Errorf("compared with the later one: %+v", was)
	}
	for _, path := range []string{then + ids[0] + "/firmware", then + "20200101-000000/firmware", then + ids[4] + "/firmware?with=" + ids[0],
		then + ids[4] + "/firmware?with=20200101-000000", "/api/v1/boxes/10.0.0.2/firmware", "/api/v1/boxes/10.0.0.9/firmware"} {
		c.want(404, "GET", path, nil, nil)
	}
	limited := r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack"}))
	limited.want(200, "GET", now, nil, nil)
	limited.want(200, "GET", then+ids[4]+"/firmware", nil, nil)
	other := commitFirmware(t, s, "10.0.0.2", &second)
	limited.want(404, "GET", "/api/v1/backups/10.0.0.2/"+other+"/firmware", nil, nil)

	folder := r.area.Look(addr(t, "10.0.0.1"))
	must(t, os.WriteFile(folder.Path(box.FirmwareFile), bytes.Repeat([]byte(" "), efi.MaxNote+1), 0o644))
	c.want(404, "GET", now, nil, nil)
}
