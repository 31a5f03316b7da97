package main

import (
	"slices"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// TestBarNumbers: every partition stands below the bar, however small it is.
func TestBarNumbers(t *testing.T) {
	const size = 72 << 20 // a MiB a character
	for name, c := range map[string]struct {
		parts [][2]int64 // number, KiB
		want  []string
	}{
		"none":        {nil, nil},
		"far apart":   {[][2]int64{{1, 0}, {2, 10240}, {3, 73700}}, []string{"1         2" + spaces(60) + "3"}},
		"one place":   {[][2]int64{{1, 0}, {2, 10}, {3, 20}, {5, 30}, {7, 40}, {6, 50}}, []string{"1-3,5-7"}},
		"two of them": {[][2]int64{{1, 0}, {2, 10}, {4, 20}}, []string{"1,2,4"}},
		"no room":     {[][2]int64{{1, 0}, {15, 1024}, {2, 2048}, {16, 3072}, {3, 4096}}, []string{"1 2 3", " 15", "   16"}},
		"at the end":  {[][2]int64{{100, 72<<10 - 1}}, []string{spaces(71) + "100"}},
	} {
		m := &usedmap.Map{Size: size}
		for _, p := range c.parts {
			m.Parts = append(m.Parts, usedmap.Part{Kind: usedmap.Partition, Number: int(p[0]), Ranges: []image.Range{{Off: p[1] << 10, Len: 512}}})
		}
		if got := barNumbers(m); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func spaces(n int) string { return string(slices.Repeat([]byte{' '}, n)) }
