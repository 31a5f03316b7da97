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
	// askAtOnce bounds how many names go into one question to the store. While
	// a store far away answers one question, names gather for the next.
	askAtOnce = maxSlots
	// putters is how many chunks are on their way to the store at once. There are many,
	// since a store over a network takes several by one request.
	putters = 16
)

// packedSize is the length of the buffer for the compressed form of a chunk. The
// compressed form can be longer than the chunk.
const packedSize = chunk.MaxSize + 4096

// chunkSlot is a chunk of a disk, or the page of a region.
type chunkSlot struct {
	seq    int    // position in the order of the disk
	raw    []byte // the disk's bytes
	packed []byte // memory for their stored form
	n      int64  // length of the chunk in bytes
	chunk  object.Object
	known  bool        // the store has the chunk, or an earlier slot brings it, so it need not be sent
	again  bool        // an earlier slot brings the chunk too, so it is not counted here
	page   *chunk.Page // page of the region that ends here, in a slot without a chunk
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

	keys  []object.Key         // buffer of ask
	asked []*chunkSlot         // buffer of ask
	refs  []chunk.Ref          // chunks of the current region
	have  map[object.Name]bool // pages that the store has
	pages []object.Name        // pages of the regions before

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

// nothingToAsk reports whether the store need not be asked about a slot, since
// the same chunk is on its way in another slot. If the other slot is an earlier
// one, this slot need not send the chunk. If the other slot is a later one, this
// slot must send the chunk too if the store lacks it. Otherwise the page with this
// slot's chunk could reach the store before the chunk.
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

// collect gets the slots in order. The chunks of all slots before are then in the
// store.
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

// putRoot stores the root, the last object of the image.
func (p *sender) putRoot(root chunk.Root) error {
	root.Pages = p.pages
	raw := root.Marshal()
	p.saved.Root = object.NameOf(raw)
	key := object.Key{Kind: object.Root, Name: p.saved.Root}
	missing, err := p.st.Missing(p.ctx, []object.Key{key})
	if err != nil || len(missing) == 0 {
		return err // an unchanged disk has a root that the store has already
	}
	return p.putTree(key, raw)
}

// putTree stores a page or a root.
func (p *sender) putTree(key object.Key, raw []byte) error {
	o := object.Encode(key, raw, nil)
	if err := o.Check(); err != nil {
		return err
	}
	p.saved.Disk.Stored += int64(len(o.Data))
	return p.store(o)
}
