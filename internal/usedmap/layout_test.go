package usedmap

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

func TestLayout(t *testing.T) {
	pieces := []image.Range{{Off: 8192, Len: 4096}, {Off: 0, Len: 4096}}
	m := &Map{Size: 1 << 20, Table: "gpt", Parts: []Part{{
		FS: "ext4", Label: "root", Ranges: []image.Range{{Len: 1 << 20}},
		Volumes: []Part{{Kind: Logical, Name: "lv"}, {Kind: Logical, Ranges: pieces}, {Kind: Logical, Ranges: make([]image.Range, maxPieces+1)}},
	}}}
	l := ParseLayout(m.StoredLayout())
	if p := l.Parts[0]; l.Table != "gpt" || p.FS != "ext4" || p.Label != "root" || p.Len != 1<<20 || p.Volumes[0].Off != -1 {
		t.Errorf("layout %+v", l)
	}
	if v := l.Parts[0].Volumes; !slices.Equal(v[1].Places(), pieces) || v[0].Places() != nil || v[2].Places() != nil {
		t.Errorf("volumes %+v", v)
	}
	for range 10 {
		m.Parts[0].Volumes = append(m.Parts[0].Volumes, Part{Name: strings.Repeat("x", 1<<17)})
	}
	text := m.StoredLayout()
	if l = ParseLayout(text); !l.Cut || len(text) > maxLayout || !json.Valid(text) {
		t.Error("a layout too long is not cut")
	}
}
