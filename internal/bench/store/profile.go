package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/pprof"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// profile makes a first backup of a.img in this process, as `testbox image
// create` does, and writes where the processors' time went.
func (d data) profile(to string) (err error) {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "testbox-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	s, err := newStore(ctx, filepath.Join(folder, "store"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	id := image.Identity{Size: diskSize, SectorSize: 512}
	src, err := disk.Open(d.dir, disk.Disk{Name: "a.img", Identity: id}, false)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := measure.Uncache(d.path("a.img")); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	m, err := usedmap.Read(ctx, src, id.Size, id.SectorSize)
	if err != nil {
		return err
	}
	session := s.Begin()
	session.Trusted = true
	defer session.Close()
	saved, err := copier.Save(ctx, src, session, m, copier.SourceOptions{})
	if err != nil {
		return err
	}
	saved.Disk.Name, saved.Disk.Disk = "sda", id
	return session.Commit(ctx, &image.Record{Format: image.RecordFormat, Box: "a", Disks: []image.RecordedDisk{saved.Disk}})
}

func newStore(ctx context.Context, path string) (*store.Locked, error) {
	blobs, err := dir.New(durable.OS{}, path)
	if err != nil {
		return nil, err
	}
	if err := store.Init(ctx, blobs); err != nil {
		return nil, err
	}
	return store.OpenDir(ctx, path, nil, false, func(string, ...any) {})
}
