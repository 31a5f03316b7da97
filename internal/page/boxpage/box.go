package boxpage

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/chart"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
)

// How much of each list a page shows. The rest is on further pages.
const (
	shownBackups = 50
	shownJobs    = 10
	ratedJobs    = 50
	shownRates   = 60
	drawnDisks   = 16
)

// boxData is what the page of a box shows. Each text after a list says why the list is not known.
type boxData struct {
	Me        visitor
	Box       api.Box
	Job       *api.Job // the latest, while it has not ended
	Jobs      []api.Job
	JobsWhy   string
	Backups   []backup
	All       int // how many backups there are
	Older     string
	Newer     bool
	Lost      []string // backups whose records cannot be read
	BackupWhy string
	Sizes     []speeds
	Latest    string // id of the backup whose disks are drawn
	Boot      *bootTest
	Speeds    []speeds
	Rates     []api.Rate
	RatesWhy  string
	Changes   api.InventoryChanges
	InvWhy    string
	Firmware  *firmware
	Copy      *api.Job // by which the box has the machine-id of another one
}

// backup is a row of the history.
type backup struct {
	api.Backup
	Data, Stored int64
	Damaged      []string // what is wrong with its disks, in sentences
}

// bootTest is the latest boot test of a box's backups.
type bootTest struct {
	*api.BootTest
	Of      string // id of the backup
	Latest  bool   // it is the latest backup
	Seen    string // the strongest sign of life, in a sentence
	Picture string // path of the picture of its last screen
}

// signs say in sentences what a boot test saw.
var signs = map[image.Sign]string{
	image.SignNothing:  "There was no sign of life.",
	image.SignRead:     "It read its disks, and no more was seen.",
	image.SignSerial:   "It wrote to the serial line.",
	image.SignScreen:   "It showed a screen of its own.",
	image.SignWritten:  "It wrote to its disks.",
	image.SignLogin:    "It asked for a login.",
	image.SignExpected: "It wrote the line that was expected.",
}

// bootOf finds the latest backup that has a boot test.
func bootOf(all []api.Backup) *bootTest {
	for i, b := range slices.Backward(all) {
		if b.Boot != nil {
			return &bootTest{b.Boot, b.ID, i == len(all)-1, signs[b.Boot.Sign],
				"/boxes/" + url.PathEscape(b.Box) + "/backups/" + url.PathEscape(b.ID) + "/boot.png"}
		}
	}
	return nil
}

// speeds are figures over time, as the rates of one disk.
type speeds struct {
	Title string
	Chart template.HTML
}

// Box makes the page of a box, which is named by its address, name, MAC or UUID. older is
// the id of a backup behind which the history begins; "" begins with the latest.
func (p *Pages) Box(ctx context.Context, a API, word, older string) (Page, error) {
	var d boxData
	var err error
	if d.Me, err = whoIs(ctx, a); err != nil {
		return Page{}, err
	}
	if err := a.Ask(ctx, "get-box", Params{"box": word}, nil, &d.Box); err != nil {
		return Page{}, err
	}
	addr := d.Box.Address
	var jobs api.JobList
	d.JobsWhy = why(a.Ask(ctx, "list-jobs", Params{"box": addr, "limit": strconv.Itoa(shownJobs)}, nil, &jobs))
	d.Jobs = jobs.Jobs
	if len(d.Jobs) > 0 && !d.Jobs[0].Ended() {
		d.Job = &d.Jobs[0]
	}
	if i := slices.IndexFunc(d.Jobs, func(j api.Job) bool { return j.Restored() }); i >= 0 && d.Jobs[i].SharesMachineID() {
		d.Copy = &d.Jobs[i]
	}
	var list api.BackupList
	d.BackupWhy = why(a.Ask(ctx, "list-backups", Params{"owner": addr}, nil, &list))
	d.addBackups(list, older)
	var rates api.Rates
	d.RatesWhy = why(a.Ask(ctx, "get-rates", Params{"box": addr, "jobs": strconv.Itoa(ratedJobs)}, nil, &rates))
	d.Speeds, d.Rates = speedsOf(rates.Rates), rates.Rates[:min(len(rates.Rates), shownRates)]
	d.InvWhy = why(a.Ask(ctx, "get-changes", Params{"box": addr}, nil, &d.Changes))
	d.Firmware = firmwareNow(ctx, a, addr)
	return p.render("box.tmpl", boxName(d.Box), &d)
}

