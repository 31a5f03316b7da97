package ledger

import "time"

// MaxLogins is how many logins a token has at most. A further one ends the oldest.
const MaxLogins = 20

// Login is a browser that somebody has logged in with a token. It ends with that token.
type Login struct {
	Hash    Hash // of the secret that the browser has; the key
	Token   Hash // which must exist
	Begun   time.Time
	Expires time.Time
}

// AddLogin stores a login, and removes those that have expired and those that the token has too many.
func (tx *Tx) AddLogin(l Login) error {
	err := first(checkHash(l.Hash), checkTime("the begin of a login", l.Begun), checkTime("the end of a login", l.Expires))
	if err != nil {
		return err
	}
	if _, err := tx.Token(l.Token); err != nil {
		return err
	}
	if _, err := tx.exec(`DELETE FROM logins WHERE expires <= ?`, nanos(l.Begun)); err != nil {
		return err
	}
	all, err := many(tx, scanLogin, `SELECT hash, token, begun, expires FROM logins WHERE token = ? ORDER BY begun, hash`, l.Token[:])
	if err != nil {
		return err
	}
	for _, old := range all[:max(0, len(all)-MaxLogins+1)] {
		if err := tx.DeleteLogin(old.Hash); err != nil {
			return err
		}
	}
	_, err = tx.exec(`INSERT INTO logins (hash, token, begun, expires) VALUES (?, ?, ?, ?)`, l.Hash[:], l.Token[:], nanos(l.Begun),
		nanos(l.Expires))
	return err
}

func scanLogin(r row) (l Login, err error) {
	return l, r.Scan(&l.Hash, &l.Token, instant{&l.Begun}, instant{&l.Expires})
}

var errNoLogin = notFound("there is no such login")

// Login returns the login of a secret's hash. Whether it has expired is for the caller to say.
func (tx *Tx) Login(h Hash) (Login, error) {
	l, found, err := one(tx, scanLogin, `SELECT hash, token, begun, expires FROM logins WHERE hash = ?`, h[:])
	if err == nil && !found {
		err = errNoLogin
	}
	return l, err
}

// DeleteLogin removes a login. If there is none, that is no error.
func (tx *Tx) DeleteLogin(h Hash) error {
	_, err := tx.exec(`DELETE FROM logins WHERE hash = ?`, h[:])
	return err
}
