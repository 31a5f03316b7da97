package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/usedmap"
)

// serverBackup is server mode's Backup. It is a session of the store.
type serverBackup struct {
	home    *serverHome
	names   map[string]string       // from a disk's kernel name to its image's name
	used    map[string]*usedmap.Map // by the disk's kernel name
	session chunk.Session           // nil before Begin
	record  *image.Record
}

// Plan names the disks as in the backups that the server knows.
func (h *serverHome) Plan(disks []disk.Disk, choice match.Choice) (Backup, error) {
	known := h.given().Known
	var labels []image.Label
	for _, r := range known {
		labels = append(labels, r.Labels()...)
	}
	b := &serverBackup{home: h, names: match.Names(labels, disks), used: map[string]*usedmap.Map{}}
	if len(known) > 0 {
		b.tellLeftOut(known[0], choice)
	}
	return b, nil
}

// tellLeftOut names disks of the last backup that are not in this one.
func (b *serverBackup) tellLeftOut(last *image.Record, choice match.Choice) {
	now := map[string]bool{}
	for _, d := range choice.Disks {
		now[b.names[d.Name]] = true
	}
	var out []string
	for _, d := range last.Disks {
		if !now[d.Name] {
			out = append(out, d.Name)
		}
	}
	switch list := strings.Join(out, ", "); {
	case list == "":
	case choice.Named():
		b.home.cfg.Voice.Info("%s, which backup %s has, is not in this one: its disk is not among the named ones", list, last.ID)
	default:
		b.home.cfg.Voice.Warn("%s, which backup %s has, is not in this one, since its disk was not found", list, last.ID)
	}
}

// Name is the name of the disk's first image.
func (b *serverBackup) Name(d disk.Disk) string { return b.names[d.Name] }

// Used finds out which bytes matter to the file systems of a disk, unless the job wants
// all of it.
func (b *serverBackup) Used(ctx context.Context, d disk.Disk, from copier.Source) (*usedmap.Map, error) {
	if b.home.given().AllUsed {
		return nil, nil
	}
	m, err := usedmap.Read(ctx, aliveReader{from, b.home.cfg.Alive}, d.Size, d.SectorSize)
	if err != nil {
		return nil, err
	}
	b.used[d.Name] = m
	b.tellDoubt(b.Name(d), m)
	return m, nil
}

// tellDoubt logs what counts as used because of a doubt.
func (b *serverBackup) tellDoubt(name string, m *usedmap.Map) {
	if m.Doubt != "" {
		b.home.cfg.Voice.Info("%s: all of it counts as used: %s", name, m.Doubt)
		return
	}
	for i := range m.Parts {
		if p := &m.Parts[i]; p.Doubt != "" && p.Kind != usedmap.Gap {
			b.home.cfg.Voice.Info("%s: %s counts as used: %s", name, partText(p), p.Doubt)
		}
	}
}

// partText names a part of a disk.
func partText(p *usedmap.Part) string {
	switch p.Kind {
	case usedmap.Partition:
		return fmt.Sprintf("all of partition %d", p.Number)
	case usedmap.Logical:
		return "all of the logical volume " + p.Name
	}
	return fmt.Sprintf("all of the %s", p.Kind)
}

// Begin begins a session of the store.
func (b *serverBackup) Begin(host, uuid string) error {
	if !box.ValidHost(host) {
		host = ""
	}
	cmd := b.home.cfg.Cmd
	b.record = &image.Record{Format: image.RecordFormat, Box: cmd.Address.String(), Host: host, UUID: uuid, Arming: cmd.Arming}
	b.session = b.home.store.Begin()
	return nil
}

// Save sends what the store does not have of a disk.
func (b *serverBackup) Save(ctx context.Context, d disk.Disk, from copier.Source, opt copier.SourceOptions) (image.Receipt, error) {
	name := b.Name(d)
	b.home.cfg.Voice.Info("%s: backing up disk %s", name, d.Name)
	saved, err := copier.Save(ctx, from, b.session, b.used[d.Name], opt)
	if err != nil {
		return saved.Receipt, troubled(err)
	}
	saved.Disk.Name, saved.Disk.Kernel, saved.Disk.Disk = name, d.Name, d.Identity
	b.put(saved.Disk)
	b.home.cfg.Voice.Info("%s: %d bytes of data, %d of them are new and take %d bytes; %d are not used", name, saved.Disk.Data, saved.New,
		saved.Disk.Stored, saved.Disk.Unused)
	return saved.Receipt, nil
}

// put adds a disk to the record, or replaces it there.
func (b *serverBackup) put(d image.RecordedDisk) {
	if old := b.record.Disk(d.Name); old != nil {
		*old = d
		return
	}
	b.record.Disks = append(b.record.Disks, d)
}

// Commit commits the record. Once begun, it is not interrupted, since nobody would know
// whether there is a backup.
func (b *serverBackup) Commit(ctx context.Context) (err error) {
	if b.session == nil {
		return errors.New("the backup was given up")
	}
	b.home.living(func() { err = b.session.Commit(context.WithoutCancel(ctx), b.record) })
	switch {
	case errors.Is(err, chunk.ErrMissing):
		return fmt.Errorf("%w: %w", ErrAgain, err)
	case err != nil:
		return troubled(err)
	}
	b.home.cfg.Voice.Info("backup %s of %s is in the store", b.record.ID, b.record.Box)
	return nil
}

// Abort ends the session.
func (b *serverBackup) Abort() {
	if b.session != nil {
		b.session.Close()
		b.session = nil
	}
}
