package store

import (
	"context"
	"errors"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/blob/mem"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

// open makes a store over blobs, which a test's end closes.
func open(t testing.TB, blobs blob.Store) *Store {
	t.Helper()
	if err := Init(t.Context(), blobs); err != nil && err != ErrExists {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Blobs: blobs, Log: t.Logf, PackSize: 100 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inFolder are blobs in a folder of their own.
func inFolder(t testing.TB) blob.Store {
	t.Helper()
	blobs, err := dir.New(durable.OS{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return blobs
}

func TestConform(t *testing.T) {
	for name, blobs := range map[string]func(testing.TB) blob.Store{
		"memory": func(testing.TB) blob.Store { return &mem.Store{} },
		"folder": inFolder,
	} {
		t.Run(name, func(t *testing.T) {
			conform.ChunkStore(t, func(t *testing.T) conform.ChunkStoreUnderTest { return underTest(t, blobs(t)) })
		})
	}
}

func underTest(t *testing.T, blobs blob.Store) conform.ChunkStoreUnderTest {
	return underTestOf(open(t, blobs), t)
}

func underTestOf(s *Store, t *testing.T) conform.ChunkStoreUnderTest {
	return conform.ChunkStoreUnderTest{
		Begin:  func() chunk.Session { return s.Begin() },
		Images: s,
		Remove: func(ctx context.Context, r *image.Record) error {
			err := s.Delete(ctx, r)
			plan, planErr := s.PlanGC(ctx)
			if planErr != nil {
				return errors.Join(err, planErr)
			}
			_, gcErr := s.GC(ctx, plan)
			return errors.Join(err, gcErr)
		},
		Get: s.objects.get,
		Records: func() ([]*image.Record, error) {
			records, damaged, err := s.Records(t.Context())
			if len(damaged) > 0 {
				return nil, damaged[0]
			}
			return records, err
		},
	}
}
