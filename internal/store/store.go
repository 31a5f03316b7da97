// Package store keeps backups: objects in packs, an index of them, and a record
// for each backup, written last. What no record reaches is not there. One
// process writes, with any number of backups at once; docs/format.md has the
// files.
package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/index"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/pack"
)

// Config says where a store is.
type Config struct {
	Blobs    blob.Store
	State    durable.FS                       // nil: the operating system's
	Dir      string                           // folder on State for the index; "": it is made anew at each Open
	ReadOnly bool                             // nothing is written, not even the index
	PackSize int64                            // bytes; 0: pack.TargetSize
	Log      func(format string, args ...any) // what an admin should know; nil: silence
	// Owner says who this is where no lock keeps other writers out; nil: one
	// does. It wants Dir.
	Owner *Owner
	// Exclusive keeps readers of other processes out while packs are removed;
	// nil: there are none.
	Exclusive func() (release func(), err error)
	// Beside says whether another process writes to the store, which one, and
	// the number of the first pack that it can have written, 0 if that is not
	// known; nil: there is none.
	Beside func() (who string, first uint32, writes bool)
	// Notes keeps other processes from rewriting the list of damaged images
	// meanwhile; nil: there are none.
	Notes func() (release func(), err error)
}

func (c Config) withDefaults() Config {
	if c.State == nil {
		c.State = durable.OS{}
	}
	if c.PackSize <= 0 {
		c.PackSize = pack.TargetSize
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	if c.Exclusive == nil {
		c.Exclusive = func() (func(), error) { return func() {}, nil }
	}
	if c.Beside == nil {
		c.Beside = func() (string, uint32, bool) { return "", 0, false }
	}
	if c.Notes == nil {
		c.Notes = func() (func(), error) { return func() {}, nil }
	}
	return c
}

// Store is an open store: objects in packs, a catalogue of backups, and their
// upkeep. Its methods may be called from many goroutines at once.
type Store struct {
	*Catalogue
	*Upkeep
	objects *objects
}

// site is where the files of a store are, and who may write them.
type site struct {
	cfg   Config
	uuid  [16]byte
	lease *lease // nil: a lock keeps other writers out
}

// objects are the objects in packs: how they are put and got. How packs are
// written, and how what is there is found out, have types of their own.
type objects struct {
	*site
	*contents
	*snapshot
	*packer
	*loader
	*badList
	damage *damageList
}

// contents says which packs there are, where in them objects are, and what
// backups count on.
type contents struct {
	mu       sync.Mutex // guards those below; held for no reads or writes of blobs
	index    *index.Index
	packs    map[uint32]packInfo   // sealed ones
	unsealed map[uint32]struct{}   // open ones, and those being sealed
	next     uint32                // no pack has this number or a higher one
	bad      map[place]object.Key  // objects found damaged
	complete map[object.Name]int64 // pages that are there with all their chunks, all of them touched -> bytes of the region
	sessions int
	lost     error // why a pack could not be written, the last time
	losses   int   // how often
	dirty    bool  // the snapshot of the index is not what is there
	unsaved  int   // packs sealed since it was written
}

func newObjects(cfg Config) *objects {
	where := &site{cfg: cfg.withDefaults()}
	has := &contents{
		index: &index.Index{}, packs: map[uint32]packInfo{}, unsealed: map[uint32]struct{}{},
		bad: map[place]object.Key{}, complete: map[object.Name]int64{},
	}
	snap := &snapshot{site: where, contents: has}
	bad := &badList{site: where, contents: has}
	damage := &damageList{site: where, noted: map[object.Name]time.Time{}}
	return &objects{
		site: where, contents: has, snapshot: snap, badList: bad, damage: damage,
		packer: &packer{site: where, contents: has, snapshot: snap, open: map[packKind]*openPack{}, sealing: map[packKind]*openPack{}},
		loader: &loader{site: where, contents: has, snapshot: snap, found: bad, damage: damage},
	}
}

// packInfo is a sealed pack.
type packInfo struct {
	kind    packKind
	size    int64 // bytes
	objects uint32
}

// place is where an object is.
type place struct{ pack, off uint32 }

// storeName is the blob that makes a store.
const storeName = "store"

const (
	storeFormat  = 1
	maxStoreFile = 4096 // bytes
)

type storeFile struct {
	Format int    `json:"format"` // storeFormat
	UUID   string `json:"uuid"`   // 32 hexadecimal digits
}

// ErrExists says that there is a store already.
var ErrExists = errors.New("there is a store already")

// ErrNoStore says that there is none.
var ErrNoStore = errors.New("there is no store here")

// ErrReadOnly says that a store was opened for reading.
var ErrReadOnly = errors.New("the store was opened for reading only")

// Exists reports whether there is a store.
func Exists(ctx context.Context, blobs blob.Store) (bool, error) {
	_, err := blobs.Size(ctx, storeName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Init makes a store.
func Init(ctx context.Context, blobs blob.Store) error {
	there, err := blobs.List(ctx, "")
	if err != nil {
		return err
	}
	for _, b := range there {
		if b.Name == storeName {
			return ErrExists
		}
	}
	if n, err := remains(ctx, blobs); err != nil {
		return err
	} else if n > 0 {
		return ErrNameLost
	}
	for _, b := range there {
		if !blob.IsProbe(b.Name) {
			return fmt.Errorf("there is something else (%s); a store wants a place of its own", b.Name)
		}
	}
	var id [16]byte
	rand.Read(id[:])
	err = writeStore(ctx, blobs, blob.None, id)
	if errors.Is(err, fs.ErrExist) { // another process made it just now
		return ErrExists
	}
	return err
}

func writeStore(ctx context.Context, blobs blob.Store, over blob.Version, id [16]byte) error {
	return writeOver(ctx, blobs, storeName, over, "store", storeFile{storeFormat, hex.EncodeToString(id[:])}, maxStoreFile)
}

// Open opens a store. What can be made good of a damaged index or of damaged
// packs is, and is logged.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := newObjects(cfg)
	if err := s.identify(ctx); err != nil {
		return nil, nameLost(ctx, s.cfg.Blobs, err)
	}
	if s.cfg.Owner != nil && !s.cfg.ReadOnly {
		if err := s.claim(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	c := &Catalogue{site: s.site, damageList: s.damage, refresh: func(ctx context.Context) error { return s.lookAgain(ctx, false) }}
	return &Store{Catalogue: c, Upkeep: &Upkeep{objects: s, catalogue: c}, objects: s}, nil
}

func (s *site) identify(ctx context.Context) error {
	body, err := readEnvelope(ctx, s.cfg.Blobs, storeName, "store", maxStoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoStore
	} else if err != nil {
		return err
	}
	var f storeFile
	if err := image.DecodeStrict("it", body, &f); err != nil {
		return fmt.Errorf("%s: %w", storeName, err)
	}
	id, err := hex.DecodeString(f.UUID)
	if f.Format != storeFormat || err != nil || len(id) != len(s.uuid) {
		return fmt.Errorf("the store has format %d, this program reads format %d", f.Format, storeFormat)
	}
	s.uuid = [16]byte(id)
	return nil
}

// Close ends the use of a store. Backups in progress are given up.
func (s *Store) Close() error {
	if s.objects.cfg.ReadOnly {
		return nil
	}
	s.objects.sealAll()
	return s.objects.saveIndex()
}

// writable is ErrReadOnly for a store that was opened for reading.
func (s *site) writable() error {
	if s.cfg.ReadOnly {
		return ErrReadOnly
	}
	return nil
}
