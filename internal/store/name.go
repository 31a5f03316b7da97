package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
	"testbox-imaging/internal/words"
)

// ErrNameLost says that the blob `store` is damaged or gone, while there are
// packs or records.
var ErrNameLost = errors.New("the file `store` is damaged or gone, and there are backups; " +
	"`testbox store rebuild-index` writes it anew from what else is there")

// nameLost adds advice to an error of identify, if the blob `store` is damaged
// or gone.
func nameLost(ctx context.Context, blobs blob.Store, err error) error {
	if !errors.Is(err, ErrNoStore) && !isSpoilt(err) {
		return err
	}
	n, e := remains(ctx, blobs)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case n > 0 && isSpoilt(err):
		return fmt.Errorf("%w (%w)", ErrNameLost, err)
	case n > 0:
		return ErrNameLost
	case isSpoilt(err):
		return fmt.Errorf("%w; there is neither a pack nor a record, so there is no backup to lose: remove the folder and make a store anew", err)
	}
	return err
}

// remains counts packs and records by their names. Their content may be
// damaged.
func remains(ctx context.Context, blobs blob.Store) (n int, err error) {
	list, err := blobs.List(ctx, "")
	for _, b := range list {
		_, _, isPack := parsePackName(b.Name)
		box, id, _ := strings.Cut(strings.TrimPrefix(b.Name, recordPrefix), "/")
		if isPack || strings.HasPrefix(b.Name, recordPrefix) && isRecordName(box, id) {
			n++
		}
	}
	return n, err
}

// packHeader reads a pack's header. A blob that is not a pack, or that has the
// wrong number for its name, is an error that matches object.ErrDamaged.
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

// RestoreName writes the blob `store` anew if it is damaged or gone, and
// reports whether it did. It takes the UUID from the packs, or from the index
// if no pack's header can be read. If neither has the UUID, or packs are of
// different stores, nothing is written. blobs is where the packs are, and is
// nil if they are in the folder path.
func RestoreName(ctx context.Context, path string, blobs blob.Store) (restored bool, err error) {
	if blobs == nil {
		blobs, err = dir.Open(durable.OS{}, path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, ErrNoStore
		} else if err != nil {
			return false, err
		}
	}
	now := site{cfg: Config{Blobs: blobs}}
	err = now.identify(ctx)
	if err == nil || !errors.Is(err, ErrNoStore) && !isSpoilt(err) {
		return false, err
	}
	id, err := namedByPacks(ctx, blobs)
	if errors.Is(err, errNoHeader) {
		if owner, e := indexOwner(path); e == nil {
			id, err = owner, nil
		}
	}
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

// errNoHeader says that no pack has a header that can be read.
var errNoHeader = errors.New("has a header that can be read")

// indexOwner returns the UUID in the index of a folder.
func indexOwner(path string) (id [16]byte, err error) {
	f, err := os.Open(filepath.Join(path, indexName))
	if err != nil {
		return id, err
	}
	defer f.Close()
	return index.OwnerOf(f)
}

// namedByPacks returns the UUID that all readable packs have in common.
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
			} else if !errors.Is(err, object.ErrDamaged) && !errors.Is(err, syscall.EIO) {
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
	}
	n, err := remains(ctx, blobs)
	if err != nil {
		return id, err
	}
	if n+len(list) == 0 {
		return id, ErrNoStore
	}
	return id, fmt.Errorf("of %s none %w, and there is no index that tells it; so nobody knows which store this was. Remove nothing: "+
		"bring the folder `packs` or the file `store` back from where it is whole, "+
		"or make a new store and `testbox store copy` a second copy to it",
		words.Count(len(list), "pack"), errNoHeader)
}

// errPacksDisagree names each store that packs belong to, with one pack as an
// example.
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
