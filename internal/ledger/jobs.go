package ledger

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Job is a job as the ledger knows it. What it means is in its document, which
// the ledger does not look at.
type Job struct {
	ID      string // the key
	Box     box.Addr
	State   string
	Created time.Time
	Changed time.Time
	Ended   time.Time // zero as long as it has not ended
	By, Key string    // who made it with which idempotency key; a key has one job for each box
	Doc     json.RawMessage
}

func (j Job) check() error {
	if len(j.Doc) == 0 {
		return problem.Wrongf("the document of the job is missing")
	}
	if j.Created.IsZero() {
		return problem.Wrongf("the time when the job was made is missing")
	}
	_, err := checkJSON("the document of a job", j.Doc, MaxDocument)
	return first(err, checkID("the id of a job", j.ID), checkAddress(j.Box), checkName("the state of a job", j.State, MaxWord),
		checkTime("when the job was made", j.Created), checkTime("when the job changed", j.Changed),
		checkTime("when the job ended", j.Ended),
		checkText("who made the job", j.By, MaxWho), checkText("the key of the job", j.Key, MaxKey))
}

const jobColumns = `id, box, state, created, changed, ended, made_by, made_key, document`

func scanJob(r row) (j Job, err error) {
	return j, r.Scan(&j.ID, address{&j.Box}, &j.State, instant{&j.Created}, instant{&j.Changed}, instant{&j.Ended},
		&j.By, &j.Key, (*[]byte)(&j.Doc))
}

// AddJob stores a new job. The error matches ErrExists if there is a job with
// this id, or one of the same box that the same person made with the same key.
func (tx *Tx) AddJob(j Job) error {
	if err := j.check(); err != nil {
		return err
	}
	found, err := tx.has(`SELECT id FROM jobs WHERE id = ?`, j.ID)
	if err != nil {
		return err
	}
	if found {
		return exists("there is a job %s already", j.ID)
	}
	if err := tx.keyIsFree(j); err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO jobs (`+jobColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, j.ID, j.Box.Hex(), j.State,
		nanos(j.Created), nanos(j.Changed), nanos(j.Ended), j.By, j.Key, string(j.Doc))
	return err
}

// keyIsFree refuses a second job of a box with the same key.
func (tx *Tx) keyIsFree(j Job) error {
	if j.Key == "" {
		return nil
	}
	other, found, err := one(tx, scanText, `SELECT id FROM jobs
		WHERE made_by = ? AND made_key = ? AND made_key <> '' AND box = ? AND id <> ?`, j.By, j.Key, j.Box.Hex(), j.ID)
	if err == nil && found {
		err = exists("%s has made the job %s of %s with this key already", j.By, other, j.Box)
	}
	return err
}

// UpdateJob stores a job anew. When it was made, by whom and with which key do
// not change.
func (tx *Tx) UpdateJob(j Job) error {
	if err := j.check(); err != nil {
		return err
	}
	old, err := tx.Job(j.ID)
	if err != nil {
		return err
	}
	if !old.Created.Equal(j.Created) || old.By != j.By || old.Key != j.Key {
		return problem.Wrongf("when the job %s was made, by whom and with which key cannot be changed", j.ID)
	}
	if err := tx.keyIsFree(j); err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE jobs SET box = ?, state = ?, changed = ?, ended = ?, document = ? WHERE id = ?`,
		j.Box.Hex(), j.State, nanos(j.Changed), nanos(j.Ended), string(j.Doc), j.ID)
	return err
}

// Job returns the job of an id.
func (tx *Tx) Job(id string) (Job, error) {
	if err := checkID("the id of a job", id); err != nil {
		return Job{}, err
	}
	j, found, err := one(tx, scanJob, `SELECT `+jobColumns+` FROM jobs WHERE id = ?`, id)
	if err == nil && !found {
		err = notFound("there is no job %s", id)
	}
	return j, err
}

// JobFilter says which jobs a list has. Each field that is not empty must be met.
type JobFilter struct {
	Box    box.Addr
	States []string // one of these
	Open   bool     // those that have not ended
	By     string
	Key    string
	Ended  time.Time // those that ended then or later
}

// Jobs lists jobs, the latest first. If next is not "", there is another page.
func (tx *Tx) Jobs(f JobFilter, p Page) (jobs []Job, next string, err error) {
	w, err := f.where()
	if err != nil {
		return nil, "", err
	}
	if p.After != "" {
		created, id, _ := strings.Cut(p.After, "-")
		n, err := strconv.ParseInt(created, 10, 64)
		if err != nil || checkID("", id) != nil {
			return nil, "", wrongAfter(p.After)
		}
		w.add(`(created, id) < (?, ?)`, n, id)
	}
	all, err := many(tx, scanJob, selectJobs(w), append(w.args, p.limit()+1)...)
	if err != nil {
		return nil, "", err
	}
	jobs, next = cut(all, p, func(j Job) string { return strconv.FormatInt(nanos(j.Created), 10) + "-" + j.ID })
	return jobs, next, nil
}

