package image

import "testing"

// TestSourcesText: nothing is said of chunks that nobody counted.
func TestSourcesText(t *testing.T) {
	for _, k := range []struct {
		server, peers int64
		want          string
	}{
		{0, 0, ""},
		{1 << 30, 0, "1.00 GiB came from the server, nothing from other boxes"},
		{1 << 29, 12 << 30, "12.0 GiB came from other boxes, 512 MiB from the server"},
		{0, 5, "5 B came from other boxes, 0 B from the server"},
	} {
		if got := SourcesText(k.server, k.peers); got != k.want {
			t.Errorf("%d and %d: %q", k.server, k.peers, got)
		}
	}
}
