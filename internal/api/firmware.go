package api

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/store"
)

// BoxFirmware says of the firmware of a box what its latest start of the maintenance system noted.
type BoxFirmware struct {
	Kind       string     `json:"kind" doc:"BIOS or UEFI"`
	Version    string     `json:"version,omitempty" doc:"with the maker and the date"`
	SecureBoot string     `json:"secureBoot,omitempty" doc:"on or off, and whether it is in setup mode"`
	BootOrder  efi.Result `json:"bootOrder,omitempty" doc:"of UEFI. kept: the network was first in it; repaired: it was not, and was put first; ignored: it was put first before, and that did not stay; failed: the order could not be read or written; none: there is no entry for the network. Left out if it is not known"`
	Why        string     `json:"why,omitempty" doc:"of the boot order, in sentences"`
	Needs      bool       `json:"needs,omitempty" doc:"somebody has to look at the boot order, since the box may not start from the network first"`
	Time       time.Time  `json:"time" doc:"when it was noted"`
}

// FirmwareNow is the state of a box's firmware at its latest start of the maintenance system.
type FirmwareNow struct {
	BoxFirmware
	PutBack   *efi.PutBack `json:"putBack,omitempty" doc:"if the latest start was for a restore: what became of the boot entries of the backup"`
	First     *efi.Number  `json:"first,omitempty" doc:"number of the network entry that belongs at the beginning of the order"`
	State     efi.State    `json:"state"`
	Since     string       `json:"since,omitempty" doc:"id of the latest backup, if that says something of the firmware"`
	SinceKind string       `json:"sinceKind,omitempty" doc:"BIOS or UEFI, as the latest backup has it"`
	// Unknown is no error of the request, since boxes are also looked at when the store is away.
	Unknown string       `json:"sinceUnknown,omitempty" doc:"why it is not compared with the latest backup"`
	Changes []efi.Change `json:"changes" doc:"what is not as in the latest backup"`
}

// BackupFirmware is what the list of backups says of a box's firmware.
type BackupFirmware struct {
	Kind       string `json:"kind" doc:"BIOS or UEFI"`
	Version    string `json:"version,omitempty" doc:"with the maker and the date"`
	SecureBoot string `json:"secureBoot,omitempty" doc:"on or off, and whether it is in setup mode"`
}

// FirmwareThen is the state of a box's firmware at a backup.
type FirmwareThen struct {
	State   efi.State    `json:"state"`
	With    string       `json:"with,omitempty" doc:"id of the backup that it is compared with; left out if there is none"`
	Changes []efi.Change `json:"changes" doc:"what has changed from that backup to this one"`
}

// maxFirmwares is how many boxes' firmware is kept in memory. It bounds what is left of boxes that were forgotten.
const maxFirmwares = 100_000

// firmwares keep what lists say of the firmware of boxes, so that a list of many boxes reads only notes that have
// changed.
type firmwares struct {
	mu sync.Mutex // guards by
	by map[box.Addr]seenFirmware
}

type seenFirmware struct {
	file  fs.FileInfo // that was read
	brief *BoxFirmware
}

// firmwareOf says what is known of a box's firmware. nil means that nothing is.
func (s *Server) firmwareOf(addr box.Addr) *BoxFirmware {
	if s.cfg.Area == nil {
		return nil
	}
	folder := s.cfg.Area.Look(addr)
	st, err := os.Lstat(folder.Path(box.FirmwareFile))
	if err != nil {
		return nil
	}
	f := &s.firmwares
	f.mu.Lock()
	seen, has := f.by[addr]
	f.mu.Unlock()
	if has && os.SameFile(seen.file, st) && seen.file.ModTime().Equal(st.ModTime()) && seen.file.Size() == st.Size() {
		return seen.brief
	}
	var brief *BoxFirmware
	if note, err := folder.Note(); err == nil {
		b := briefOf(note)
		brief = &b
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil || len(f.by) >= maxFirmwares {
		f.by = map[box.Addr]seenFirmware{}
	}
	f.by[addr] = seenFirmware{st, brief}
	return brief
}

func briefOf(n *efi.Note) BoxFirmware {
	b := BoxFirmware{Kind: n.State.Kind, Version: n.State.Release(), SecureBoot: n.State.SecureBoot, Time: n.Time.UTC()}
	if f := n.NetworkFirst; f != nil {
		b.BootOrder, b.Why, b.Needs = f.Result, f.Text, f.Bad()
	}
	return b
}

// addFirmware adds to boxes what is known of their firmware. It reads files, so the ledger must not be open.
func (s *Server) addFirmware(boxes []Box) {
	for i := range boxes {
		if addr, err := box.ParseAddr(boxes[i].Address); err == nil {
			boxes[i].Firmware = s.firmwareOf(addr)
		}
	}
}

// getFirmware says how the firmware of a box was at its latest start, and how that differs from its latest backup.
func (s *Server) getFirmware(ctx context.Context, in *BoxPath) (*body[FirmwareNow], error) {
	folder, addr, err := s.folder(ctx, in.Box)
	if err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	defer s.looked()
	note, err := folder.Note()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound("nothing is known of the firmware of the box %s yet; each action notes it, and `testbox refresh-info %s` "+
			"takes only the inventory", addr, addr)
	case err != nil:
		return nil, notFound("what the box %s has noted of its firmware cannot be read: %v", addr, err)
	}
	out := FirmwareNow{BoxFirmware: briefOf(note), PutBack: note.PutBack, State: note.State, Changes: []efi.Change{}}
	if note.NetworkFirst != nil {
		out.First = note.NetworkFirst.First
	}
	s.compareLatest(ctx, addr.String(), &out)
	return answer(out, nil)
}

