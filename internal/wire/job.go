package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
)

// Version is the version of the protocol. An agent of another version cannot work
// with this server.
const Version = 1

// These limit what an agent says about its job.
const (
	MaxHello     = 16 << 10  // bytes of a hello
	MaxWelcome   = 32 << 20  // bytes of its answer, which has records
	MaxReport    = 256 << 10 // bytes of a report
	MaxLines     = 256       // lines of the log in a report
	MaxResult    = 8 << 20   // bytes of a result, which has receipts
	MaxInventory = 16 << 20  // bytes of a file of the inventory
	MaxWarnings  = 256       // in a result
	MaxReceipts  = 1024      // in a result
	MaxRanges    = 1000      // of each kind in a receipt that is sent; further ones are left out
	MaxMACs      = 64
	MaxRecords   = 64 // records in a welcome
	// MaxDisksFile is the most bytes of disk-devices.lst.
	MaxDisksFile = 64 << 10
	// ReportEvery is how long an agent is silent at most, as long as it lives.
	ReportEvery = 5 * time.Second
)

// Paths of the requests about a job. Those but the first need a token.
const (
	HelloPath     = Prefix + "hello"
	ReportPath    = Prefix + "report"
	ResultPath    = Prefix + "result"
	InventoryPath = Prefix + "inventory/" // and the name of the file
)

// Hello is what an agent says first. It may be repeated with the same token.
type Hello struct {
	Protocol int        `json:"protocol"` // Version
	Agent    string     `json:"agent"`    // version of its program
	Box      box.Addr   `json:"box"`      // that was armed
	Arming   box.Arming `json:"arming"`
	Secret   string     `json:"secret"` // of the boot file
	// Token is what the agent drew when it started. It is its session token, once it
	// was told to work. The server keeps only a hash of it.
	Token string   `json:"token"`
	MACs  []string `json:"macs,omitempty"` // of the network cards
	UUID  string   `json:"uuid,omitempty"` // of the machine
}

// Welcome is the answer to a hello.
type Welcome struct {
	Word job.Word  `json:"word"`           // work, restart, retry, hold or refuse; "go on" if the box is up for rescue already
	Text string    `json:"text,omitempty"` // why it is not work
	Time time.Time `json:"time"`           // the server's
	Job  *Job      `json:"job,omitempty"`  // with the word work
}

// Job is what an agent is to do. What an admin asked for besides the action is on the
// kernel command line.
type Job struct {
	ID      string     `json:"id"`
	Action  box.Action `json:"action"`
	Attempt int        `json:"attempt"`
	Host    string     `json:"host,omitempty"` // name of the box
	// Selection has the bytes of disk-devices.lst, if the box has one.
	Selection *string `json:"selection,omitempty"`
	Inventory bool    `json:"inventory,omitempty"` // there is one of an earlier action
	AllUsed   bool    `json:"allUsed,omitempty"`   // read all of each disk, whatever the file systems say is used
	// Record is the backup that a restore or a verify uses.
	Record *image.Record `json:"record,omitempty"`
	// Known are backups of the box, the newest first, by which its disks keep their
	// names.
	Known []*image.Record `json:"known,omitempty"`
	// Committed is the backup that an earlier attempt has made.
	Committed *image.Record `json:"committed,omitempty"`
}

// Report is a sign of life. Split makes it as short as it must be.
type Report struct {
	// Number counts the reports of a session from 1. A report with a number that the
	// server has taken changes nothing but the sign of life.
	Number uint64 `json:"number"`
	// Writes says that the agent is about to write to a disk for the first time. It
	// must not do so before it is told to go on.
	Writes bool   `json:"writes,omitempty"`
	Step   Step   `json:"step,omitempty"`
	Text   string `json:"text,omitempty"`  // the step in words, with how far it is
	Done   int64  `json:"done,omitempty"`  // bytes of Total
	Total  int64  `json:"total,omitempty"` // bytes; 0 if not known
	Lines  []Line `json:"lines,omitempty"` // of the log, in their order
	// Room is there only if the server has answered a request to join a room, so an older server never sees it.
	Room *RoomState `json:"room,omitempty"`
}

// Step is what an agent is doing.
type Step string

// The steps.
const (
	StepInventory Step = "inventory"
	StepCheck     Step = "check"
	StepCompare   Step = "compare"
	StepRead      Step = "read"
	StepWrite     Step = "write"
	StepVerify    Step = "verify"
	StepCommit    Step = "commit"
)

// Steps has all steps.
var Steps = []Step{StepInventory, StepCheck, StepCompare, StepRead, StepWrite, StepVerify, StepCommit}

