package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/store"
)

func newStoreCmd() *cobra.Command {
	return newGroupCmd("store", "Make a store of backups, look after it, copy it",
		`A store is a folder with the backups of any number of boxes, or a folder with the index of one
whose backups are in S3-compatible object storage. One process writes to it at a time; others can
read beside it.`,
		newStoreInitCmd(), newStoreTakeOverCmd(), newStoreStatsCmd(), newStoreScrubCmd(), newStoreGCCmd(), newStoreRebuildCmd(), newStoreCopyCmd())
}

// storeArg is the store of commands that take nothing else as an argument.
func storeArg(o *storeFlag, args []string) error {
	switch len(args) {
	case 0:
		return nil
	case 1:
		o.dir = args[0]
		return nil
	}
	return errors.New("give one folder")
}

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
made with the same URL reads, and "testbox store take-over" makes it the owner. This relies on the
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

// mayBeFolder refuses a folder of a new store where it would not be kept, or
// would be in another store's way. Folders above it may be missing too.
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

func newStoreGCCmd() *cobra.Command {
	var o storeFlag
	var yes bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Get back the space of deleted backups",
		Long: `Finds out what no backup needs any more, and prints what would be done about it; with --yes, does it.
It can be ended at any moment. It refuses while the record of a backup cannot be read: what that
one needs is not known. A plan that is made while a backup runs leaves out what that has written.`,
		Example: `  testbox store gc
  testbox store gc --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd.Context(), printerOf(cmd), !yes, func(s *store.Locked) error {
				plan, err := s.PlanGC(cmd.Context())
				if err != nil {
					return err
				}
				cmd.Print(plan)
				if !yes {
					cmd.Println("nothing was done; --yes does it")
					return nil
				}
				res, err := s.GC(cmd.Context(), plan)
				if errors.Is(err, store.ErrLocked) {
					return refused("%w", err)
				}
				cmd.Print(res)
				return err
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only say it")
	return cmd
}

func newStoreRebuildCmd() *cobra.Command {
	var o storeFlag
	cmd := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Make the index anew from the packs",
		Long: `The index says where objects are, and is nothing but a cache: it is made anew by itself where it is
missing or damaged. This makes it anew in any case.

If the file "store" is damaged or gone, which makes the folder a store, it is written anew too: each
pack has what was in it, and so has the old index. That is refused if the packs are of different
stores.`,
		Example: `  testbox store rebuild-index --store /srv/testbox-store`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := restoreName(cmd.Context(), printerOf(cmd), o.dir); err != nil {
				return err
			}
			return o.with(cmd.Context(), printerOf(cmd), false, func(s *store.Locked) error {
				if err := s.RebuildIndex(cmd.Context()); err != nil {
					return err
				}
				cmd.Println("the index is made anew")
				return nil
			})
		},
	}
	o.add(cmd)
	return cmd
}

// restoreName writes the file that makes a folder a store anew, if that is
// needed.
func restoreName(ctx context.Context, p printer, path string) error {
	r, err := readRemote(path)
	if err != nil {
		return err
	}
	place, err := r.open(ctx, path)
	if err != nil {
		return err
	}
	var blobs blob.Store
	if place != nil {
		blobs = place.Blobs
	}
	restored, err := store.RestoreName(ctx, path, blobs)
	switch {
	case errors.Is(err, store.ErrNoStore):
		return noStore(fmt.Errorf("%s: %w", path, err), path, r)
	case errors.Is(err, store.ErrLocked):
		return refused("%s: %w", path, err)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case restored:
		p.printf("the file `store` is written anew\n")
	}
	return nil
}
