package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
	"testbox-imaging/internal/words"
)

// ErrNameLost says that the blob that makes a store is damaged or gone, and
// that there are packs.
var ErrNameLost = errors.New("the file `store` is damaged or gone; the packs tell what was in it: `testbox store rebuild-index` writes it anew")

// nameLost says more of an error of identify, if the blob that makes a store is
// not what was written.
func nameLost(ctx context.Context, blobs blob.Store, err error) error {
	if !errors.Is(err, ErrNoStore) && !isSpoilt(err) {
		return err
	}
	_, packErr := firstPack(ctx, blobs)
	switch {
	case packErr == nil && isSpoilt(err):
		return fmt.Errorf("%w (%w)", ErrNameLost, err)
	case packErr == nil:
		return ErrNameLost
	case isSpoilt(err) && errors.Is(packErr, ErrNoStore):
		return fmt.Errorf("%w; there is no pack that can be read, so there is no backup to lose: remove the folder and make a store anew", err)
	}
	return err
}

// firstPack gives the header of the first pack that has one. ErrNoStore says
// that there is none.
func firstPack(ctx context.Context, blobs blob.Store) (pack.Header, error) {
	packs, err := blobs.List(ctx, packPrefix)
	if err != nil {
		return pack.Header{}, err
	}
	for _, b := range packs {
		if h, err := packHeader(ctx, blobs, b.Name); err == nil {
			return h, nil
		} else if !errors.Is(err, object.ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
	}
	return pack.Header{}, ErrNoStore
}

// packHeader reads a pack's header. What is no pack of any store in this place
// is damaged.
func packHeader(ctx context.Context, blobs blob.Store, name string) (pack.Header, error) {
	_, n, ok := parsePackName(name)
	if !ok {
		return pack.Header{}, object.ErrDamaged
	}
	h, err := pack.ReadHeader(blob.Reader(ctx, blobs, name))
	if err == nil && h.Number != n {
		err = fmt.Errorf("it says that its number is %d: %w", h.Number, object.ErrDamaged)
	}
	return h, err
}

// RestoreName writes the blob that makes a store anew, if it is damaged or
// gone: each pack has the store's UUID. It reports whether it did. Where there
// is no pack, or packs are of different stores, nothing is written. blobs is
// where the packs are if that is not the folder path.
func RestoreName(ctx context.Context, path string, blobs blob.Store) (restored bool, err error) {
	if blobs == nil {
		blobs, err = dir.Open(durable.OS{}, path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, ErrNoStore
		} else if err != nil {
			return false, err
		}
	}
	now := Store{cfg: Config{Blobs: blobs}}
	err = now.identify(ctx)
	if err == nil || !errors.Is(err, ErrNoStore) && !isSpoilt(err) {
		return false, err
	}
	id, err := namedByPacks(ctx, blobs)
	if err != nil {
		return false, err
	}
	l := &Locked{path: path}
	if err := l.lock(false); err != nil {
		return false, err
	}
	defer l.unlock()
	over, err := now.version(ctx, storeName)
	if err != nil {
		return false, err
	}
	return true, writeStore(ctx, blobs, over, id)
}

// namedByPacks is the UUID that all packs have that can be read.
func namedByPacks(ctx context.Context, blobs blob.Store) (id [16]byte, err error) {
	list, err := blobs.List(ctx, packPrefix)
	if err != nil {
		return id, err
	}
	headers := make([]*pack.Header, len(list))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, b := range list {
		g.Go(func() error {
			h, err := packHeader(gctx, blobs, b.Name)
			if err == nil {
				headers[i] = &h
			} else if !errors.Is(err, object.ErrDamaged) {
				return fmt.Errorf("%s: %w", b.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return id, err
	}
	said := map[[16]byte][]string{} // UUID -> packs
	for i, h := range headers {
		if h != nil {
			said[h.Store] = append(said[h.Store], list[i].Name)
			id = h.Store
		}
	}
	switch {
	case len(said) == 1:
		return id, nil
	case len(said) > 1:
		return id, errPacksDisagree(said)
	case len(list) > 0:
		return id, fmt.Errorf("of %s none has a header that can be read; so nobody knows which store this was",
			words.Count(len(list), "pack"))
	}
	return id, ErrNoStore
}

// errPacksDisagree names the stores that packs are of, and a pack of each.
func errPacksDisagree(said map[[16]byte][]string) error {
	var of []string
	for _, names := range slices.SortedFunc(maps.Values(said), func(a, b []string) int { return strings.Compare(a[0], b[0]) }) {
		for id, same := range said {
			if same[0] == names[0] {
				of = append(of, fmt.Sprintf("%s of store %s, such as %s", words.Count(len(names), "pack"), hex.EncodeToString(id[:]), names[0]))
			}
		}
	}
	return fmt.Errorf("the packs are of different stores (%s); move those out that came from elsewhere, and try again", strings.Join(of, "; "))
}