// Line is a line of the box's log, without a time. The server writes its own.
type Line struct {
	Kind LineKind `json:"kind,omitempty"`
	Text string   `json:"text"`
}

// LineKind says who should see a line.
type LineKind string

// The kinds of lines.
const (
	LineInfo     LineKind = ""         // the box's log
	LineHello    LineKind = "hello"    // begins the log of a start; it has no text
	LineAnnounce LineKind = "announce" // also the log of all boxes
	LineError    LineKind = "error"    // the same, as an error
)

// Result is how an agent's action ended.
type Result struct {
	Outcome  box.Outcome     `json:"outcome"`
	Class    job.Class       `json:"class,omitempty"` // of a failure or a refusal
	Text     string          `json:"text,omitempty"`  // why
	Warnings []string        `json:"warnings,omitempty"`
	Receipts []image.Receipt `json:"receipts,omitempty"`
	// HostKeys are those of the ssh server of a box that is up for rescue, as
	// box.HostKey.String has them.
	HostKeys []string `json:"hostKeys,omitempty"`
}

// Told is the answer to a report, and to a result.
type Told struct {
	Word job.Word  `json:"word"`
	Time time.Time `json:"time"` // the server's
}

// ParseHello parses the JSON of a Hello. The hello of another version of the protocol
// may have fields that this one does not know. An agent that cannot work here must
// still be told so.
func ParseHello(b []byte) (*Hello, error) {
	var h Hello
	err := decode("the hello", b, MaxHello, MaxMACs, &h)
	var other Hello
	if err != nil && len(b) <= MaxHello && json.Unmarshal(b, &other) == nil && other.Protocol != Version {
		h, err = other, nil
	}
	if err != nil {
		return nil, err
	}
	switch _, armingErr := box.ParseArming(string(h.Arming)); {
	case h.Box.IsZero() || armingErr != nil:
		return nil, errors.New("the hello names no box, or no arming")
	case h.Protocol < 1:
		return nil, errors.New("the hello names no version of the protocol")
	case !ValidToken(h.Token) || len(h.Token) < MinToken:
		return nil, fmt.Errorf("the hello has a token that is not %d to %d letters, digits, - and _", MinToken, MaxToken)
	case len(h.MACs) > MaxMACs || !printable(h.UUID, maxUUID) || !printable(h.Agent, maxUUID) || !printable(h.Secret, MaxToken):
		return nil, errors.New("the hello says too much, or what cannot be printed")
	}
	for _, m := range h.MACs {
		if !printable(m, maxUUID) {
			return nil, errors.New("the hello has a MAC that cannot be")
		}
	}
	return &h, nil
}

// MinToken is how many characters a token has at least that an agent draws.
const MinToken = 26

// MarshalWelcome returns the JSON of a Welcome. It leaves out the oldest of the known
// backups if they are too many, or too long.
func MarshalWelcome(w *Welcome) ([]byte, error) {
	w = withoutFirmware(w)
	if w.Job != nil && len(w.Job.Known) > MaxRecords {
		job := *w.Job
		job.Known = job.Known[:MaxRecords]
		w = &Welcome{w.Word, w.Text, w.Time, &job}
	}
	b, err := json.Marshal(w)
	for err == nil && len(b) > MaxWelcome {
		if w.Job == nil || len(w.Job.Known) == 0 {
			return nil, fmt.Errorf("the answer to a hello has %d bytes, more than %d", len(b), MaxWelcome)
		}
		job := *w.Job
		job.Known = job.Known[:len(job.Known)/2]
		w = &Welcome{w.Word, w.Text, w.Time, &job}
		b, err = json.Marshal(w)
	}
	return b, err
}

// withoutFirmware leaves the state of the firmware out of the records. An agent asks for
// what it needs of that, and an older one does not know the field.
func withoutFirmware(w *Welcome) *Welcome {
	if w.Job == nil {
		return w
	}
	j := *w.Job
	bare := func(r *image.Record) *image.Record {
		if r == nil || r.Firmware == nil {
			return r
		}
		c := *r
		c.Firmware = nil
		return &c
	}
	j.Record, j.Committed, j.Known = bare(j.Record), bare(j.Committed), slices.Clone(j.Known)
	for i, r := range j.Known {
		j.Known[i] = bare(r)
	}
	return &Welcome{w.Word, w.Text, w.Time, &j}
}

