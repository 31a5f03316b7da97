package ledger

import (
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Move is a box whose address was changed, and whose files and backups are still to
// follow.
type Move struct {
	Address box.Addr // the new one; the key
	Old     box.Addr // no two moves are from the same one
	Begun   time.Time
}

// AddMove notes that the address of a box was changed.
func (tx *Tx) AddMove(m Move) error {
	if err := first(checkAddress(m.Address), checkAddress(m.Old), checkTime("when the address was changed", m.Begun)); err != nil {
		return err
	}
	if m.Address == m.Old {
		return problem.Wrongf("the box %s has that address already", m.Old)
	}
	all, err := tx.Moves()
	if err != nil {
		return err
	}
	for _, other := range all {
		for _, a := range []box.Addr{m.Address, m.Old} {
			if a == other.Address || a == other.Old {
				return exists("the change of the address %s to %s is not finished", other.Old, other.Address)
			}
		}
	}
	_, err = tx.exec(`INSERT INTO moves (address, old, begun) VALUES (?, ?, ?)`, m.Address.Hex(), m.Old.Hex(), nanos(m.Begun))
	return err
}

// DropMove notes that all has followed.
func (tx *Tx) DropMove(address box.Addr) error {
	n, err := tx.exec(`DELETE FROM moves WHERE address = ?`, address.Hex())
	if err == nil && n == 0 {
		err = notFound("no change to the address %s is under way", address)
	}
	return err
}

// Moves lists all changes of addresses that are not finished, by the new addresses.
func (tx *Tx) Moves() ([]Move, error) {
	scan := func(r row) (m Move, err error) {
		return m, r.Scan(address{&m.Address}, address{&m.Old}, instant{&m.Begun})
	}
	return many(tx, scan, `SELECT address, old, begun FROM moves ORDER BY address`)
}
