package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/s3"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/store"
)

// remoteName is the file in a store's folder that says where its packs and
// records are, if they are not in it: a URL, and perhaps a line onlyWriter.
const remoteName = "remote"

const onlyWriter = "only-writer"

// noConditions is what to do about a server that keeps none.
const noConditions = "two machines that write there would lose backups of each other. Use another server, or, " +
	"if no other folder and no other program will ever write to this bucket and prefix"

// remote is what that file says.
type remote struct {
	url        string
	onlyWriter bool // the admin declared the folder the only one that writes
	takeOver   bool // this time, though another folder is the owner
}

// readRemote reads the file; nil is a store that is in the folder.
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

// lostRemote is the error of a folder that was one of a store in object storage
// and has lost the file that says where that is.
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

// open opens the place; what is on its way there lies in the folder.
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

// sameRemote reports whether two folders are of one place.
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

// initRemote makes a store in object storage and its folder, which becomes the
// owner; or only the folder, if the store is there.
func initRemote(ctx context.Context, p printer, dir string, r *remote) error {
	place, err := r.open(ctx, dir)
	if err != nil {
		return err
	}
	made, err := makeRemote(ctx, place)
	if errors.Is(err, store.ErrNameLost) { // the folder is what `store rebuild-index` needs
		return errors.Join(err, r.write(dir))
	}
	if errors.Is(err, blob.ErrNoConditions) {
		return refused("%w; %s, say so with --only-writer", err, noConditions)
	} else if err != nil {
		return err
	}
	if err := r.write(dir); err != nil {
		return err
	}
	if !made {
		p.notef("there is a store at %s already; %s becomes a folder for it, which can read. %s", r.url, dir, whoOwns(ctx, place))
		return nil
	}
	s, err := openPlace(ctx, p, dir, r, false) // as its owner
	if err != nil {
		return err
	}
	return s.Close()
}

// makeRemote makes a store where none is.
func makeRemote(ctx context.Context, place *store.Remote) (made bool, err error) {
	there, err := store.Exists(ctx, place.Blobs)
	if err != nil || there {
		return false, err
	}
	if !place.OnlyWriter {
		if err := blob.Probe(ctx, place.Blobs); err != nil {
			return false, err
		}
	}
	err = store.Init(ctx, place.Blobs)
	if errors.Is(err, store.ErrExists) { // another process made it just now
		return false, nil
	}
	return err == nil, err
}

// whoOwns says which folder writes to a store.
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

func newStoreTakeOverCmd() *cobra.Command {
	var o storeFlag
	var yes, only bool
	cmd := &cobra.Command{
		Use:   "take-over [FOLDER]",
		Short: "Make a folder the one that writes to a bucket",
		Long: `Of a store in object storage, one folder is the owner: only it writes, others read. This makes FOLDER
the owner, for example because the folder before is lost, or its machine is. Without --yes it only
says who the owner is.

End what runs with the folder before. If something of it is still at work, it can commit no backup
and remove nothing any more: it ends with an error, and what it had not committed is lost.

--only-writer declares that no other folder and no other program ever writes to this bucket and
prefix. It is for servers that do not keep conditions on writes ("If-None-Match"), and is kept in
the folder until it is said otherwise with --only-writer=false. Where it is not true, backups that
were reported as done can be lost.`,
		Example: `  testbox store take-over /var/lib/testbox-store
  testbox store take-over /var/lib/testbox-store --yes`,
		Args:              func(_ *cobra.Command, args []string) error { return storeArg(&o, args) },
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var declared *bool
			if cmd.Flags().Changed(onlyWriter) {
				declared = &only
			}
			return runStoreTakeOver(cmd.Context(), printerOf(cmd), o.dir, declared, yes)
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&only, onlyWriter, false, "declare that nothing else ever writes to this bucket and prefix")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only say who the owner is")
	return cmd
}

func runStoreTakeOver(ctx context.Context, p printer, dir string, declared *bool, yes bool) error {
	r, err := readRemote(dir)
	if err != nil {
		return err
	}
	if r == nil {
		return wrong("%s has no file %q: it is no folder of a store in object storage, and whoever can write to it is an owner", dir, remoteName)
	}
	if declared != nil {
		r.onlyWriter = *declared
	}
	r.takeOver = true
	if !yes {
		place, err := r.open(ctx, dir)
		if err != nil {
			return err
		}
		p.printf("%s\n", whoOwns(ctx, place))
		p.printf("nothing was done; --yes makes this folder the owner\n")
		return nil
	}
	s, err := openPlace(ctx, p, dir, r, false)
	if err != nil {
		return err
	}
	if err := errors.Join(r.write(dir), s.Close()); err != nil {
		return err
	}
	p.printf("the folder %s is the owner now\n", dir)
	return nil
}