// compareLatest compares the state of a box's firmware with that of its latest backup.
func (s *Server) compareLatest(ctx context.Context, addr string, out *FirmwareNow) {
	if s.cfg.Backups == nil {
		return
	}
	latest, err := s.cfg.Backups.Latest(ctx, []string{addr})
	var r *image.Record
	if b, has := latest[addr]; err == nil && has {
		r, err = s.cfg.Backups.Record(ctx, addr, b.ID)
	}
	var damaged *store.RecordError
	switch {
	case errors.As(err, &damaged):
		out.Unknown = "the record of its latest backup cannot be read"
	case errors.Is(err, fs.ErrNotExist): // it was deleted a moment ago
	case err != nil:
		s.logError("", addr, "the latest backup of a box cannot be read", "box", addr, "error", err)
		out.Unknown = "the store cannot be read; the server's log says why"
	case r != nil && r.Firmware != nil:
		out.Since, out.SinceKind = r.ID, r.Firmware.Kind
		out.Changes = append(out.Changes, efi.Changes(r.Firmware, &out.State)...)
	}
}

// look waits until an image, an inventory or the state of a firmware may be read, since that takes memory. The caller
// calls looked at the end.
func (s *Server) look(ctx context.Context) error {
	select {
	case s.looks <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) looked() { <-s.looks }

// getBackupFirmware says how the firmware of a box was at a backup, and how it has changed since another one.
func (s *Server) getBackupFirmware(ctx context.Context, in *struct {
	BackupPath
	With string `query:"with" maxLength:"64" doc:"id of a backup of the box to compare with; without it, the latest earlier one that says something of the firmware"`
}) (*body[FirmwareThen], error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	defer s.looked()
	records, _, err := backups.RecordsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	find := func(id string) int {
		return slices.IndexFunc(records, func(r *image.Record) bool { return r.ID == id })
	}
	at := find(in.Backup)
	switch {
	case at < 0:
		return nil, notFound("there is no backup %s of %s", in.Backup, in.Owner)
	case records[at].Firmware == nil:
		return nil, notFound("the backup %s of %s says nothing of the firmware", in.Backup, in.Owner)
	}
	out := FirmwareThen{State: *records[at].Firmware, Changes: []efi.Change{}}
	with := at - 1
	for with >= 0 && records[with].Firmware == nil {
		with--
	}
	if in.With != "" {
		switch with = find(in.With); {
		case with < 0:
			return nil, notFound("there is no backup %s of %s", in.With, in.Owner)
		case records[with].Firmware == nil:
			return nil, notFound("the backup %s of %s says nothing of the firmware", in.With, in.Owner)
		}
	}
	if with >= 0 {
		out.With, out.Changes = records[with].ID, append(out.Changes, efi.Changes(records[with].Firmware, records[at].Firmware)...)
	}
	return answer(out, nil)
}

func backupFirmware(s *efi.State) *BackupFirmware {
	if s == nil {
		return nil
	}
	return &BackupFirmware{s.Kind, s.Release(), s.SecureBoot}
}

// orders counts boxes by what became of their boot orders. Boxes of which that is not known are "".
func (s *Server) orders(boxes []ledger.Box) map[efi.Result]int {
	counts := map[efi.Result]int{}
	for _, b := range boxes {
		if b.Health == ledger.Retired {
			continue
		}
		var result efi.Result
		if f := s.firmwareOf(b.Address); f != nil {
			result = f.BootOrder
		}
		counts[result]++
	}
	return counts
}
