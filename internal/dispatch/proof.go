package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

// proved believes no success that nothing shows. A backup must be in the store. A
// restore or a verify must have receipts, and they must fit the backup that the job
// uses.
func (d *Dispatch) proved(ctx context.Context, t *task, doc *document, e job.Result, receipts []image.Receipt) (job.Result, error) {
	j := t.job
	wrote := slices.ContainsFunc(receipts, func(r image.Receipt) bool { return r.Written > 0 || len(r.Hooks) > 0 })
	// The disk may be unfit to run, whatever the agent says of its action.
	e.Wrote = wrote && j.Action == box.Restore
	if e.Outcome != box.Done && e.Outcome != box.BadSectors && e.Outcome != box.Differs {
		return e, nil
	}
	var why string
	var err error
	switch {
	case j.Action == box.Backup || j.Action == box.BackupAgain:
		return d.provedBackup(ctx, j, doc, e)
	case j.Action == box.RefreshInfo && !d.informed(t):
		why = fmt.Sprintf("and has not sent %s", box.InfoText)
	case !usesImage(j.Action):
		return e, nil
	case len(receipts) == 0:
		why = "without a receipt"
	case wrote && (j.Action != box.Restore || !j.Wrote):
		why = "and its receipts say that it wrote to a disk without having asked"
	default:
		why, err = d.contradiction(ctx, t, &e, receipts)
	}
	if err != nil {
		return e, err
	}
	if why != "" {
		e.Outcome, e.Class, e.Text = box.Failed, job.ClassBox, fmt.Sprintf("The agent reports success %s.", why)
	}
	return e, nil
}

// informed reports whether the inventory of a job's box is from its present attempt.
// After a restart of the server only the time of the file tells.
func (d *Dispatch) informed(t *task) bool {
	if t.informed == t.job.Session {
		return true
	}
	if d.cfg.Area == nil {
		return false
	}
	f, err := durable.OS{}.Open(d.cfg.Area.Look(t.job.Box).Path(box.InfoText))
	if err != nil {
		return false
	}
	defer f.Close()
	return !f.ModTime().Before(t.job.Since)
}

// provedBackup believes in a backup that the store has.
func (d *Dispatch) provedBackup(ctx context.Context, j job.Job, doc *document, e job.Result) (job.Result, error) {
	r, err := d.Committed(ctx, j.Box.String(), j.Arming)
	switch {
	case err != nil:
		return e, fmt.Errorf("look for the backup of job %s: %w", j.ID, err)
	case r == nil:
		e.Outcome, e.Class, e.Text = box.Failed, job.ClassServer, "The agent reports success, and the store has no backup of this job."
		return e, nil
	}
	doc.Made = r.ID
	if e.Outcome == box.Done && slices.ContainsFunc(r.Disks, isBad) {
		e.Outcome = box.BadSectors
	}
	return e, nil
}

func isBad(d image.RecordedDisk) bool { return len(d.Bad) > 0 }

// contradiction says why the receipts of a restore or a verify that succeeded cannot
// be true, or "". A box can always send receipts that are false and fit. So this finds
// faults of an agent, and not each lie.
func (d *Dispatch) contradiction(ctx context.Context, t *task, e *job.Result, receipts []image.Receipt) (string, error) {
	ref := t.doc.Image
	if ref == nil {
		return "and no backup was chosen for it", nil
	}
	record, err := d.cfg.Backups.Find(ctx, t.job.Box, ref.Box+"@"+ref.ID)
	if errors.Is(err, fs.ErrNotExist) { // it was deleted by force, and an image that is open stays complete
		record, err = nil, nil
	}
	if err != nil {
		return "", fmt.Errorf("look for the backup that job %s used: %w", t.job.ID, err)
	}
	images, disks := map[string]bool{}, map[string]bool{}
	for i := range receipts {
		r := &receipts[i]
		if images[r.Image] || disks[r.Disk] {
			return fmt.Sprintf("with two receipts of image %.40s or disk %.40s", r.Image, r.Disk), nil
		}
		images[r.Image], disks[r.Disk] = true, true
		why := impossible(t.job.Action, e.Outcome, r)
		if why == "" && record != nil {
			why = unfitFor(record, t.job.Action, t.doc.Options, r)
		}
		if why != "" {
			return fmt.Sprintf("with a receipt of image %.40s %s", r.Image, why), nil
		}
	}
	if why := otherHooks(t.doc.Options.Hooks, receipts); why != "" {
		return why, nil
	}
	if record == nil {
		return "", nil
	}
	if !d.someDisks(t) {
		var lacking []string
		for _, disk := range record.Disks {
			if !images[disk.Name] {
				lacking = append(lacking, disk.Name)
			}
		}
		if len(lacking) > 0 {
			return fmt.Sprintf("without a receipt of %s", strings.Join(lacking[:min(len(lacking), 5)], ", ")), nil
		}
	}
	if e.Outcome == box.Done && slices.ContainsFunc(record.Disks, func(d image.RecordedDisk) bool { return isBad(d) && images[d.Name] }) {
		e.Outcome = box.BadSectors
	}
	return "", nil
}

