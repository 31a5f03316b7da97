package usedmap

import (
	"testing"

	"testbox-imaging/internal/image"
)

// TestTallyWithoutParts: nothing is known of the disk, or a layout lies.
func TestTallyWithoutParts(t *testing.T) {
	for _, text := range []string{"", "{", `{"parts":[{"kind":"gap","off":0,"len":100}]}`} {
		l := ParseLayout([]byte(text))
		tally := l.Tally()
		tally.Add(image.Range{Off: 10, Len: 5})
		if got := tally.Parts(); got != nil || tally.Bytes != 5 {
			t.Errorf("%q: %v", text, got)
		}
	}
	l := ParseLayout([]byte(`{"parts":[{"kind":"partition","number":1,"off":5,"len":9,
"volumes":[{"kind":"volume","off":0,"len":90},{"kind":"volume","off":-1,"len":3}]},
		{"kind":"partition","number":2,"off":3,"len":-9}]}`))
	tally := l.Tally()
	tally.Add(image.Range{Off: 0, Len: 50})
	for _, p := range tally.Parts() {
		if p.Bytes < 0 {
			t.Error(p)
		}
	}
}
