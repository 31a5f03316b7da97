package conform

import (
	"testing"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
)

func TestMemStore(t *testing.T) {
	ChunkStore(t, func(t *testing.T) ChunkStoreUnderTest {
		m := new(MemStore)
		return ChunkStoreUnderTest{
			Begin:   func() chunk.Store { return m },
			Records: func() ([]*image.Record, error) { return m.Records(), nil },
		}
	})
}
