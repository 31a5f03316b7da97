package main

import (
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

func TestEachBox(t *testing.T) {
	for _, list := range []string{"", "a", "aa", "ab", "aabbbc"} {
		var rs []*image.Record
		for _, c := range list {
			rs = append(rs, &image.Record{Box: string(c)})
		}
		var got []*image.Record
		var seen []string
		for of := range eachBox(rs) {
			if seen = append(seen, of[0].Box); slices.ContainsFunc(of, func(r *image.Record) bool { return r.Box != of[0].Box }) {
				t.Errorf("%s: backups of several boxes are together", list)
			}
			got = append(got, of...)
		}
		if !slices.Equal(got, rs) || len(slices.Compact(strings.Split(list, ""))) != len(seen) {
			t.Errorf("%s: %d backups of %v", list, len(got), seen)
		}
	}
}