// boxNow makes that part of the page of a box that changes by itself. idle says that the box
// has no job.
func (p *Pages) boxNow(ctx context.Context, a API, word string) (made Page, idle bool, err error) {
	var d boxData
	if d.Me, err = whoIs(ctx, a); err != nil {
		return Page{}, false, err
	}
	if err := a.Ask(ctx, "get-box", Params{"box": word}, nil, &d.Box); err != nil {
		return Page{}, false, err
	}
	if last := d.Box.Last; last != nil && last.State != job.Ended {
		d.Job = &api.Job{}
		if err := a.Ask(ctx, "get-job", Params{"job": last.ID}, nil, d.Job); err != nil {
			return Page{}, false, err
		}
	}
	made, err = p.render("box-now", "", &d)
	return made, d.Job == nil, err
}

func boxName(b api.Box) string {
	if b.Name != "" {
		return b.Name
	}
	return b.Address
}

// addBackups takes a part of the history, and draws the latest of it.
func (d *boxData) addBackups(list api.BackupList, older string) {
	d.All, d.Lost = len(list.Backups), list.Unreadable
	all := list.Backups
	if d.All > 0 {
		d.Latest = all[d.All-1].ID
		d.Boot = bootOf(all)
	}
	if i := slices.IndexFunc(all, func(b api.Backup) bool { return b.ID == older }); i >= 0 {
		all, d.Newer = all[:i], true
	}
	if len(all) > shownBackups {
		d.Older = all[len(all)-shownBackups].ID
	}
	for _, b := range slices.Backward(all[max(0, len(all)-shownBackups):]) {
		d.Backups = append(d.Backups, rowOf(b))
	}
	d.Sizes = sizesOf(list.Backups)
}

func rowOf(b api.Backup) backup {
	row := backup{Backup: b}
	for _, disk := range b.Disks {
		row.Data += disk.Data
		row.Stored += disk.Stored
		if disk.Lacks {
			row.Damaged = append(row.Damaged, fmt.Sprintf("The store lacks some of %s, so this disk cannot be restored in full. "+
				"What is lacking is said by: testbox image show %s@%s", disk.Name, b.Box, b.ID))
		}
		if disk.Bad {
			row.Damaged = append(row.Damaged, fmt.Sprintf("Some sectors of %s could not be read; its image has zeros there.", disk.Name))
		}
	}
	return row
}

// sizesOf draws how much the backups have, and what each of them added.
func sizesOf(all []api.Backup) (out []speeds) {
	if len(all) < 2 {
		return nil
	}
	data, added := chart.Series{Name: "data of the disks"}, chart.Series{Name: "added to the store", Bars: true}
	for _, b := range all {
		row := rowOf(b)
		data.Points = append(data.Points, chart.Point{At: b.Time, Value: float64(row.Data), Note: b.ID})
		added.Points = append(added.Points, chart.Point{At: b.Time, Value: float64(row.Stored), Note: b.ID})
	}
	last := rowOf(all[len(all)-1])
	for i, f := range []struct {
		title, about string
		series       chart.Series
	}{
		{"Data of the disks in each backup", fmt.Sprintf("The latest of %d backups has %s.", len(all), image.SizeText(last.Data)), data},
		{"What each backup added to the store", fmt.Sprintf("The latest of %d backups added %s.", len(all), image.SizeText(last.Stored)),
			added},
	} {
		figures := chart.Figures{ID: fmt.Sprintf("sizes%d", i), Title: f.title, Series: []chart.Series{f.series}, Bytes: true,
			About: f.about + " The table below has all figures.",
			Unit:  func(v float64) string { return image.SizeText(int64(min(v, 1<<60))) }}
		out = append(out, speeds{f.title, figures.SVG()})
	}
	return out
}

// speedsOf draws how fast each disk was read.
func speedsOf(rates []api.Rate) (all []speeds) {
	type kind struct{ disk, stage string }
	series := map[kind][]chart.Point{}
	var disks []string
	names := map[string]string{}
	for _, r := range slices.Backward(rates) { // the oldest first
		v := r.DiskRate
		if v == 0 {
			v = r.Rate
		}
		if v <= 0 || r.Bytes < 1<<20 {
			continue
		}
		key := r.Key
		if key == "" {
			key = r.Disk
		}
		if !slices.Contains(disks, key) {
			disks = append(disks, key)
		}
		names[key] = r.Disk
		series[kind{key, r.Stage}] = append(series[kind{key, r.Stage}], chart.Point{At: r.Asked, Value: v, Note: r.Job})
	}
	for i, key := range disks[:min(len(disks), drawnDisks)] {
		name := names[key]
		if key != name {
			name += ", " + key
		}
		f := chart.Figures{ID: fmt.Sprintf("rates%d", i), Title: "Rates of " + name, Unit: rateText}
		var latest []string
		for _, stage := range []string{"read", "compare", "write", "verify"} {
			points := series[kind{key, stage}]
			if len(points) == 0 {
				continue
			}
			f.Series = append(f.Series, chart.Series{Name: stage, Points: points})
			latest = append(latest, stage+" "+rateText(points[len(points)-1].Value))
		}
		f.About = "The latest rates: " + strings.Join(latest, ", ") + ". The table below has all figures."
		if len(f.Series) > 0 {
			all = append(all, speeds{name + ": " + strings.Join(latest, ", "), f.SVG()})
		}
	}
	return all
}

