package conform

import (
	"testing"

	"testbox-imaging/internal/image"
)

func TestMemStore(t *testing.T) {
	ChunkStore(t, func(t *testing.T) ChunkStoreUnderTest {
		m := new(MemStore)
		return ChunkStoreUnderTest{
			Begin:   m.Begin,
			Get:     m.Get,
			Images:  m,
			Records: func() ([]*image.Record, error) { return m.Records(), nil },
		}
	})
}