// selectJobs is the query for jobs, with a limit as its last argument.
func selectJobs(w where) string {
	return `SELECT ` + jobColumns + ` FROM jobs` + w.String() + ` ORDER BY created DESC, id DESC LIMIT ?`
}

// where is the condition of a filter.
func (f JobFilter) where() (w where, err error) {
	// Few jobs have not ended, and an index has these. The index of a box or of a person has many more of them, and without
	// the empty text the database would read all of those.
	noIndex := ""
	if f.Open {
		noIndex = ` || ''`
	}
	if !f.Box.IsZero() {
		w.add(`box`+noIndex+` = ?`, f.Box.Hex())
	}
	if len(f.States) > MaxMarks {
		return w, problem.Wrongf("a list of jobs can be limited to %d states, and not to %d", MaxMarks, len(f.States))
	}
	if len(f.States) > 0 {
		var args []any
		for _, s := range f.States {
			args = append(args, s)
		}
		w.add(`state IN (?`+strings.Repeat(`, ?`, len(args)-1)+`)`, args...)
	}
	if f.Open {
		w.add(`ended = 0`)
	}
	if !f.Ended.IsZero() {
		w.add(`ended >= ?`, nanos(f.Ended))
	}
	if f.By != "" {
		w.add(`made_by`+noIndex+` = ?`, f.By)
	}
	if f.Key != "" {
		w.add(`made_key = ? AND made_key <> ''`, f.Key)
	}
	return w, nil
}

// LastJobs returns the latest job of each of these boxes that has one.
func (tx *Tx) LastJobs(boxes []box.Addr) (map[box.Addr]Job, error) {
	last := make(map[box.Addr]Job, len(boxes))
	for some := range slices.Chunk(boxes, manyArgs) {
		args := make([]any, len(some))
		for i, a := range some {
			args[i] = a.Hex()
		}
		// One query is half as much work as one for each box.
		found, err := many(tx, scanJob, `WITH asked (address) AS (VALUES (?)`+strings.Repeat(`, (?)`, len(args)-1)+`)
			SELECT `+jobColumns+` FROM asked JOIN jobs ON jobs.id =
			(SELECT latest.id FROM jobs AS latest WHERE latest.box = asked.address ORDER BY latest.created DESC, latest.id DESC LIMIT 1)`, args...)
		if err != nil {
			return nil, err
		}
		for _, j := range found {
			last[j.Box] = j
		}
	}
	return last, nil
}

// Session is one that an agent has for a job.
type Session struct {
	Hash    Hash // of the token; the key
	Job     string
	Attempt int
	Address box.Addr // from which the agent speaks
	Created time.Time
	Used    time.Time
}

// PutSession stores a session, and replaces the one with this hash. Its job must
// exist.
func (tx *Tx) PutSession(s Session) error {
	err := first(checkHash(s.Hash), checkID("the id of a job", s.Job), checkAddress(s.Address),
		checkTime("when the session began", s.Created), checkTime("when the session was used", s.Used))
	if err != nil {
		return err
	}
	if s.Attempt < 0 {
		return problem.Wrongf("a session cannot be of attempt %d", s.Attempt)
	}
	found, err := tx.has(`SELECT id FROM jobs WHERE id = ?`, s.Job)
	if err != nil {
		return err
	}
	if !found {
		return notFound("there is no job %s", s.Job)
	}
	_, err = tx.exec(`INSERT INTO sessions (`+sessionColumns+`) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET
		job = excluded.job, attempt = excluded.attempt, address = excluded.address, created = excluded.created, used = excluded.used`,
		s.Hash[:], s.Job, s.Attempt, s.Address.Hex(), nanos(s.Created), nanos(s.Used))
	return err
}

const sessionColumns = `hash, job, attempt, address, created, used`

func scanSession(r row) (s Session, err error) {
	return s, r.Scan(&s.Hash, &s.Job, &s.Attempt, address{&s.Address}, instant{&s.Created}, instant{&s.Used})
}

var errNoSession = notFound("there is no such session")

// Session returns the session of a token's hash.
func (tx *Tx) Session(h Hash) (Session, error) {
	s, found, err := one(tx, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE hash = ?`, h[:])
	if err == nil && !found {
		err = errNoSession
	}
	return s, err
}

// Sessions lists the sessions of a job by their hashes.
func (tx *Tx) Sessions(job string) ([]Session, error) {
	return many(tx, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE job = ? ORDER BY hash`, job)
}

// DeleteSession ends a session.
func (tx *Tx) DeleteSession(h Hash) error {
	n, err := tx.exec(`DELETE FROM sessions WHERE hash = ?`, h[:])
	if err == nil && n == 0 {
		err = errNoSession
	}
	return err
}
