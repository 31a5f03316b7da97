package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
)

// source is a disk image and what of it is used.
type source struct {
	*os.File
	name string
	size int64
	used []image.Range // whole blocks
}

func open(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := usedmap.Read(context.Background(), f, st.Size(), 512)
	if err != nil {
		return nil, err
	}
	s := &source{File: f, name: strings.TrimSuffix(filepath.Base(path), ".img"), size: st.Size()}
	for _, r := range m.Used() {
		from, to := r.Off&^(chunk.BlockSize-1), min((r.End()+chunk.BlockSize-1)&^(chunk.BlockSize-1), st.Size())
		s.used = append(s.used, image.Range{Off: from, Len: to - from})
	}
	s.used = s.merged(0)
	return s, nil
}

// merged is what is used, with gaps below some bytes.
func (s *source) merged(gap int64) []image.Range {
	var out []image.Range
	for _, r := range s.used {
		if last := len(out) - 1; last >= 0 {
			end := out[last].End()
			if r.Off <= end || r.Off-end < gap {
				out[last].Len = r.End() - out[last].Off
				continue
			}
		}
		out = append(out, r)
	}
	return out
}
