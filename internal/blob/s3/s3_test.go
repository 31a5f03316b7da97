package s3_test

import (
	"fmt"
	"testing"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/testenv"
)

func open(t *testing.T, url string) *s3.Store {
	t.Helper()
	cfg, err := s3.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServer(t *testing.T) {
	server, n := testenv.StartS3(t), 0
	conform.Blobs(t, func(t *testing.T) blob.Store {
		n++
		return open(t, server.URL(server.Addr, fmt.Sprint("some/prefix-", n)))
	})
}
