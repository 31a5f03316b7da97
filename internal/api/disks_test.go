package api_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
)

func TestInventoryChanges(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	const path = "/api/v1/boxes/10.0.0.1/inventory/changes"
	c.want(404, "GET", path, nil, nil)
	folder, err := r.area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	put := func(name string, memory int64) {
		inv := &inventory.Inventory{Format: 1, Memory: memory, Time: time.Unix(memory, 0),
			Disks: []inventory.Disk{{Name: "sda", Identity: image.Identity{Serial: "S1", Model: "\u202eBig", Size: 1 << 40},
				Health: inventory.Health{Status: "failing", Note: "it says so", Attributes: []inventory.Attribute{
					{ID: 5, Name: "reallocated sectors", Raw: "8"}, {ID: 9, Name: "power-on hours", Raw: "100"}}}}}}
		must(t, folder.WriteFile(name, inv.JSON()))
	}
	put(box.InfoJSON, 2<<30)
	var got api.InventoryChanges
	c.want(200, "GET", path, nil, &got)
	if len(got.Alike) > 0 {
		t.Errorf("one disk is like another: %+v", got.Alike)
	}
	if len(got.Changes) > 0 || !got.Before.IsZero() || got.Time.Unix() != 2<<30 || len(got.Disks) != 1 {
		t.Errorf("without an inventory before: %+v", got)
	}
	if d := got.Disks[0]; d.Status != "failing" || len(d.Counters) != 1 || len(d.Attributes) != 2 || strings.ContainsRune(d.Model, '\u202e') {
		t.Errorf("the disk is %+v", d)
	}
	put(box.InfoBefore, 1<<30)
	c.want(200, "GET", path, nil, &got)
	if len(got.Changes) != 1 ||
		got.Changes[0] != (inventory.Change{What: "memory", Was: "1.00 GiB", Is: "2.00 GiB"}) || got.Before.Unix() != 1<<30 {
		t.Errorf("the changes are %+v", got)
	}
	must(t, os.WriteFile(folder.Path(box.InfoBefore), []byte("{"), 0o644))
	c.want(404, "GET", path, nil, nil)
	must(t, os.WriteFile(folder.Path(box.InfoJSON), []byte(`{"format":1,"disks":7}`), 0o644))
	c.want(404, "GET", path, nil, nil)
}

// TestAlikeDisks: disks that have no serial and are built alike are said, with what follows from that.
func TestAlikeDisks(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	folder, err := r.area.Box(addr(t, "10.0.0.1"))
	must(t, err)
	disk := func(name, path, transport string) inventory.Disk {
		return inventory.Disk{Name: name, Identity: image.Identity{Path: path, Size: 1 << 30, SectorSize: 512}, Transport: transport}
	}
	inv := &inventory.Inventory{Format: 1, Disks: []inventory.Disk{disk("vda", "p1", "virtio"), disk("vdb", "p2", "virtio"),
		disk("sda", "", "usb"), disk("sdb", "", "usb")}}
	for _, placed := range []bool{true, false} {
		if !placed {
			inv.Disks[1].Path = "p1"
		}
		must(t, folder.WriteFile(box.InfoJSON, inv.JSON()))
		var got api.InventoryChanges
		r.root().want(200, "GET", "/api/v1/boxes/10.0.0.1/inventory/changes", nil, &got)
		if len(got.Alike) != 1 || strings.Join(got.Alike[0].Disks, " ") != "vda vdb" || got.Alike[0].Placed != placed ||
			strings.Contains(got.Alike[0].Text, "is refused") == placed {
			t.Errorf("placed %v: %+v", placed, got.Alike)
		}
	}
}

func TestRates(t *testing.T) {
	jobs := []api.Job{{ID: "a", Receipts: []image.Receipt{{Disk: "sda\x1b", Identity: image.Identity{Serial: "S1"}, Stages: []image.Stage{
		{Name: "read", Bytes: 100e6, Elapsed: time.Second, Active: 500 * time.Millisecond}, {Name: "write"}}}}}, {ID: "b"}}
	got := api.RatesOf(jobs)
	if len(got) != 2 || got[0].Rate != 100e6 || got[0].DiskRate != 200e6 || got[0].Key != "serial number S1" || got[1].Rate != 0 ||
		strings.ContainsRune(got[0].Disk, 0x1b) {
		t.Errorf("the rates are %+v", got)
	}
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	c := r.root()
	for range 3 {
		c.want(201, "POST", "/api/v1/jobs", api.NewJobs{Action: box.Backup, Targets: []string{"10.0.0.1"}}, nil)
	}
	var list api.Rates
	c.want(200, "GET", "/api/v1/boxes/10.0.0.1/rates?jobs=2", nil, &list)
	if list.Rates == nil || len(list.Rates) > 0 {
		t.Errorf("the rates are %+v", list)
	}
	c.want(404, "GET", "/api/v1/boxes/10.0.0.2/rates", nil, nil)
}
