package dispatch

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

func noteOf(a box.Arming, change func(*efi.Note)) *efi.Note {
	entry := efi.Entry{Number: 3, Active: true, Name: "debian", Kind: efi.DiskEntry, File: `\EFI\debian\shimx64.efi`,
		Partition: &efi.Partition{Number: 1, GUID: "aaaaaaaa-1111-2222-3333-444444444444", Volume: "4A3B-0C1D"}}
	n := &efi.Note{Format: efi.NoteFormat, Arming: string(a), NetworkFirst: &efi.NetworkFirst{Result: efi.OrderKept},
		State: efi.State{Kind: efi.UEFI, Order: []efi.Number{3}, Entries: []efi.Entry{entry}}}
	if change != nil {
		change(n)
	}
	return n
}

// TestFirmware: what an agent notes of its box's firmware is given to the next start of
// the box, and the loaders in it are written for GRUB where they are the box's own.
func TestFirmware(t *testing.T) {
	bubble(t, func(r *rig) {
		var loaders [][]bootcfg.LocalLoader
		r.cfg.Loaders = func(addr box.Addr, l []bootcfg.LocalLoader) error {
			loaders = append(loaders, l)
			return errors.New("one of them cannot be written") // nothing fails by it
		}
		r.start(&knife{})
		r.store.add(here, "", "sda").Firmware = &efi.State{Kind: efi.BIOS, Vendor: "x"}
		own := []bootcfg.LocalLoader{{Volume: "4A3B-0C1D", Path: "/EFI/debian/shimx64.efi", Name: "debian"}}
		var before *efi.Note
		restored := func(n *efi.Note) { n.PutBack = &efi.PutBack{} }
		bios := func(n *efi.Note) { n.State = efi.State{Kind: efi.BIOS} }
		for i, c := range []struct {
			action box.Action
			change func(*efi.Note)
			want   [][]bootcfg.LocalLoader
			image  bool
		}{
			{box.RefreshInfo, nil, [][]bootcfg.LocalLoader{own}, false},
			{box.RefreshInfo, bios, nil, false},
			{box.Verify, nil, nil, true},
			{box.Restore, nil, nil, true},
			{box.Restore, restored, [][]bootcfg.LocalLoader{own}, true},
		} {
			loaders = nil
			s := r.add(here, c.action)
			a := r.boot(here).works()
			f, err := r.server().Firmware(ctx, a.hello.Token, a.from)
			if err != nil || !reflect.DeepEqual(f.Before, before) || (f.Image != nil) != c.image || c.image && f.Image.Vendor != "x" {
				t.Errorf("case %d: the firmware is %+v, %v, before %+v", i, f, err, before)
			}
			before = noteOf(s.Arming, c.change)
			if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.FirmwareFile, before.Marshal()); err != nil {
				t.Errorf("case %d: %v", i, err)
			}
			before, _ = efi.ParseNote(before.Marshal())
			if !slices.EqualFunc(loaders, c.want, slices.Equal) {
				t.Errorf("case %d: the loaders are %v", i, loaders)
			}
			for _, bad := range []string{"", "{}", `{"format":1,"state":{"kind":"x"}}`} {
				err := r.server().Inventory(ctx, a.hello.Token, a.from, box.FirmwareFile, []byte(bad))
				if !errors.Is(err, wire.ErrRefused) {
					t.Errorf("case %d: %q is taken: %v", i, bad, err)
				}
			}
			if _, err := r.server().Firmware(ctx, "another-token-of-26-letters", a.from); err == nil {
				t.Errorf("case %d: another token is answered", i)
			}
			if a.ends(box.Refused); r.job(s.ID, job.Ended, box.Refused).State != job.Ended {
				t.Errorf("case %d: the job goes on", i)
			}
		}
	})
}

// TestFirmwareInRecord: a backup's record has what the job has noted of the firmware,
// and nothing that an earlier job has noted or an agent says beside.
func TestFirmwareInRecord(t *testing.T) {
	bubble(t, func(r *rig) {
		r.start(&knife{})
		for i, noted := range []bool{true, false} {
			s := r.add(here, box.Backup)
			a := r.boot(here).works()
			if noted {
				if err := r.server().Inventory(ctx, a.hello.Token, a.from, box.FirmwareFile, noteOf(s.Arming, nil).Marshal()); err != nil {
					t.Fatal(err)
				}
			}
			g, err := r.server().Grant(ctx, a.hello.Token, a.from)
			if err != nil {
				t.Fatal(err)
			}
			record := &image.Record{Firmware: &efi.State{Kind: efi.BIOS}}
			added := false
			if err := g.Add(ctx, record, func(context.Context) error { added = true; return nil }); err != nil || !added {
				t.Errorf("case %d: %v, added %v", i, err, added)
			}
			if (record.Firmware != nil) != noted || noted && record.Firmware.Entry(3) == nil {
				t.Errorf("case %d: the record has %+v", i, record.Firmware)
			}
			a.commits().ends(box.Done)
		}
	})
}
