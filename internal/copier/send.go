package copier

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

const (
	// askAtOnce bounds how many names go into one question; a store far away
	// gets as many as are made while it answers the question before.
	askAtOnce = maxSlots
	// putters is how many chunks are on their way into the store.
	putters = 4
)

// packedSize has room for the stored form of a chunk while nobody knows yet
// whether compression gains something.
const packedSize = chunk.MaxSize + 4096

// chunkSlot is a chunk of a disk, or the page of a region.
type chunkSlot struct {
	seq    int    // in the order of the disk
	raw    []byte // the disk's bytes
	packed []byte // memory for their stored form
	n      int64
	chunk  object.Object
	known  bool        // the store has the chunk, or an earlier slot brings it
	again  bool        // an earlier slot brings the chunk too
	page   *chunk.Page // of the region that ends here; the slot is then nothing else
}

func newChunkRing(slots int) *ring[*chunkSlot] {
	buffer := buffers(slots, pieceSize+packedSize, func(size int) []byte { return make([]byte, size) })
	return newRing(slots, func() *chunkSlot {
		b := buffer()
		return &chunkSlot{raw: b[:pieceSize:pieceSize], packed: b[pieceSize:]}
	})
}

func (s *chunkSlot) reset() { *s = chunkSlot{raw: s.raw, packed: s.packed} }

func (s *chunkSlot) data() []byte { return s.raw[:s.n] }

// sender brings the chunks, pages and root of an image into a store.
type sender struct {
	ctx   context.Context
	st    chunk.Session
	saved *Saved

	keys  []object.Key         // memory of ask
	asked []*chunkSlot         // the same
	refs  []chunk.Ref          // of the region at hand
	have  map[object.Name]bool // pages that the store has
	pages []object.Name        // of the regions before

	mu       sync.Mutex                 // guards inFlight
	inFlight map[object.Name]*chunkSlot // the first slot that carries this chunk, from ask to collect
}

func newSender(ctx context.Context, st chunk.Session, saved *Saved) *sender {
	return &sender{ctx: ctx, st: st, saved: saved, have: map[object.Name]bool{}, inFlight: map[object.Name]*chunkSlot{}}
}

func (p *sender) name(s *chunkSlot) error {
	if s.page == nil {
		s.chunk.Key = object.Key{Kind: object.Chunk, Name: object.NameOf(s.data())}
	}
	return nil
}

// ask finds out which chunks the store has.
func (p *sender) ask(slots []*chunkSlot) error {
	slices.SortFunc(slots, func(a, b *chunkSlot) int { return a.seq - b.seq })
	p.keys, p.asked = p.keys[:0], p.asked[:0]
	for _, s := range slots {
		if s.known = s.page != nil; !s.known && !p.nothingToAsk(s) {
			p.keys, p.asked = append(p.keys, s.chunk.Key), append(p.asked, s)
		}
	}
	missing, err := p.missing(p.keys)
	if err != nil {
		return err
	}
	for _, s := range p.asked {
		s.known = !slices.Contains(missing, s.chunk.Key)
	}
	return nil
}

// nothingToAsk reports whether the store need not be asked for a slot's chunk,
// since an earlier slot has the same chunk and brings it. A later slot is not
// enough: the page that names this slot's chunk would be stored before it comes.
func (p *sender) nothingToAsk(s *chunkSlot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	other := p.inFlight[s.chunk.Name]
	if other != nil && other.seq < s.seq {
		s.known = true
		return true
	}
	p.inFlight[s.chunk.Name] = s
	if other != nil {
		s.known, other.again = other.known, true
	}
	return other != nil
}

func (p *sender) missing(keys []object.Key) ([]object.Key, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	missing, err := p.st.Missing(p.ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("ask the store what it has: %w", err)
	}
	return missing, nil
}

func (p *sender) encode(s *chunkSlot) error {
	if !s.known {
		s.chunk = object.Encode(s.chunk.Key, s.data(), s.packed)
	}
	return nil
}

func (p *sender) put(s *chunkSlot) error {
	if s.known {
		return nil
	}
	return p.store(s.chunk)
}

func (p *sender) store(o object.Object) error {
	if err := p.st.Put(p.ctx, o); err != nil {
		return fmt.Errorf("store a %v: %w", o.Kind, err)
	}
	return nil
}

// collect takes the slots in order; all that came before is in the store.
func (p *sender) collect(s *chunkSlot) error {
	if s.page != nil {
		s.page.Chunks = p.refs
		p.refs = nil
		return p.putPage(s.page)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight[s.chunk.Name] == s {
		delete(p.inFlight, s.chunk.Name)
	}
	p.refs = append(p.refs, chunk.Ref{Name: s.chunk.Name, Len: int(s.n)})
	p.saved.Chunks++
	if !s.known && !s.again {
		p.saved.NewChunks++
		p.saved.New += s.n
		p.saved.Disk.Stored += int64(len(s.chunk.Data))
	}
	return nil
}

func (p *sender) putPage(page *chunk.Page) error {
	raw := page.Marshal()
	key := object.Key{Kind: object.Page, Name: object.NameOf(raw)}
	p.pages = append(p.pages, key.Name)
	if p.have[key.Name] {
		return nil
	}
	p.have[key.Name] = true
	missing, err := p.missing([]object.Key{key})
	if err != nil || len(missing) == 0 {
		return err
	}
	return p.putTree(key, raw)
}

// putRoot ends the image.
func (p *sender) putRoot(root chunk.Root) error {
	root.Pages = p.pages
	raw := root.Marshal()
	p.saved.Root = object.NameOf(raw)
	key := object.Key{Kind: object.Root, Name: p.saved.Root}
	missing, err := p.st.Missing(p.ctx, []object.Key{key})
	if err != nil || len(missing) == 0 {
		return err // of an unchanged disk
	}
	return p.putTree(key, raw)
}

// putTree stores a page or a root, which make the tree.
func (p *sender) putTree(key object.Key, raw []byte) error {
	o := object.Encode(key, raw, nil)
	if err := o.Check(); err != nil {
		return err
	}
	p.saved.Disk.Stored += int64(len(o.Data))
	return p.store(o)
}
