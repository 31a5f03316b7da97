package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/store"
)

// Backups are the backups in the store, as package store has them.
type Backups interface {
	chunk.Images
	RecordsOf(ctx context.Context, box string) ([]*image.Record, []*store.RecordError, error)
	Record(ctx context.Context, box, id string) (*image.Record, error)
	Latest(ctx context.Context, boxes []string) (map[string]store.Backup, error)
	Damages(ctx context.Context) (store.Damages, error)
	Contents(ctx context.Context) (*store.Contents, error)
	SetPinned(ctx context.Context, box, id string, pinned bool) error
	SetBaseline(ctx context.Context, box, id string, baseline bool) error
	SetNote(ctx context.Context, box, id, note string) error
	SetTime(ctx context.Context, box, id string, at time.Time) (*image.Record, error)
	SetBoot(ctx context.Context, box, id string, result *image.BootTest) error
	Delete(ctx context.Context, records ...*image.Record) error
	DeleteDamaged(ctx context.Context, damaged ...*store.RecordError) error
	UUID() string
}

// Backup is a backup of a box.
type Backup struct {
	Box      string       `json:"box" doc:"whose it is, as the store has it: the address of the box"`
	ID       string       `json:"id" example:"20261129-080000"`
	Time     time.Time    `json:"time" doc:"when it was committed"`
	After    string       `json:"after,omitempty" doc:"id of a backup with a later date that was made before this one"`
	Arming   box.Arming   `json:"arming,omitempty" doc:"the arming that made it"`
	Host     string       `json:"host,omitempty" doc:"host name of the box at that time"`
	Note     string       `json:"note,omitempty"`
	Pinned   bool         `json:"pinned,omitempty" doc:"it is kept until somebody takes that back"`
	Baseline bool         `json:"baseline,omitempty" doc:"a restore takes it unless it names another one"`
	Disks    []BackupDisk `json:"disks"`
	Boot     *BootTest    `json:"boot,omitempty" doc:"the latest boot test; without it there was none"`
	// All of the state would make lists long.
	Firmware *BackupFirmware `json:"firmware,omitempty" doc:"the firmware of the box at the backup, in short; left out if it is not known"`
}

// BackupDisk is a disk of a backup.
type BackupDisk struct {
	Name   string         `json:"name"`
	Size   int64          `json:"size" doc:"bytes of the disk"`
	Data   int64          `json:"data" doc:"bytes of the disk that are in the store; other boxes may need them too"`
	Zero   int64          `json:"zero" doc:"bytes of the disk that are used and zero"`
	Unused int64          `json:"unused" doc:"bytes of the disk that nothing uses"`
	Stored int64          `json:"stored" doc:"bytes that the backup added to the store for the disk, compressed, as whoever made it has counted them"`
	Bad    bool           `json:"bad,omitempty" doc:"it has zeros for sectors that could not be read"`
	Lacks  bool           `json:"lacks,omitempty" doc:"the store was found to lack some of it"`
	Kernel string         `json:"kernel,omitempty" doc:"the disk's kernel name, or the name of the file, when it was read"`
	Disk   image.Identity `json:"disk" doc:"what the disk is known by"`
	Root   string         `json:"root" doc:"name of its image in the store; equal images have equal names"`
}

// BackupList has the backups of a box.
type BackupList struct {
	Backups    []Backup `json:"backups" doc:"the oldest first"`
	Unreadable []string `json:"unreadable,omitempty" doc:"ids of backups whose record cannot be read"`
}

