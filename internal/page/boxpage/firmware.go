package boxpage

import (
	"context"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/efi"
)

// shownEntries is how many boot entries a list shows. Real firmware has fewer.
const shownEntries = 40

// firmware is what a page shows of the state of a box's firmware.
type firmware struct {
	Why     string // it is not known
	State   *efi.State
	Order   bootEntries
	Rest    bootEntries // that are not in the order
	More    int         // that are not shown
	With    string      // id of the backup with which it is compared
	Changes []efi.Change
	Unknown string // why it is not compared
	PutBack *efi.PutBack
	// Was is how the box started at the backup with which it is compared, if it starts by the other kind of firmware now.
	Was string
}

// bootEntries is a list of boot entries. Its label is another one than that of each other list of a page.
type bootEntries struct {
	Label string
	List  []bootEntry
}

// bootEntry is a row of a list of boot entries.
type bootEntry struct {
	efi.Entry
	Network bool // it starts from the network
	First   bool // it belongs at the beginning
	Current bool // it has started the maintenance system
}

// firmwareOf makes what is shown of a state. first is the network entry that belongs at the beginning, or nil.
func firmwareOf(s *efi.State, first *efi.Number) *firmware {
	f := &firmware{State: s}
	rows := func(label string, list []efi.Entry) bootEntries {
		var all []bootEntry
		for _, e := range list[:min(len(list), shownEntries)] {
			all = append(all, bootEntry{e, e.Kind == efi.NetworkEntry, first != nil && *first == e.Number,
				s.Current != nil && *s.Current == e.Number})
		}
		f.More += len(list) - len(all)
		return bootEntries{label, all}
	}
	f.Order, f.Rest = rows("Boot entries in their order", s.Ordered()), rows("Boot entries that are not in the order", s.Unordered())
	return f
}

// firmwareNow asks how a box's firmware was at its latest start.
func firmwareNow(ctx context.Context, a API, addr string) *firmware {
	var now api.FirmwareNow
	if err := a.Ask(ctx, "get-firmware", Params{"box": addr}, nil, &now); err != nil {
		return &firmware{Why: err.Error()}
	}
	f := firmwareOf(&now.State, now.First)
	f.With, f.Changes, f.Unknown, f.PutBack = now.Since, now.Changes, now.Unknown, now.PutBack
	if now.SinceKind != now.Kind {
		f.Was = now.SinceKind
	}
	return f
}

// firmwareThen asks how a box's firmware was at a backup.
func firmwareThen(ctx context.Context, a API, addr, id string) *firmware {
	var then api.FirmwareThen
	if err := a.Ask(ctx, "get-backup-firmware", Params{"owner": addr, "backup": id}, nil, &then); err != nil {
		return &firmware{Why: err.Error()}
	}
	f := firmwareOf(&then.State, nil)
	f.With, f.Changes = then.With, then.Changes
	return f
}