// ParseWelcome parses the JSON of a Welcome.
func ParseWelcome(b []byte) (*Welcome, error) {
	var w Welcome
	if err := decode("the welcome", b, MaxWelcome, 0, &w); err != nil {
		return nil, err
	}
	w.Text = Clean(w.Text)
	words := []job.Word{job.Work, job.GoOn, job.Restart, job.Retry, job.Hold, job.Refuse}
	if !slices.Contains(words, w.Word) || w.Time.IsZero() || (w.Word == job.Work) != (w.Job != nil) {
		return nil, fmt.Errorf("the server answers %.40q to a hello, with a job: %v", w.Word, w.Job != nil)
	}
	if w.Job == nil {
		return &w, nil
	}
	return &w, w.Job.check()
}

func (j *Job) check() error {
	if _, err := box.ParseAction(string(j.Action)); err != nil {
		return err
	}
	if j.ID == "" || !printable(j.ID, maxUUID) || j.Attempt < 1 || j.Host != "" && !box.ValidHost(j.Host) {
		return errors.New("the job has no id, no attempt or a host name that cannot be")
	}
	if j.Selection != nil && len(*j.Selection) > MaxDisksFile || len(j.Known) > MaxRecords {
		return errors.New("the job has too many disks or records")
	}
	for _, r := range append([]*image.Record{j.Record, j.Committed}, j.Known...) {
		if r == nil {
			continue
		}
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

// ParseReport parses the JSON of a Report. Texts are made fit for a log.
func ParseReport(b []byte) (*Report, error) {
	var r Report
	if err := decode("the report", b, MaxReport, MaxLines, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Number < 1 || r.Number > MaxNumber:
		return nil, fmt.Errorf("no report has the number %d", r.Number)
	case r.Step != "" && !slices.Contains(Steps, r.Step):
		return nil, fmt.Errorf("there is no step %.40q", r.Step)
	case r.Done < 0 || r.Total < 0:
		return nil, fmt.Errorf("%d of %d bytes cannot be", r.Done, r.Total)
	case len(r.Lines) > MaxLines:
		return nil, fmt.Errorf("a report has at most %d lines", MaxLines)
	}
	if r.Room != nil {
		if err := r.Room.check(); err != nil {
			return nil, err
		}
	}
	r.Text = Clean(r.Text)
	for i := range r.Lines {
		l := &r.Lines[i]
		if !slices.Contains([]LineKind{LineInfo, LineHello, LineAnnounce, LineError}, l.Kind) {
			return nil, fmt.Errorf("there is no line of the kind %.40q", l.Kind)
		}
		l.Text = Clean(l.Text)
	}
	return &r, nil
}

// Split makes a report fit to be sent. It makes texts fit for a log, and returns the
// lines that are too many for one report.
func (r *Report) Split() (rest []Line) {
	r.Text = Clean(r.Text)
	lines := slices.Clone(r.Lines)
	r.Lines = nil
	size := len(Marshal(r)) + len(`,"lines":[]`)
	for i := range lines {
		l := &lines[i]
		l.Text = Clean(l.Text)
		if size += len(Marshal(l)) + len(","); i == MaxLines || size > MaxReport {
			r.Lines = lines[:i]
			return lines[i:]
		}
	}
	r.Lines = lines
	return nil
}

// ParseResult parses the JSON of a Result. Texts are made fit for a log.
func ParseResult(b []byte) (*Result, error) {
	var r Result
	if err := decode("the result", b, MaxResult, MaxWarnings+MaxReceipts+box.MaxHostKeys, &r); err != nil {
		return nil, err
	}
	if !r.Outcome.Known() && r.Outcome != job.Cancelled {
		return nil, fmt.Errorf("there is no outcome %.40q", r.Outcome)
	}
	classes := []job.Class{"", job.ClassBox, job.ClassImage, job.ClassServer, job.ClassNetwork, job.ClassAdmin}
	if !slices.Contains(classes, r.Class) {
		return nil, fmt.Errorf("there is no class %.40q", r.Class)
	}
	if len(r.Warnings) > MaxWarnings || len(r.Receipts) > MaxReceipts {
		return nil, fmt.Errorf("the result has %d warnings and %d receipts", len(r.Warnings), len(r.Receipts))
	}
	if len(r.HostKeys) > box.MaxHostKeys || len(r.HostKeys) > 0 && r.Outcome != box.Rescuing {
		return nil, fmt.Errorf("the result %q has %d host keys", r.Outcome, len(r.HostKeys))
	}
	for _, k := range r.HostKeys {
		if _, err := box.ParseHostKey(k); err != nil {
			return nil, fmt.Errorf("a host key: %w", err)
		}
	}
	r.Text = Clean(r.Text)
	for i := range r.Warnings {
		r.Warnings[i] = Clean(r.Warnings[i])
	}
	for i := range r.Receipts {
		if err := checkReceipt(&r.Receipts[i]); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// checkReceipt returns an error if a receipt says what cannot be. It makes its texts
// fit for a log.
func checkReceipt(r *image.Receipt) error {
	d := &r.Identity
	for _, s := range []*string{&r.Image, &r.Disk, &r.BLAKE3, &r.Root, &d.WWN, &d.Serial, &d.Path, &d.Model} {
		*s = Clean(*s)
	}
	for _, n := range []int64{r.Read, r.Zero, r.Written, r.Skipped, r.Unused, r.Verified, r.FromServer, r.FromPeers, d.Size,
		int64(d.SectorSize)} {
		if n < 0 {
			return fmt.Errorf("the receipt of %s has %d bytes of something", r.Image, n)
		}
	}
	if max(r.FromServer, r.FromPeers) > maxRoomBytes {
		return fmt.Errorf("the receipt of %s has %d and %d bytes of chunks", r.Image, r.FromServer, r.FromPeers)
	}
	for _, list := range [][]image.Range{r.Changed, r.Differ, r.Bad} {
		for _, at := range list {
			if at.Off < 0 || at.Len < 0 || at.Len > math.MaxInt64-at.Off {
				return fmt.Errorf("the receipt of %s has %d bytes at %d", r.Image, at.Len, at.Off)
			}
		}
	}
	if len(r.Hooks) > image.MaxHooks {
		return fmt.Errorf("the receipt of %s has %d hooks", r.Image, len(r.Hooks))
	}
	for i := range r.Hooks {
		h := &r.Hooks[i]
		h.Hook, h.Place, h.Text = Clean(h.Hook), Clean(h.Place), Clean(h.Text)
		if len(h.Files) > image.MaxHookFiles {
			return fmt.Errorf("the receipt of %s has a hook with %d files", r.Image, len(h.Files))
		}
		for j := range h.Files {
			h.Files[j] = Clean(h.Files[j])
		}
	}
	for i := range r.Stages {
		s := &r.Stages[i]
		if s.Name = Clean(s.Name); s.Bytes < 0 || s.Elapsed < 0 || s.Busy < 0 || s.Busy > 1 || s.Active < 0 {
			return fmt.Errorf("the receipt of %s has a stage %s that cannot be", r.Image, s.Name)
		}
	}
	return nil
}

// MarshalResult returns the JSON of a Result. It makes texts fit for a log, and leaves
// out what is too much, since a result must not fail by its length.
func MarshalResult(r *Result) []byte {
	c := *r
	c.Text = Clean(r.Text)
	if n := len(r.Warnings); n > MaxWarnings {
		c.Warnings = append(slices.Clone(r.Warnings[:MaxWarnings-1]), fmt.Sprintf("There are %d further warnings.", n-MaxWarnings+1))
	}
	c.Warnings = slices.Clone(c.Warnings)
	for i, w := range c.Warnings {
		c.Warnings[i] = Clean(w)
	}
	c.Receipts = slices.Clone(r.Receipts[:min(len(r.Receipts), MaxReceipts)])
	b := Marshal(&c)
	if len(b) <= MaxResult {
		return b
	}
	// The receipts go last, since a success without them is not believed.
	for most := MaxRanges; len(b) > MaxResult && most > 0; most /= 2 {
		for i := range c.Receipts {
			e := &c.Receipts[i]
			for _, list := range []*[]image.Range{&e.Changed, &e.Differ, &e.Bad} {
				*list = (*list)[:min(len(*list), most)]
			}
		}
		b = Marshal(&c)
	}
	for ; len(b) > MaxResult; b = Marshal(&c) {
		c.Receipts = c.Receipts[:len(c.Receipts)/2]
	}
	return b
}

// ParseTold parses the JSON of a Told.
func ParseTold(b []byte) (*Told, error) {
	var t Told
	if err := decode("the answer", b, MaxProblem, 0, &t); err != nil {
		return nil, err
	}
	words := []job.Word{job.GoOn, job.Stop, job.Restart, job.Retry, job.Hold, job.Refuse}
	if !slices.Contains(words, t.Word) || t.Time.IsZero() {
		return nil, fmt.Errorf("the server answers %.40q at %v", t.Word, t.Time)
	}
	return &t, nil
}

// ValidInventory reports whether a file of the inventory may have this name.
func ValidInventory(name string) bool {
	return slices.Contains([]string{box.InfoText, box.InfoJSON, box.InfoZip, box.FirmwareFile}, name)
}
