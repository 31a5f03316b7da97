package ledger

import (
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"testbox-imaging/internal/problem"
)

// Role says what a user or a token may do.
type Role string

// The roles. Each may do what the one before it may.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
)

// Roles has all roles.
var Roles = []Role{Viewer, Operator, Admin}

func checkRole(r Role) error {
	if !slices.Contains(Roles, r) {
		return problem.Wrongf("a role is one of %q, and not %.80q", Roles, r)
	}
	return nil
}

// User is somebody who may log in.
type User struct {
	Name     string // the key
	Role     Role
	Password string // an argon2id hash in its own form; the ledger does not look at it
}

// PutUser stores a user, and replaces one of this name. Tokens stay.
func (tx *Tx) PutUser(u User) error {
	err := first(checkName("the name of a user", u.Name, MaxName), checkRole(u.Role), checkText("the password's hash", u.Password, MaxText))
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO users (name, role, password) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET role = excluded.role, password = excluded.password`, u.Name, u.Role, u.Password)
	return err
}

func scanUser(r row) (u User, err error) { return u, r.Scan(&u.Name, &u.Role, &u.Password) }

// User returns the user of a name.
func (tx *Tx) User(name string) (User, error) {
	u, found, err := one(tx, scanUser, `SELECT name, role, password FROM users WHERE name = ?`, name)
	if err == nil && !found {
		err = notFound("there is no user %q", clip(name))
	}
	return u, err
}

// Users lists all users by their names.
func (tx *Tx) Users() ([]User, error) {
	return many(tx, scanUser, `SELECT name, role, password FROM users ORDER BY name`)
}

// DeleteUser removes a user with all tokens of that user.
func (tx *Tx) DeleteUser(name string) error {
	if _, err := tx.exec(`DELETE FROM logins WHERE token IN (SELECT hash FROM tokens WHERE user_name = ?)`, name); err != nil {
		return err
	}
	if _, err := tx.exec(`DELETE FROM tokens WHERE user_name = ?`, name); err != nil {
		return err
	}
	n, err := tx.exec(`DELETE FROM users WHERE name = ?`, name)
	if err == nil && n == 0 {
		err = notFound("there is no user %q", clip(name))
	}
	return err
}

// Token lets whoever has its secret in.
type Token struct {
	Hash    Hash   // of the secret; the key
	Name    string // what it is for
	User    string // whose it is, who must exist; "" is nobody's
	Role    Role
	Group   string    // the only boxes that it is for, which must exist as a group; "" is all
	Expires time.Time // zero is never
}

// PutToken stores a token, and replaces the one with this hash.
func (tx *Tx) PutToken(t Token) error {
	err := first(checkHash(t.Hash), checkName("the name of a token", t.Name, MaxName), checkRole(t.Role),
		checkTime("the end of a token", t.Expires))
	if err != nil {
		return err
	}
	if t.User != "" {
		if _, err := tx.User(t.User); err != nil {
			return err
		}
	}
	if t.Group != "" {
		if err := tx.groupExists(t.Group); err != nil {
			return err
		}
	}
	_, err = tx.exec(`INSERT INTO tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET name = excluded.name,
		user_name = excluded.user_name, role = excluded.role, group_name = excluded.group_name, expires = excluded.expires`,
		t.Hash[:], t.Name, orNull(t.User), t.Role, orNull(t.Group), nanos(t.Expires))
	return err
}

// orNull stores "" as nothing, which refers to nothing.
func orNull(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

const tokenColumns = `hash, name, user_name, role, group_name, expires`

func scanToken(r row) (t Token, err error) {
	var user, group sql.NullString
	err = r.Scan(&t.Hash, &t.Name, &user, &t.Role, &group, instant{&t.Expires})
	t.User, t.Group = user.String, group.String
	return t, err
}

var errNoToken = notFound("there is no such token")

// Token returns the token of a secret's hash. Whether it has expired is for the
// caller to say.
func (tx *Tx) Token(h Hash) (Token, error) {
	t, found, err := one(tx, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE hash = ?`, h[:])
	if err == nil && !found {
		err = errNoToken
	}
	return t, err
}

// Tokens lists the tokens of a user by their hashes, or all if user is "".
func (tx *Tx) Tokens(user string) ([]Token, error) {
	var w where
	if user != "" {
		w.add(`user_name = ?`, user)
	}
	return many(tx, scanToken, `SELECT `+tokenColumns+` FROM tokens`+w.String()+` ORDER BY hash`, w.args...)
}

// DeleteToken removes a token with its logins.
func (tx *Tx) DeleteToken(h Hash) error {
	if _, err := tx.exec(`DELETE FROM logins WHERE token = ?`, h[:]); err != nil {
		return err
	}
	n, err := tx.exec(`DELETE FROM tokens WHERE hash = ?`, h[:])
	if err == nil && n == 0 {
		err = errNoToken
	}
	return err
}

// Schedule is something that is to be done again and again.
type Schedule struct {
	Name     string // the key
	Spec     string // when; the ledger does not look at it
	Target   string // a box or a group, as the server writes it
	Settings json.RawMessage
	LastRun  time.Time
}

// PutSchedule stores a schedule, and replaces one of this name.
func (tx *Tx) PutSchedule(s Schedule) error {
	settings, err := checkJSON("the settings of a schedule", s.Settings, MaxSettings)
	err = first(err, checkName("the name of a schedule", s.Name, MaxName), checkName("when a schedule runs", s.Spec, MaxText),
		checkName("the target of a schedule", s.Target, MaxText), checkTime("the last run of a schedule", s.LastRun))
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO schedules (name, spec, target, settings, last_run) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, target = excluded.target, settings = excluded.settings,
		last_run = excluded.last_run`, s.Name, s.Spec, s.Target, string(settings), nanos(s.LastRun))
	return err
}

// Schedules lists all schedules by their names.
func (tx *Tx) Schedules() ([]Schedule, error) {
	scan := func(r row) (s Schedule, err error) {
		return s, r.Scan(&s.Name, &s.Spec, &s.Target, (*[]byte)(&s.Settings), instant{&s.LastRun})
	}
	return many(tx, scan, `SELECT name, spec, target, settings, last_run FROM schedules ORDER BY name`)
}

// DeleteSchedule removes a schedule.
func (tx *Tx) DeleteSchedule(name string) error {
	n, err := tx.exec(`DELETE FROM schedules WHERE name = ?`, name)
	if err == nil && n == 0 {
		err = notFound("there is no schedule %q", clip(name))
	}
	return err
}
