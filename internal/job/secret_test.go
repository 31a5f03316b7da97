package job

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestSecretText holds how seeds and sessions are written.
func TestSecretText(t *testing.T) {
	type both struct {
		Seed    Seed
		Session Session
	}
	for want, v := range map[string]both{
		`{"Seed":"","Session":""}`: {},
		`{"Seed":"01` + strings.Repeat("00", 31) + `","Session":"` + strings.Repeat("00", 31) + `ff"}`: {Seed{1}, Session{31: 255}},
	} {
		text, err := json.Marshal(v)
		if err != nil || string(text) != want {
			t.Errorf("%s, %v", text, err)
		}
		back := both{Seed{9}, Session{9}}
		if err := json.Unmarshal(text, &back); err != nil || back != v {
			t.Errorf("%s is read as %v, %v", text, back, err)
		}
	}
	for _, wrong := range []string{`"00"`, `"` + strings.Repeat("0", 66) + `"`, `"` + strings.Repeat("x", 64) + `"`, `[1]`} {
		if err := json.Unmarshal([]byte(wrong), new(Seed)); err == nil {
			t.Errorf("%s is taken for a seed", wrong)
		}
	}
}
