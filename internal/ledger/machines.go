package ledger

import (
	"encoding/json"
	"time"

	"testbox-imaging/internal/problem"
)

// MaxMachines is how many machines a ledger has at most. Whoever keeps them has a lower
// limit. This one keeps a fault there from filling the disk.
const MaxMachines = 4096

// Machine is a machine that asked for something at its start and is no box.
type Machine struct {
	Name     string // the key, such as its hardware address
	LastSeen time.Time
	Doc      json.RawMessage // what was seen of it; the ledger does not look at it
}

// PutMachine stores a machine, and replaces what was stored under its name.
func (tx *Tx) PutMachine(m Machine) error {
	doc, err := checkJSON("what was seen of a machine", m.Doc, MaxSight)
	err = first(err, checkName("the name of a machine", m.Name, MaxName), checkTime("the last sight", m.LastSeen))
	if err != nil {
		return err
	}
	n, err := tx.exec(`UPDATE machines SET last_seen = ?, document = ? WHERE name = ?`, nanos(m.LastSeen), string(doc), m.Name)
	if err != nil || n > 0 {
		return err
	}
	scan := func(r row) (n int, err error) { return n, r.Scan(&n) }
	switch n, _, err := one(tx, scan, `SELECT count(*) FROM machines`); {
	case err != nil:
		return err
	case n >= MaxMachines:
		return problem.Refusef("the ledger has %d machines that nobody knows, and takes no more", n)
	}
	_, err = tx.exec(`INSERT INTO machines (name, last_seen, document) VALUES (?, ?, ?)`, m.Name, nanos(m.LastSeen), string(doc))
	return err
}

// DropMachine removes a machine. If there is none of this name, that is no error.
func (tx *Tx) DropMachine(name string) error {
	_, err := tx.exec(`DELETE FROM machines WHERE name = ?`, name)
	return err
}

// Machines lists all machines by their names.
func (tx *Tx) Machines() ([]Machine, error) {
	scan := func(r row) (m Machine, err error) {
		return m, r.Scan(&m.Name, instant{&m.LastSeen}, (*[]byte)(&m.Doc))
	}
	return many(tx, scan, `SELECT name, last_seen, document FROM machines ORDER BY name`)
}
