package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/store"
)

func newStoreInitCmd() *cobra.Command {
	var o storeFlag
	var url string
	var only bool
	cmd := &cobra.Command{
		Use:   "init [FOLDER]",
		Short: "Make a store",
		Long: `Makes a store in FOLDER, which must be empty or not there. With --s3, the backups go to a bucket (and
a prefix in it) of S3-compatible object storage, and FOLDER keeps the index, which can be made anew,
and what is on its way; give it 200 MB of its own. The keys are taken from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, by every command.

In a bucket, one folder is the owner: the one that made the store. Only it writes. A further folder
made with the same URL reads, and ` + "`testbox store take-over`" + ` makes it the owner. This relies on the
server: of several machines that create one object at once, it must let one succeed. That is tried
here, and at each opening for writing; a server that does not is refused, unless --only-writer says
that no other folder and no other program will ever write to this bucket and prefix. Where that is
not true, backups that were reported as done can be lost.`,
		Example: `  testbox store init /srv/testbox-store
  testbox store init --s3 's3://images/lab1?endpoint=https://minio.lab:9000' /var/lib/testbox-store`,
		Args:              func(_ *cobra.Command, args []string) error { return storeArg(&o, args) },
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStoreInit(cmd.Context(), printerOf(cmd), o.dir, url, only)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&url, "s3", "", "`URL` of the bucket, with endpoint=URL and region=NAME behind a question mark")
	cmd.Flags().BoolVar(&only, onlyWriter, false, "declare that nothing else ever writes to this bucket and prefix")
	return cmd
}

func runStoreInit(ctx context.Context, p printer, path, url string, only bool) error {
	if only && url == "" {
		return wrong("--%s is for stores in object storage: give --s3 too", onlyWriter)
	}
	entries, err := os.ReadDir(path)
	switch {
	case err == nil && len(entries) > 0:
		if _, err := os.Stat(filepath.Join(path, "store")); err == nil {
			return refused("%s: %w", path, store.ErrExists)
		}
		return refused("%s is not empty; a store wants a folder of its own", path)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return wrong("%w", err)
	}
	if err := mayBeFolder(path); err != nil {
		return err
	}
	if url == "" {
		err = store.InitDir(ctx, path)
	} else if err = (durable.OS{}).MkdirAll(path, 0o700); err == nil {
		err = initRemote(ctx, p, path, &remote{url: url, onlyWriter: only})
	}
	if err != nil {
		return err
	}
	p.printf("the store in %s is ready\n", path)
	return nil
}

// mayBeFolder refuses a folder for a new store where it would not last, or
// inside another store. Folders above it may be missing too.
func mayBeFolder(path string) error {
	path = filepath.Clean(path)
	for {
		if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
			break
		}
		path = filepath.Dir(path)
	}
	p, err := lookPlace(path)
	if err == nil && p.isNew() {
		err = p.mayBeMade()
	}
	if err == nil {
		err = p.notInStore("")
	}
	return err
}

// initRemote makes a store in object storage, and a folder for it, which
// becomes its owner. If the store exists, it only makes the folder.
func initRemote(ctx context.Context, p printer, dir string, r *remote) error {
	place, err := r.open(ctx, dir)
	if err != nil {
		return err
	}
	made, err := makeRemote(ctx, place)
	if errors.Is(err, store.ErrNameLost) { // `store rebuild-index` needs the folder
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
	s, err := openPlace(ctx, p, dir, r, false) // opening it for writing makes the folder the owner
	if err != nil {
		return err
	}
	return s.Close()
}

// makeRemote makes a store if there is none.
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
	if errors.Is(err, store.ErrExists) { // another process has just made it
		return false, nil
	}
	return err == nil, err
}
