package boxapi_test

import (
	"testing"

	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
)

// TestConform runs the suite of a store over a connection. Package store does the
// same with a real store.
func TestConform(t *testing.T) {
	conform.ChunkStore(t, func(t *testing.T) conform.ChunkStoreUnderTest {
		m := new(conform.MemStore)
		r := newRig(t, nil, func(c *boxapi.Config) { c.Begin, c.Images, c.Committed = m.Begin, m, nil })
		return conform.ChunkStoreUnderTest{
			Begin:   func() chunk.Session { return r.client(all).Begin() },
			Images:  r.client(all),
			Get:     m.Get,
			Records: func() ([]*image.Record, error) { return m.Records(), nil },
		}
	})
}
