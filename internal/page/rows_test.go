package page_test

import (
	"strings"
	"testing"

	"testbox-imaging/internal/ledger"
)

// TestRowsOfRoles: rows are made once for many browsers, and yet everybody is shown what the role allows.
func TestRowsOfRoles(t *testing.T) {
	r := newRig(t)
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Name: "web"})
	who := map[ledger.Role]func(string) string{}
	for _, role := range []ledger.Role{ledger.Viewer, ledger.Operator} {
		who[role] = r.as(ledger.Token{Name: string(role), Role: role}).shows
	}
	for range 3 { // some of them within the second for which rows are kept
		for role, shows := range who {
			for _, path := range []string{"/rows?box=10.0.0.1", "/"} {
				text := shows(path)
				if !strings.Contains(text, ">web<") {
					t.Errorf("%s sees no box at %s: %s", role, path, text)
				}
				if choose := strings.Contains(text, `aria-label="Choose 10.0.0.1"`); choose != (role == ledger.Operator) {
					t.Errorf("at %s the %s can choose a box: %v", path, role, choose)
				}
			}
		}
	}
}
