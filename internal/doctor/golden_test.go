package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

// TestCopies: the latest restore of a box counts, if it succeeded.
func TestCopies(t *testing.T) {
	job := func(b, from string, o box.Outcome, hooks ...box.Hook) api.Job {
		return api.Job{ID: "j", Box: b, Action: box.Restore, Outcome: o, Options: api.Options{From: from, Hooks: hooks}}
	}
	verify := job("10.0.0.5", "10.0.0.1", box.Done)
	verify.Action = box.Verify
	all := Copies([]api.Job{
		job("10.0.0.2", "10.0.0.1", box.Failed, box.HookMachineID), job("10.0.0.2", "10.0.0.1", box.Done, box.HookHostname),
		job("10.0.0.3", "10.0.0.1", box.Done, box.HookMachineID), job("10.0.0.3", "10.0.0.1", box.Done),
		job("10.0.0.4", "", box.BadSectors), job("10.0.0.4", "10.0.0.1", box.Done), verify,
	})
	has(t, all, Warning, "machine-id", "10.0.0.2 has the system of 10.0.0.1")
	if len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

// TestAlike: disks that cannot be told apart are a warning, with what to do where they stay in place, and where nothing helps.
func TestAlike(t *testing.T) {
	all := Alike("10.0.0.2", []api.AlikeDisks{{Disks: []string{"vda", "vdb"}, Placed: true, Text: "The disks vda, vdb are alike."},
		{Disks: []string{"sda", "sdb"}, Text: "Nothing tells them apart."}})
	has(t, all, Warning, "alike", "the box 10.0.0.2: The disks vda, vdb are alike.")
	has(t, all, Warning, "alike", "Nothing tells them apart.")
	if len(all) != 2 || strings.Contains(all[0].Do, "Leave them") == strings.Contains(all[1].Do, "Leave them") ||
		!strings.Contains(all[1].Do, "testbox restore 10.0.0.2 --map") {
		t.Errorf("%+v", all)
	}
	if all := Alike("10.0.0.2", nil); all != nil {
		t.Errorf("disks that are not alike: %+v", all)
	}
}

// TestShareCopies: in share mode the record of each box says whose system it has.
func TestShareCopies(t *testing.T) {
	p := place(t)
	has(t, ShareCopies(p), NotLooked, "machine-id", "backup area")
	dir := filepath.Join(filepath.Dir(p.Boot.TFTP()), "testbox-backup")
	write(t, filepath.Join(dir, sharedir.Marker), "")
	area, err := p.Backup()
	must(t, err)
	done := func(b string, action box.Action, from string, hooks ...box.Hook) {
		t.Helper()
		addr, err := box.ParseAddr(b)
		must(t, err)
		folder, err := area.Box(addr)
		must(t, err)
		must(t, folder.SetLast(sharedir.LastAction{Arming: box.NewArming(), Action: action, Outcome: box.Done, Time: p.Now(),
			Restored: &sharedir.Restored{Arming: box.NewArming(), Time: p.Now(), From: from, Hooks: hooks}}))
	}
	done("10.0.0.2", box.Restore, "10.0.0.1", box.HookHostname)
	done("10.0.0.2", box.BackupAgain, "") // it has that system still
	done("10.0.0.3", box.Restore, "10.0.0.1", box.HookMachineID)
	done("10.0.0.4", box.Restore, "10.0.0.1")
	done("10.0.0.4", box.Restore, "")
	done("10.0.0.5", box.Verify, "10.0.0.1")
	write(t, filepath.Join(dir, "10.0.0.6", "last-action.json"), "damaged")
	all := ShareCopies(p)
	has(t, all, Warning, "machine-id", "10.0.0.2 has the system of 10.0.0.1")
	has(t, all, NotLooked, "machine-id", "10.0.0.6")
	if len(all) != 2 {
		t.Errorf("%+v", all)
	}
	has(t, ShareBox(t.Context(), p, "10.0.0.2"), Warning, "machine-id", "10.0.0.2 has the system of 10.0.0.1")
}
