// Package store keeps backups. A store has objects in packs, an index of the
// objects, and a record for each backup. The record is written last. An object
// that no record reaches does not belong to any backup, and may be collected.
// One process writes, with any number of backups at once. docs/format.md
// describes the files.
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
	State    durable.FS                       // nil for the operating system's
	Dir      string                           // folder on State for the index; if "", each Open makes the index anew
	ReadOnly bool                             // nothing is written, not even the index
	PackSize int64                            // bytes; 0 for pack.TargetSize
	Log      func(format string, args ...any) // messages for an admin; nil for none
	// Owner identifies this process where no lock keeps other writers out. It is
	// nil if a lock does. With an Owner, Dir must be set.
	Owner *Owner
	// Exclusive keeps readers of other processes out while packs are removed. It
	// is nil if there are no such readers.
	Exclusive func() (release func(), err error)
	// Beside reports whether another process writes to the store, which one it is,
	// and the number of the first pack that it can have written. The number is 0
	// if it is not known. Beside is nil if there is no other process.
	Beside func() (who string, first uint32, writes bool)
	// Notes keeps other processes from rewriting the list of damaged images until
	// release is called. It is nil if there are no other processes.
	Notes func() (release func(), err error)
}

func (c Config) withDefaults() Config {
	if c.State == nil {
		c.State = durable.Owned{}
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

// Store is an open store. It has a catalogue of backups, objects in packs, and
// the upkeep of both. Its methods may be called from many goroutines at once.
type Store struct {
	*Catalogue
	*Upkeep
	objects *objects
}

// UUID is the id of the store, in 32 hexadecimal digits. A copy of all files of a
// store has the same one.
func (s *Store) UUID() string { return hex.EncodeToString(s.objects.uuid[:]) }

// site is where the files of a store are, and who may write them.
type site struct {
	cfg   Config
	uuid  [16]byte
	lease *lease // nil if a lock keeps other writers out
}

// objects writes and reads the objects in packs. Types of their own write the
// packs (packer) and find out at Open which packs and objects exist (loader).
type objects struct {
	*site
	*contents
	*snapshot
	*packer
	*loader
	*badList
	damage *damageList
	pages  chan struct{} // one for each page that is being read to see whether it is closed
}

// pagesAtOnce is how many pages are read at a time for backups in progress. One takes up to
// about 5 MiB meanwhile, and there can be a thousand requests.
const pagesAtOnce = 8

// contents says which packs exist, where each object is in them, and which
// objects the backups in progress rely on.
type contents struct {
	mu       sync.Mutex // guards the fields below; not held while blobs are read or written
	index    *index.Index
	packs    map[uint32]packInfo   // sealed packs
	unsealed map[uint32]struct{}   // packs that are open or being sealed
	next     uint32                // all packs have lower numbers
	bad      map[place]object.Key  // objects found damaged
	complete map[object.Name]int64 // pages that are stored with all their chunks, all marked as touched -> bytes of the page's region
	sessions int
	lost     error // why the last pack that could not be written failed
	losses   int   // how many packs could not be written
	dirty    bool  // the index has changed since its snapshot was written
	unsaved  int   // packs sealed since the snapshot was written
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
		pages: make(chan struct{}, pagesAtOnce),
		site:  where, contents: has, snapshot: snap, badList: bad, damage: damage,
		packer: &packer{site: where, contents: has, snapshot: snap, open: map[packKind]*openPack{}, sealing: map[packKind]*openPack{}},
		loader: &loader{site: where, contents: has, snapshot: snap, found: bad, damage: damage},
	}
}

// packInfo describes a sealed pack.
type packInfo struct {
	kind    packKind
	size    int64 // bytes
	objects uint32
}

// place is where an object is in the packs.
type place struct{ pack, off uint32 }

// storeName is the blob that identifies a store by its UUID.
const storeName = "store"

const (
	storeFormat  = 1
	maxStoreFile = 4096 // bytes
)

type storeFile struct {
	Format int    `json:"format"` // storeFormat
	UUID   string `json:"uuid"`   // 32 hexadecimal digits
}

// ErrExists says that a store exists already.
var ErrExists = errors.New("there is a store already")

// ErrNoStore says that there is no store.
var ErrNoStore = errors.New("there is no store here")

// ErrReadOnly says that a store was opened for reading.
var ErrReadOnly = errors.New("the store was opened for reading only")

// Exists reports whether a store exists.
func Exists(ctx context.Context, blobs blob.Store) (bool, error) {
	_, err := blobs.Size(ctx, storeName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Init makes a store in an empty place.
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

// Open opens a store. It repairs what it can of a damaged index or of damaged
// packs, and logs that.
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
	c := &Catalogue{site: s.site, damageList: s.damage, latest: newLatest(), told: newSummaries()}
	c.refresh = func(ctx context.Context) error { return s.lookAgain(ctx, false) }
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

// Close ends the use of a store. Backups in progress are abandoned.
func (s *Store) Close() error {
	if s.objects.cfg.ReadOnly {
		return nil
	}
	s.objects.sealAll()
	return s.objects.saveIndex()
}

// writable returns ErrReadOnly for a store that was opened for reading only.
func (s *site) writable() error {
	if s.cfg.ReadOnly {
		return ErrReadOnly
	}
	return nil
}