// disksData is what the drawings of a backup's disks show.
type disksData struct {
	Box, Backup string
	Part        bool // it is put into the page of the box
	Disks       []drawnDisk
	More        int       // disks that are not drawn
	Firmware    *firmware // nil on the page of the box, which has that of its latest start
}

type drawnDisk struct {
	Name string
	Map  api.DiskMap
	SVG  template.HTML
	Why  string // there is no drawing
}

// Disks draws the disks of a backup. It is a part of a page, and a page of its own.
func (p *Pages) Disks(ctx context.Context, a API, addr, id string, part bool) (Page, error) {
	var list api.BackupList
	if err := a.Ask(ctx, "list-backups", Params{"owner": addr}, nil, &list); err != nil {
		return Page{}, err
	}
	i := slices.IndexFunc(list.Backups, func(b api.Backup) bool { return b.ID == id })
	if i < 0 {
		return Page{}, &api.Problem{Status: http.StatusNotFound, Code: api.CodeNotFound, Title: http.StatusText(http.StatusNotFound),
			Detail: fmt.Sprintf("there is no backup %.80q of this box", id)}
	}
	d := disksData{Box: addr, Backup: id, Part: part, More: max(0, len(list.Backups[i].Disks)-drawnDisks)}
	for n, disk := range list.Backups[i].Disks[:len(list.Backups[i].Disks)-d.More] {
		drawn := drawnDisk{Name: disk.Name}
		err := a.Ask(ctx, "get-map", Params{"owner": addr, "backup": id, "disk": disk.Name}, nil, &drawn.Map)
		if drawn.Why = why(err); err == nil {
			drawn.SVG = drawDisk(fmt.Sprintf("disk%d", n), &drawn.Map)
		}
		d.Disks = append(d.Disks, drawn)
	}
	if !part {
		d.Firmware = firmwareThen(ctx, a, addr, id)
	}
	return p.render("disks.tmpl", "Disks of "+addr, &d)
}

func drawDisk(id string, m *api.DiskMap) template.HTML {
	c := chart.Disk{ID: id, Name: "Disk " + m.Disk, Size: m.Size, About: fmt.Sprintf("%s, of which %s are used, %s of them in doubt. "+
		"The table below names its parts.", image.SizeText(m.Size), image.SizeText(m.Data+m.Zero), image.SizeText(m.InDoubt))}
	for _, part := range m.Parts {
		if part.Volume {
			continue // it lies in a partition that is drawn
		}
		note := strings.Join(slices.DeleteFunc([]string{part.FS, image.SizeText(part.Len)}, func(s string) bool { return s == "" }), ", ")
		name := part.Label
		if name == "" {
			name = part.Name
		}
		if name == "" {
			name = part.Title
		}
		c.Parts = append(c.Parts, chart.Part{Name: name, Note: note, Off: part.Off, Len: part.Len, Doubt: part.Doubt != ""})
	}
	for i, cell := range m.Cells {
		size := float64(min(m.Cell, m.Size-int64(i)*m.Cell))
		share := func(n int64) float64 { return float64(n) / size }
		c.Cells = append(c.Cells, chart.Cell{Used: share(cell.Data + cell.Zero), Doubt: share(cell.InDoubt), Changed: share(cell.Changed),
			Unread: share(cell.Unread)})
	}
	return c.SVG()
}

// jobData is what the page of a job shows.
type jobData struct {
	Me   visitor
	Job  api.Job
	Took time.Duration
}

// Job makes the page of a job.
func (p *Pages) Job(ctx context.Context, a API, id string) (Page, error) {
	d, err := p.job(ctx, a, id)
	if err != nil {
		return Page{}, err
	}
	return p.render("job.tmpl", fmt.Sprintf("%s of %s", d.Job.Action, jobBox(d.Job)), d)
}

// jobNow makes that part of the page of a job that changes while it runs.
func (p *Pages) jobNow(ctx context.Context, a API, id string) (made Page, ended bool, err error) {
	d, err := p.job(ctx, a, id)
	if err != nil {
		return Page{}, false, err
	}
	made, err = p.render("job-now", "", d)
	return made, d.Job.Ended(), err
}

func jobBox(j api.Job) string {
	if j.Name != "" {
		return j.Name
	}
	return j.Box
}

func (p *Pages) job(ctx context.Context, a API, id string) (*jobData, error) {
	var d jobData
	var err error
	if d.Me, err = whoIs(ctx, a); err != nil {
		return nil, err
	}
	return &d, a.Ask(ctx, "get-job", Params{"job": id}, nil, &d.Job)
}
