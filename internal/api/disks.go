package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/wear"
)

// Rates are how fast the actions of a box were.
type Rates struct {
	Rates []Rate `json:"rates" doc:"the latest action first"`
}

// Rate is how fast an action of a box passed over a disk.
type Rate struct {
	Job      string        `json:"job"`
	Asked    time.Time     `json:"asked" doc:"when the job was asked for"`
	Action   string        `json:"action"`
	Disk     string        `json:"disk" doc:"kernel name"`
	Key      string        `json:"key,omitempty" doc:"what the disk is known by in later actions: its WWN or serial number"`
	Stage    string        `json:"stage" doc:"read, compare, write or verify"`
	Bytes    int64         `json:"bytes"`
	Took     time.Duration `json:"ns"`
	Rate     float64       `json:"rate" doc:"bytes in a second"`
	DiskRate float64       `json:"diskRate,omitempty" doc:"the same while the disk was being read; left out if that is not known"`
}

// RatesOf takes the rates out of the receipts of jobs.
func RatesOf(jobs []Job) []Rate {
	all := []Rate{}
	for _, j := range jobs {
		for _, r := range j.Receipts {
			for _, st := range r.Stages {
				all = append(all, Rate{Job: j.ID, Asked: j.Asked, Action: string(j.Action), Disk: clean(r.Disk), Key: clean(wear.Key(r.Identity)),
					Stage: clean(st.Name), Bytes: st.Bytes, Took: st.Elapsed, Rate: st.Rate(), DiskRate: st.ReadRate()})
			}
		}
	}
	return all
}

// getRates reads how fast the latest actions of a box were.
func (s *Server) getRates(ctx context.Context, in *struct {
	BoxPath
	Jobs int `query:"jobs" minimum:"1" maximum:"200" default:"50" doc:"of so many of its latest jobs"`
}) (*body[Rates], error) {
	var f ledger.JobFilter
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		b, err := findBox(tx, callerOf(ctx), in.Box)
		f.Box = b.Address
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []dispatch.Status
	for p := (ledger.Page{Limit: in.Jobs}); len(all) < in.Jobs; {
		some, next, err := s.cfg.Jobs.Jobs(ctx, f, p)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if p.After = next; next == "" {
			break
		}
	}
	jobs := make([]Job, 0, len(all))
	for _, st := range all[:min(len(all), in.Jobs)] {
		jobs = append(jobs, jobOf(st, ""))
	}
	return answer(Rates{RatesOf(jobs)}, nil)
}

// InventoryChanges say what of a box was different before.
type InventoryChanges struct {
	Time    time.Time          `json:"time,omitzero" doc:"when the inventory was taken that is compared"`
	Before  time.Time          `json:"before,omitzero" doc:"when the inventory was taken that was different; left out if there is none"`
	Changes []inventory.Change `json:"changes"`
	More    bool               `json:"more,omitempty" doc:"not all is listed or compared"`
	Disks   []DiskHealth       `json:"disks" doc:"what the disks of the latest inventory say of their health"`
	Alike   []AlikeDisks       `json:"alike,omitempty" doc:"latest inventory: disks built alike, without a WWN or serial of their own"`
}

// AlikeDisks are disks of one box that cannot be told apart by what they say of themselves.
type AlikeDisks struct {
	Disks  []string `json:"disks" doc:"kernel names"`
	Placed bool     `json:"placed,omitempty" doc:"they can be told apart by where they are plugged in, as long as they stay there"`
	Text   string   `json:"text" doc:"what follows from that, and what to do"`
}

// DiskHealth is what a disk says of its health.
type DiskHealth struct {
	Name       string                `json:"name" doc:"kernel name"`
	Model      string                `json:"model,omitempty"`
	Serial     string                `json:"serial,omitempty"`
	Size       int64                 `json:"size"`
	Status     string                `json:"status" doc:"good, failing or unknown"`
	Note       string                `json:"note,omitempty" doc:"why it is failing or unknown"`
	Attributes []inventory.Attribute `json:"attributes,omitempty" doc:"what it has measured of itself"`
	Counters   []string              `json:"counters,omitempty" doc:"names of those attributes that count errors of the disk"`
}

// maxHealth is how many disks and attributes of each an answer has.
const maxHealth = 100

// getChanges compares the inventory of a box with the latest one that was different.
func (s *Server) getChanges(ctx context.Context, in *BoxPath) (*body[InventoryChanges], error) {
	folder, addr, err := s.folder(ctx, in.Box)
	if err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	defer s.looked()
	is, err := readInventory(folder.Path(box.InfoJSON))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound("the box %s has no inventory yet; each action takes one, and `testbox refresh-info %s` takes only that", addr, addr)
	case err != nil:
		return nil, err
	}
	out := InventoryChanges{Time: inventory.TimeOf(is).UTC(), Changes: []inventory.Change{}}
	disks, err := inventory.ParseDisks(is)
	if err != nil {
		return nil, notFound("the inventory of the box %s cannot be read: %v", addr, err)
	}
	out.Disks, out.Alike = healthOf(disks), alike(disks)
	was, err := readInventory(folder.Path(box.InfoBefore))
	if errors.Is(err, fs.ErrNotExist) {
		return answer(out, nil)
	}
	if err == nil {
		out.Before = inventory.TimeOf(was).UTC()
		out.Changes, out.More, err = inventory.Changes(was, is, wear.Counts)
	}
	if err != nil {
		return nil, notFound("the inventories of the box %s cannot be compared: %v", addr, err)
	}
	return answer(out, nil)
}

func readInventory(path string) ([]byte, error) {
	f, st, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > inventory.MaxJSON {
		return nil, fmt.Errorf("it has %d bytes, more than %d", st.Size(), inventory.MaxJSON)
	}
	return io.ReadAll(io.LimitReader(f, inventory.MaxJSON))
}

// alike finds the disks of an inventory that cannot be told apart.
func alike(disks []inventory.Disk) (all []AlikeDisks) {
	var list []disk.Disk
	for _, d := range disks[:min(len(disks), maxHealth)] {
		list = append(list, disk.Disk{Name: d.Name, Identity: d.Identity, Transport: d.Transport, Removable: d.Removable})
	}
	for _, t := range match.Alike(list) {
		for i := range t.Disks {
			t.Disks[i] = clean(t.Disks[i])
		}
		a := AlikeDisks{Disks: t.Disks, Placed: t.Placed}
		a.Text = fmt.Sprintf("The disks %s are built alike, and have no serial and no WWN of their own. ", strings.Join(t.Disks, ", "))
		if t.Placed {
			a.Text += "Only the places where they are plugged in tell them apart. If they are swapped, a restore writes each image onto the " +
				"other disk, unless it is said where the images go."
		} else {
			a.Text += "Nothing tells them apart, so a restore is refused unless it is said where the images go."
		}
		all = append(all, a)
	}
	return all
}

func healthOf(disks []inventory.Disk) []DiskHealth {
	out := []DiskHealth{}
	for _, d := range disks[:min(len(disks), maxHealth)] {
		h := DiskHealth{Name: clean(d.Name), Model: clean(d.Model), Serial: clean(d.Serial), Size: d.Size, Status: clean(d.Health.Status),
			Note: clean(d.Health.Note)}
		for _, a := range d.Health.Attributes[:min(len(d.Health.Attributes), maxHealth)] {
			a.Name, a.Raw = clean(a.Name), clean(a.Raw)
			if h.Attributes = append(h.Attributes, a); wear.Counts(a) {
				h.Counters = append(h.Counters, a.Name)
			}
		}
		out = append(out, h)
	}
	return out
}
