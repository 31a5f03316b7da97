package dispatch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/words"
)

// docFormat is the number of the document's format that this code writes.
const docFormat = 1

// document is what the ledger has of a job, as JSON. Its form is in
// docs/format.md.
type document struct {
	Format  int     `json:"format"` // docFormat
	Job     job.Job `json:"job"`
	Key     string  `json:"key,omitempty"` // of the request
	Options Options `json:"options"`
	// Image is the backup that a restore or a verify uses in all its attempts.
	Image    *imageRef       `json:"image,omitempty"`
	Made     string          `json:"made,omitempty"` // id of the backup that was made
	Receipts []image.Receipt `json:"receipts,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
	HostKeys []string        `json:"hostKeys,omitempty"` // of the ssh server of a box that is up for rescue
	Sent     int64           `json:"sent,omitempty"`     // bytes of objects, as far as they were counted when this was written
	// Slow are the disks that read much slower than they used to, by wear.Key.
	Slow []string `json:"slow,omitempty"`
	// Scopes are what the attempts of a restore may have written to.
	Scopes []scope `json:"scopes,omitempty"`
	// Owes is what the held job, of which this one took over, left unfit to run.
	Owes []scope `json:"owes,omitempty"`
}

// imageRef names a backup.
type imageRef struct {
	Box string `json:"box"`
	ID  string `json:"id"`
}

// of names the backup for people: by its id if it is the box's own.
func (r *imageRef) of(addr box.Addr) string {
	if r.Box == addr.String() {
		return r.ID
	}
	return r.Box + "@" + r.ID
}

func parseDocument(data []byte) (document, error) {
	var doc document
	if err := image.DecodeStrict("its document", data, &doc); err != nil {
		return doc, err
	}
	if doc.Format != docFormat {
		return doc, fmt.Errorf("its document has format %d, this program reads format %d", doc.Format, docFormat)
	}
	return doc, nil
}

// row is a job as the ledger has it. A job that has ended counts there as open until
// its last effects were carried out, so that the next start of the server finds it.
func (doc document) row() (ledger.Job, error) {
	doc.Format = docFormat
	data, err := json.Marshal(doc)
	if err != nil {
		return ledger.Job{}, err
	}
	j := doc.Job
	r := ledger.Job{ID: j.ID, Box: j.Box, State: string(j.State), Created: j.Asked, Changed: j.Since, By: j.By, Key: doc.Key, Doc: data}
	if j.State == job.Ended && j.Settled {
		r.Ended = j.Since
	}
	return r, nil
}

// These bound what the ledger keeps of a result. The box's log and the backup's
// record have the rest.
const (
	maxEvidence = 96 << 10 // bytes of receipts and warnings
	maxWarnings = 50
	maxDisks    = 256 // receipts
)

// evidence makes receipts and warnings small enough for the ledger. Places on a disk
// go first, then the stages, then all receipts, and at last the first warnings.
func evidence(receipts []image.Receipt, warnings []string) ([]image.Receipt, []string) {
	warnings = slices.Clone(warnings[:min(len(warnings), maxWarnings)])
	receipts = slices.Clone(receipts[:min(len(receipts), maxDisks)])
	fits := func() bool {
		data, err := json.Marshal([]any{receipts, warnings})
		return err == nil && len(data) <= maxEvidence
	}
	for ranges := 100; !fits() && ranges > 0; ranges /= 2 {
		for i := range receipts {
			r := &receipts[i]
			for _, list := range []*[]image.Range{&r.Changed, &r.Differ, &r.Bad} {
				*list = (*list)[:min(len(*list), ranges)]
			}
			if ranges == 1 {
				r.Stages = nil
			}
		}
	}
	if !fits() {
		warnings = append(warnings, fmt.Sprintf("%s of this job had too much text to be kept.", words.Count(len(receipts), "receipt")))
		receipts = nil
	}
	for !fits() {
		warnings = warnings[len(warnings)/2:]
	}
	return receipts, warnings
}

// scope is what a restore may write to. It is compared, and never looked up.
type scope struct {
	// Unknown says that nothing is known of it, so that no restore makes it good.
	Unknown bool     `json:"unknown,omitempty"`
	Box     string   `json:"box,omitempty"`   // of the backup
	Names   []string `json:"names,omitempty"` // of the images in the backup, sorted
	Disks   []string `json:"disks,omitempty"` // that the admin named for the job, sorted
	Map     []string `json:"map,omitempty"`   // which image goes to which disk, as the admin said, sorted
	List    string   `json:"list,omitempty"`  // SHA-256 of disk-devices.lst; "" if there is none
}

func (s scope) equal(o scope) bool {
	return s.Unknown == o.Unknown && s.Box == o.Box && s.List == o.List && slices.Equal(s.Names, o.Names) &&
		slices.Equal(s.Disks, o.Disks) && slices.Equal(s.Map, o.Map)
}

// covers reports whether a restore of s surely writes all that one of o may have
// written.
func (s scope) covers(o scope) bool {
	all := func(list, of []string) bool {
		return !slices.ContainsFunc(of, func(n string) bool { return !slices.Contains(list, n) })
	}
	switch {
	case s.Unknown || o.Unknown || s.Box != o.Box || !all(s.Names, o.Names):
		return false
	case !slices.Equal(s.Map, o.Map): // another map means other disks
		return false
	case len(s.Disks) == 0 && len(o.Disks) == 0:
		return s.List == o.List
	}
	return len(s.Disks) > 0 && len(o.Disks) > 0 && all(s.Disks, o.Disks)
}

// maxOwed is how many bytes the list has of what is unfit to run. Longer ones are as
// good as unknown.
const maxOwed = 48 << 10

// leaves is what a held job leaves unfit to run.
func (doc document) leaves() []scope {
	owes := slices.Clone(doc.Owes)
	if doc.Job.Action == box.Restore && doc.Job.Wrote {
		if len(doc.Scopes) == 0 {
			owes = append(owes, scope{Unknown: true})
		}
		for _, s := range doc.Scopes {
			if !slices.ContainsFunc(owes, s.equal) {
				owes = append(owes, s)
			}
		}
	}
	if data, err := json.Marshal(owes); err != nil || len(data) > maxOwed {
		return []scope{{Unknown: true}}
	}
	return owes
}

// coversAll reports whether a restore of s makes good all that is owed.
func (s scope) coversAll(owes []scope) bool {
	return !slices.ContainsFunc(owes, func(o scope) bool { return !s.covers(o) })
}

// sameOptions reports whether two requests ask for the same.
func sameOptions(a, b Options) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}
