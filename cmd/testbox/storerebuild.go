package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/store"
)

func newStoreRebuildCmd(w world) *cobra.Command {
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
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			err := restoreName(cmd.Context(), p, o.dir)
			if err == nil {
				err = o.withFolder(cmd.Context(), p, false, func(s *store.Locked) error {
					if err := s.RebuildIndex(cmd.Context()); err != nil {
						return err
					}
					p.printf("the index is made anew\n")
					return nil
				})
			}
			return o.wantsAlone(cmd.Context(), p, w, err)
		},
	}
	o.add(cmd)
	return cmd
}

// restoreName writes the file that makes a folder a store again, if it is
// missing.
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
