package main

import (
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/doctor"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/testenv/fakelab"
)

// TestDoctorAlike: the doctor names each box of the list whose disks cannot be told apart, and no box that is retired.
func TestDoctorAlike(t *testing.T) {
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u, err := user.Current()
	check(err)
	g, err := user.LookupGroupId(u.Gid)
	check(err)
	socket := filepath.Join(dir, "sock")
	l, err := fakelab.Start(dir, socket, g.Name)
	check(err)
	t.Cleanup(l.Close)
	c, err := apiclient.New(apiclient.Config{Server: socket})
	check(err)
	t.Cleanup(func() { c.Close() })
	put := func(a string, h ledger.Health, serials ...string) {
		addr, err := box.ParseAddr(a)
		check(err)
		check(l.Ledger.Update(t.Context(), func(tx *ledger.Tx) error { return tx.PutBox(ledger.Box{Address: addr, Health: h}) }))
		folder, err := l.Area.Box(addr)
		check(err)
		inv := &inventory.Inventory{Format: 1}
		for i, s := range serials {
			inv.Disks = append(inv.Disks, inventory.Disk{Name: "vd" + string(rune('a'+i)), Identity: image.Identity{Serial: s, Size: 1 << 30},
				Transport: "virtio"})
		}
		check(folder.WriteFile(box.InfoJSON, inv.JSON()))
	}
	look := func() []doctor.Finding {
		t.Helper()
		var list api.BoxList
		check(c.Do(t.Context(), "GET", apiclient.Path("boxes"), nil, &list))
		return alikeDisks(t.Context(), c, list.Boxes)
	}
	put("10.0.0.1", ledger.Good, "A", "B")
	put("10.0.0.2", ledger.Retired, "", "")
	unknown, err := box.ParseAddr("10.0.0.9")
	check(err)
	check(l.Ledger.Update(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutBox(ledger.Box{Address: unknown, Health: ledger.Good})
	}))
	if all := look(); len(all) != 1 || all[0].Severity != doctor.Fine ||
		!strings.Contains(all[0].Text, "the disks of 1 box can be told apart, and those of 1 ") {
		t.Errorf("no box has such disks: %+v", all)
	}
	put("10.0.0.3", ledger.Good, "", "")
	put("10.0.0.4", ledger.Good, "X", "X")
	all := look()
	if len(all) != 2 || all[0].Severity != doctor.Warning || !strings.Contains(all[0].Text, "the box 10.0.0.3: The disks vda, vdb") ||
		!strings.Contains(all[1].Text, "10.0.0.4") {
		t.Errorf("two boxes have such disks: %+v", all)
	}

	// What could not be asked is not known to be well.
	l.Close()
	if all := alikeDisks(t.Context(), c, []api.Box{{Address: "10.0.0.1"}, {Address: "10.0.0.4"}}); len(all) != 1 ||
		all[0].Severity != doctor.NotLooked {
		t.Errorf("of a server that is gone: %+v", all)
	}
}
