package ledgerside

import (
	"errors"
	"testing"
	"time"

	"testbox-imaging/internal/ledger"
)

// testLogins: a login ends with its token, with the user of that, when it has expired and another begins, and when the
// token has too many.
func testLogins(t *testing.T, l *ledger.Ledger) {
	secret := func(n int) (h ledger.Hash) { h[1], h[2] = byte(n>>8), byte(n); return h }
	there := func(n int) bool {
		t.Helper()
		found := false
		view(t, l, func(tx *ledger.Tx) error {
			got, err := tx.Login(secret(n))
			if found = err == nil; !found && !errors.Is(err, ledger.ErrNotFound) {
				return err
			}
			if found && (got.Hash != secret(n) || !got.Expires.After(got.Begun)) {
				t.Errorf("%+v", got)
			}
			return nil
		})
		return found
	}
	begin := func(n int, token ledger.Hash, at time.Time) error {
		return l.Update(ctx, func(tx *ledger.Tx) error {
			return tx.AddLogin(ledger.Login{Hash: secret(n), Token: token, Begun: at, Expires: at.Add(time.Hour)})
		})
	}
	update(t, l, func(tx *ledger.Tx) error {
		return errors.Join(tx.PutUser(ledger.User{Name: "ann", Role: ledger.Viewer}),
			tx.PutToken(ledger.Token{Hash: hash(1), Name: "of ann", User: "ann", Role: ledger.Viewer}),
			tx.PutToken(ledger.Token{Hash: hash(2), Name: "alone", Role: ledger.Viewer}))
	})
	if err := begin(1, hash(3), noon); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a login by a token that there is not: %v", err)
	}
	must(t, begin(1, hash(1), noon))
	must(t, begin(2, hash(2), noon))
	if err := begin(2, hash(2), noon); err == nil {
		t.Error("two logins have one secret")
	}
	if there(3) || !there(1) || !there(2) {
		t.Error("the logins are not those that were begun")
	}
	update(t, l, func(tx *ledger.Tx) error { return errors.Join(tx.DeleteUser("ann"), tx.DeleteLogin(secret(99))) })
	if there(1) || !there(2) {
		t.Error("a login outlives its user, or ends with another's")
	}
	for n := range ledger.MaxLogins + 1 {
		must(t, begin(100+n, hash(2), noon.Add(time.Duration(n+1)*time.Minute)))
	}
	if there(2) || there(100) || !there(101) || !there(100+ledger.MaxLogins) {
		t.Error("the oldest logins are not those that ended")
	}
	must(t, begin(200, hash(2), noon.Add(3*time.Hour)))
	if there(101) || !there(200) {
		t.Error("a login that has expired is kept")
	}
	update(t, l, func(tx *ledger.Tx) error { return tx.DeleteLogin(secret(200)) })
	must(t, begin(201, hash(2), noon.Add(3*time.Hour)))
	update(t, l, func(tx *ledger.Tx) error { return tx.DeleteToken(hash(2)) })
	if there(200) || there(201) {
		t.Error("a login outlives its token, or its end")
	}
}
