package volume

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

func TestVolumeHasLimits(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	v := New(ctx, bytes.NewReader(make([]byte, 9<<20)), 8<<20, 512, &Budget{})
	v.budget.left.Store(1 << 20)
	for _, c := range []struct {
		off  int64
		n    int
		want string
	}{
		{0, 100, ""},
		{8<<20 - 512, 512, ""},
		{8<<20 - 511, 512, "outside"},
		{-1, 1, "outside"},
		{1 << 62, 1, "outside"},
		{0, -1, "says that it has"},
		{0, MaxRead + 1, "says that it has"},
		{0, 2 << 20, "more than a disk"},
		{0, 1, "more than a disk"},
	} {
		b, err := v.Bytes(c.off, c.n)
		if c.want == "" && (err != nil || len(b) != c.n) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
	// A part has the bytes of its place, and the budget of the whole.
	v = New(ctx, bytes.NewReader([]byte("0123456789")), 10, 512, nil)
	p := v.Part(2, 5).Part(1, 3)
	if b, err := p.Bytes(0, 3); err != nil || string(b) != "345" || p.budget != v.budget {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := p.Bytes(1, 3); err == nil {
		t.Error("a part can be read beyond its end")
	}
	// The reader has less than was said.
	if _, err := New(ctx, bytes.NewReader(nil), 10, 512, nil).Bytes(0, 1); err == nil {
		t.Error("a short read is no error")
	}
	cancel()
	if _, err := v.Bytes(0, 1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
