package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/store"
)

// remoteName is the file in a store's folder that says where its packs and
// records are, if they are not in the folder. It has a URL, and perhaps a line
// onlyWriter.
const remoteName = "remote"

const onlyWriter = "only-writer"

// noConditions is advice for a server that does not support conditional writes.
const noConditions = "two machines that write there would lose backups of each other. Use another server, or, " +
	"if no other folder and no other program will ever write to this bucket and prefix"

// remote is the content of that file.
type remote struct {
	url        string
	onlyWriter bool // the admin declared that only this folder writes
	takeOver   bool // become the owner now, although another folder is
}

// readRemote reads the file. It returns nil for a store that is in the folder
// itself.
func readRemote(dir string) (*remote, error) {
	path := filepath.Join(dir, remoteName)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, lostRemote(dir)
	} else if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	r := &remote{url: lines[0], onlyWriter: len(lines) == 2 && lines[1] == onlyWriter}
	if len(lines) > 1 && !r.onlyWriter {
		return nil, fmt.Errorf("%s: after the URL, only a line %q may come", path, onlyWriter)
	}
	if _, err := s3.ParseURL(r.url); err != nil {
		return nil, wrong("%s: %w", path, err)
	}
	return r, nil
}

// lostRemote returns an error if the folder belonged to a store in object
// storage, but has lost the file that says where that is.
func lostRemote(dir string) error {
	_, noOwner := os.Stat(filepath.Join(dir, "owner"))
	_, noStore := os.Stat(filepath.Join(dir, "store"))
	if noOwner != nil || noStore == nil {
		return nil
	}
	return wrong("%s is the folder of a store in object storage, but its file %q is gone, which says where that is; "+
		"write the URL into it again, as `store init --s3` got it", dir, remoteName)
}

func (r *remote) write(dir string) error {
	text := r.url + "\n"
	if r.onlyWriter {
		text += onlyWriter + "\n"
	}
	return durable.WriteFile(durable.OS{}, filepath.Join(dir, remoteName), []byte(text), 0o600)
}

// open opens the object storage. Uploads that are not complete are kept in the
// folder.
func (r *remote) open(ctx context.Context, dir string) (*store.Remote, error) {
	if r == nil {
		return nil, nil
	}
	cfg, err := s3.ParseURL(r.url)
	if err != nil {
		return nil, wrong("%w", err)
	}
	cfg.OnlyWriter = r.onlyWriter
	blobs, err := s3.Open(ctx, cfg, dir)
	if err != nil {
		return nil, err
	}
	return &store.Remote{Blobs: blobs, OnlyWriter: r.onlyWriter, TakeOver: r.takeOver}, nil
}

// sameRemote reports whether two folders belong to one place in object storage.
func sameRemote(dir, other string) bool {
	places := map[s3.Config]bool{}
	for _, d := range []string{dir, other} {
		r, err := readRemote(d)
		if err != nil || r == nil {
			return false
		}
		cfg, err := s3.ParseURL(r.url)
		if err != nil {
			return false
		}
		cfg.Region = ""
		places[cfg] = true
	}
	return len(places) == 1
}

// whoOwns says which folder writes to the store.
func whoOwns(ctx context.Context, place *store.Remote) string {
	owner, err := store.ReadOwner(ctx, place.Blobs)
	switch {
	case errors.Is(err, store.ErrNoOwner):
		return "No folder has written to it by its owner's rules yet: the first one that does becomes its owner."
	case err != nil:
		return fmt.Sprintf("Which folder writes to it is not known: %v", err)
	}
	return fmt.Sprintf("The folder that writes to it is %s on %s, which opened it for writing last at %s.",
		owner.Path, owner.Host, owner.Since.UTC().Format(time.RFC3339))
}