// SetBackup changes what is noted of a backup. What is left out stays as it is.
type SetBackup struct {
	Pinned   *bool   `json:"pinned,omitempty" doc:"whether it is kept until somebody takes that back"`
	Baseline *bool   `json:"baseline,omitempty" doc:"whether a restore takes it unless it names another one; the box has one at most"`
	Note     *string `json:"note,omitempty" maxLength:"1000"`
	Why      string  `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

// SetTime puts the time of a backup right.
type SetTime struct {
	Time time.Time `json:"time" doc:"when the backup was made; not in the future, and not before there was this program"`
	Why  string    `json:"why,omitempty" maxLength:"1000" doc:"the reason, for the audit log"`
}

type OwnerPath struct {
	Owner string `path:"owner" maxLength:"64" doc:"whose backup it is: the address of a box, or another name that the store has"`
}

type BackupPath struct {
	OwnerPath
	Backup string `path:"backup" maxLength:"64" doc:"id of a backup"`
}

// backupsOf returns the store, if the caller may see backups of this owner.
func (s *Server) backupsOf(ctx context.Context, owner string) (Backups, error) {
	if s.cfg.Backups == nil {
		return nil, errNoStore
	}
	c := callerOf(ctx)
	if c.group == "" {
		return s.cfg.Backups, nil
	}
	return s.cfg.Backups, s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		b, err := findBox(tx, c, owner)
		if err == nil && b.Address.String() != owner {
			err = noBox(owner)
		}
		return err
	})
}

// diskOf finds a disk of a backup that the caller may see.
func (s *Server) diskOf(ctx context.Context, of BackupPath, disk string) (Backups, *image.Record, *image.RecordedDisk, error) {
	backups, err := s.backupsOf(ctx, of.Owner)
	if err != nil {
		return nil, nil, nil, err
	}
	r, err := backups.Record(ctx, of.Owner, of.Backup)
	if err != nil {
		return nil, nil, nil, err
	}
	d := r.Disk(disk)
	if d == nil {
		return nil, nil, nil, notFound("backup %s of %s has no disk %s", r.ID, r.Box, disk)
	}
	return backups, r, d, nil
}

func (s *Server) listBackups(ctx context.Context, in *OwnerPath) (*body[BackupList], error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	records, damaged, err := backups.RecordsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	damages, err := backups.Damages(ctx)
	if err != nil {
		return nil, err
	}
	list := BackupList{Backups: []Backup{}}
	for _, r := range records {
		list.Backups = append(list.Backups, backupOf(r, damages))
	}
	for _, d := range damaged {
		list.Unreadable = append(list.Unreadable, clean(d.ID))
	}
	return answer(list, nil)
}

func backupOf(r *image.Record, damages store.Damages) Backup {
	b := Backup{Box: r.Box, ID: r.ID, Time: r.Time, After: r.After, Arming: r.Arming, Host: clean(r.Host), Note: clean(r.Note),
		Pinned: r.Pinned, Baseline: r.Baseline, Boot: bootOf(r.Boot), Firmware: backupFirmware(r.Firmware)}
	for i := range r.Disks {
		d := &r.Disks[i]
		_, lacks := damages[d.Root]
		id := d.Disk
		id.WWN, id.Serial, id.Path, id.Model = clean(id.WWN), clean(id.Serial), clean(id.Path), clean(id.Model)
		b.Disks = append(b.Disks, BackupDisk{
			Name: d.Name, Size: d.Disk.Size, Data: d.Data, Zero: d.Zero, Unused: d.Unused, Stored: d.Stored,
			Bad: len(d.Bad) > 0, Lacks: lacks, Kernel: clean(d.Kernel), Disk: id,
			Root: d.Root.String(),
		})
	}
	return b
}

func (s *Server) setBackup(ctx context.Context, in *struct {
	BackupPath
	Body SetBackup
}) (*body[Backup], error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	q := in.Body
	if q.Note != nil && len(*q.Note) > image.MaxNote {
		return nil, problem.Wrongf("the note has %d bytes; at most %d are kept", len(*q.Note), image.MaxNote)
	}
	var said []string
	for _, set := range []struct {
		given bool
		what  string
		do    func() error
	}{
		{q.Note != nil, "note", func() error { return backups.SetNote(ctx, in.Owner, in.Backup, *q.Note) }},
		{q.Baseline != nil, "baseline", func() error { return backups.SetBaseline(ctx, in.Owner, in.Backup, *q.Baseline) }},
		{q.Pinned != nil, "pinned", func() error { return backups.SetPinned(ctx, in.Owner, in.Backup, *q.Pinned) }},
	} {
		if !set.given {
			continue
		}
		if err := set.do(); err != nil {
			return nil, err
		}
		said = append(said, set.what)
	}
	if len(said) == 0 {
		return nil, problem.Wrongf("the request changes nothing; give pinned, baseline or note")
	}
	if err := s.noteBackup(ctx, "set backup", in.BackupPath, because(strings.Join(said, ", "), q.Why)); err != nil {
		return nil, err
	}
	r, err := backups.Record(ctx, in.Owner, in.Backup)
	if err != nil {
		return nil, err
	}
	return shown(ctx, backups, r)
}

func (s *Server) setBackupTime(ctx context.Context, in *struct {
	BackupPath
	Body SetTime
}) (*body[Backup], error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	at := in.Body.Time
	if len(store.Misdated([]*image.Record{{Time: at}}, s.cfg.Now())) > 0 {
		return nil, problem.Wrongf("%s is in the future, or before there was this program; give the time at which the backup was made",
			at.UTC().Format(time.RFC3339))
	}
	r, err := backups.Record(ctx, in.Owner, in.Backup)
	if err == nil {
		err = s.unneeded(ctx, r) // the backup gets another id, by which the job would not find it
	}
	if err != nil {
		return nil, err
	}
	// The audit log comes first here, since nothing else would tell of the old id.
	why := because(at.UTC().Format(time.RFC3339), in.Body.Why)
	if err := s.noteBackup(ctx, "set time of backup", in.BackupPath, why); err != nil {
		return nil, err
	}
	r, err = backups.SetTime(ctx, in.Owner, in.Backup, at)
	if err != nil {
		return nil, err
	}
	return shown(ctx, backups, r)
}

func (s *Server) deleteBackup(ctx context.Context, in *struct {
	BackupPath
	WhyInput
	LastWhole  bool `query:"last_whole" doc:"delete it even if of a disk only damaged images would be left"`
	Unreadable bool `query:"unreadable" doc:"delete it although its record cannot be read, and refuse if it can"`
}) (*struct{}, error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	r, err := backups.Record(ctx, in.Owner, in.Backup)
	var damaged *store.RecordError
	switch {
	case in.Unreadable && errors.As(err, &damaged):
		if !image.ValidBox(in.Owner) || !image.ValidID(in.Backup) {
			return nil, notFound("there is no backup %s of %s", in.Backup, in.Owner)
		}
		if err := s.noteBackup(ctx, "delete backup", in.BackupPath, because("its record could not be read", in.Why)); err != nil {
			return nil, err
		}
		return nil, backups.DeleteDamaged(ctx, damaged)
	case err != nil:
		return nil, err
	case in.Unreadable:
		return nil, problem.Refusef("the record of backup %s of %s can be read", r.ID, r.Box)
	}
	if r.Pinned || r.Baseline {
		return nil, problem.Refusef("backup %s of %s is pinned or the baseline; take that back first", r.ID, r.Box)
	}
	records, _, err := backups.RecordsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	damages, err := backups.Damages(ctx)
	if err != nil {
		return nil, err
	}
	gone := func(o *image.Record) bool { return o.ID == r.ID }
	if disks := store.LastWhole(records, gone, damages, r.Box); len(disks) > 0 && !in.LastWhole {
		return nil, problem.Refusef("of %s of %s only damaged images would be left, without backup %s; say last_whole if that is meant",
			strings.Join(disks, ", "), r.Box, r.ID)
	}
	if err := s.unneeded(ctx, r); err != nil {
		return nil, err
	}
	// The audit log comes first here, since nothing else would tell of the backup.
	if err := s.noteBackup(ctx, "delete backup", in.BackupPath, in.Why); err != nil {
		return nil, err
	}
	return nil, backups.Delete(ctx, r)
}

// unneeded refuses if a job needs a backup.
func (s *Server) unneeded(ctx context.Context, r *image.Record) error {
	needs, err := s.cfg.Jobs.Needs(ctx)
	if err != nil {
		return fmt.Errorf("find out which backups jobs need: %w", err)
	}
	if n := dispatch.NeedOf(needs, r.Box, r.ID); n != nil {
		return problem.Refusef("backup %s of %s stays as it is, since %s", r.ID, r.Box, n.Why)
	}
	return nil
}

func (s *Server) noteBackup(ctx context.Context, what string, of BackupPath, why string) error {
	return s.change(ctx, what, func(_ *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.On, e.Why = fmt.Sprintf("%s@%s", of.Owner, of.Backup), why
		return nil
	})
}

// shown answers a request with a backup as it is now.
func shown(ctx context.Context, backups Backups, r *image.Record) (*body[Backup], error) {
	damages, err := backups.Damages(ctx)
	if err != nil {
		return nil, err
	}
	return answer(backupOf(r, damages), nil)
}