// hooked says of a verify that has found differences whether hooks have made such, when the
// same backup was restored. Of a restore it says whether two boxes have one machine-id now.
func (d *Dispatch) hooked(ctx context.Context, t *task, outcome box.Outcome) (warnings []string, err error) {
	o := t.doc.Options
	if ok := outcome == box.Done || outcome == box.BadSectors; ok && t.job.Action == box.Restore && box.SharesMachineID(o.From, o.Hooks) {
		return []string{fmt.Sprintf("The system is that of %s, and has its machine-id too, if it has one: the hook %s was not asked for.",
			o.From, box.HookMachineID)}, nil
	}
	if t.job.Action != box.Verify || outcome != box.Differs || t.doc.Image == nil {
		return nil, nil
	}
	var rows []ledger.Job
	err = d.book.View(ctx, func(tx *ledger.Tx) (err error) {
		rows, _, err = tx.Jobs(ledger.JobFilter{Box: t.job.Box, States: []string{string(job.Ended)}}, ledger.Page{Limit: mostLooked})
		return err
	})
	for _, r := range rows {
		doc, err := parseDocument(r.Doc)
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", r.ID, err)
		}
		switch j := doc.Job; {
		case j.Action != box.Restore || j.Outcome != box.Done && j.Outcome != box.BadSectors || doc.Image == nil:
			continue
		case len(doc.Options.Hooks) > 0 && *doc.Image == *t.doc.Image:
			warnings = []string{fmt.Sprintf("Hooks of job %s (%s) changed the system after this backup was restored, so it differs from the backup.",
				j.ID, box.JoinHooks(doc.Options.Hooks))}
		}
		return warnings, nil
	}
	return nil, err
}

// mostLooked is how many jobs of a box are looked at for its latest restore.
const mostLooked = 200

// otherHooks says why the hooks of receipts are not those that were asked for, or "".
func otherHooks(asked []box.Hook, receipts []image.Receipt) string {
	var done []box.Hook
	for _, r := range receipts {
		for _, h := range r.Hooks {
			done = append(done, box.Hook(h.Hook))
		}
	}
	if slices.Equal(asked, done) {
		return ""
	}
	return fmt.Sprintf("with the hooks %q done, of %q that were asked for", done, asked)
}

// someDisks reports whether somebody has named disks for a job, so that it need not
// use all images of its backup. A list that came or went meanwhile counts too.
func (d *Dispatch) someDisks(t *task) bool {
	list, refusal, err := d.readList(t.job.Box)
	if len(t.doc.Options.Disks) > 0 || list != nil || refusal != "" || err != nil {
		return true
	}
	return slices.ContainsFunc(t.doc.Scopes, func(s scope) bool { return s.Unknown || s.List != "" || len(s.Disks) > 0 })
}

// impossible says why a receipt cannot be that of an action which succeeded, or "". The
// figures are added up without an overflow.
func impossible(a box.Action, o box.Outcome, r *image.Receipt) string {
	const most = 1 << 60
	if max(r.Read, r.Written, r.Skipped, r.Unused, r.Verified) > most {
		return "with figures that no disk has"
	}
	switch {
	case a == box.Restore && r.Verified < r.Written+r.Skipped:
		return fmt.Sprintf("that has %d bytes read back of %d", r.Verified, r.Written+r.Skipped)
	case a == box.Verify && o != box.Differs && (len(r.Differ) > 0 || r.Verified < r.Read):
		return fmt.Sprintf("that has %d bytes found right of %d", r.Verified, r.Read)
	}
	return ""
}

// unfitFor says why a receipt, which is possible, cannot be of a backup, or "".
func unfitFor(record *image.Record, a box.Action, opt Options, r *image.Receipt) string {
	disk := record.Disk(r.Image)
	if disk == nil {
		return "that the backup does not have"
	}
	done := r.Written + r.Skipped
	if a == box.Verify {
		done = r.Read
	}
	size := disk.Disk.Size
	if opt.ShrinkTable {
		size = min(size, r.Identity.Size) // a smaller disk lacks the image's end
	}
	switch {
	case r.Root != disk.Root.String():
		return "that has another root than the backup"
	case r.Identity.Size < size:
		return fmt.Sprintf("on a disk of %d bytes, which is smaller than the image", r.Identity.Size)
	case r.Unused > disk.Unused || done+r.Unused < size:
		return fmt.Sprintf("that accounts for %d bytes and %d that are not used, of an image of %d with %d that are not used",
			done, r.Unused, size, disk.Unused)
	}
	return ""
}
