package peering

import (
	"sync"

	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/room"
)

// blockSize is how many bytes memory for stored chunks has. Each unit leaves half of one
// unused.
const blockSize = 32 << 10

// memory has the chunks of a unit: one after the other as they are stored, and before
// compression as long as the copier has not taken them.
type memory struct {
	free   *memories
	most   int    // bytes that the chunks can have before compression
	raw    []byte // those that are kept so
	blocks []*[blockSize]byte
	len    int // bytes in the blocks
}

// bytes is how much memory it takes.
func (m *memory) bytes() int64 { return int64(len(m.blocks)*blockSize + len(m.raw)) }

// next returns memory for the next chunk before compression. Chunks are unpacked in their order, since
// Decode may spoil what lies behind its result.
func (m *memory) next(int) []byte {
	if m.raw == nil {
		m.raw = m.free.raw(m.most)
	}
	return m.raw[len(m.raw):]
}

// keep keeps a chunk that was unpacked into the memory that next gave. One that is stored as it
// is need not be kept twice.
func (m *memory) keep(o object.Object, raw []byte) arrival {
	a := arrival{stored: o, at: m.len, n: len(o.Data), sum: copier.SumOf(raw)}
	a.stored.Data = nil
	for data := o.Data; len(data) > 0; {
		if m.len == len(m.blocks)*blockSize {
			m.blocks = append(m.blocks, m.free.block())
		}
		n := copy(m.blocks[m.len/blockSize][m.len%blockSize:], data)
		data, m.len = data[n:], m.len+n
	}
	if o.Codec == object.Raw {
		return a
	}
	if free := m.next(0); cap(free) >= len(raw) && &free[:1][0] == &raw[0] {
		m.raw = m.raw[:len(m.raw)+len(raw)]
	}
	a.raw = raw
	return a
}

// stored appends the bytes of a chunk as it is stored.
func (m *memory) stored(to []byte, a arrival) []byte {
	for at, end := a.at, a.at+a.n; at < end; {
		b := m.blocks[at/blockSize][at%blockSize:]
		b = b[:min(len(b), end-at)]
		to, at = append(to, b...), at+len(b)
	}
	return to
}

// memories is memory that is free again. Fresh memory costs the kernel more than all else that is done
// with what comes into it, and memory that the garbage collector must find makes a process twice as
// large as it need be. The zero value has none.
type memories struct {
	mu      sync.Mutex // guards the fields below
	blocks  []*[blockSize]byte
	raws    [][]byte // for units
	buffers [][]byte // for a chunk each
}

// spare is how much is kept of what is used for moments: enough for all that comes at once.
const spare = room.Downloads

func pop[T any](list *[]T) (last T, ok bool) {
	n := len(*list) - 1
	if n < 0 {
		return last, false
	}
	last = (*list)[n]
	*list = (*list)[:n]
	return last, true
}

func (f *memories) block() *[blockSize]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := pop(&f.blocks); ok {
		return b
	}
	return new([blockSize]byte)
}

func (f *memories) raw(most int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := pop(&f.raws); ok && cap(b) >= most {
		return b
	}
	return make([]byte, 0, most)
}

// slim takes the chunks before compression from a unit's memory.
func (f *memories) slim(m *memory) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.raw != nil && len(f.raws) < spare {
		f.raws = append(f.raws, m.raw[:0])
	}
	m.raw = nil
}

// put takes all memory of a unit. m may be nil.
func (f *memories) put(m *memory) {
	if m == nil {
		return
	}
	f.slim(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocks = append(f.blocks, m.blocks...)
	m.blocks, m.len = nil, 0
}

// buffer returns memory for a chunk as it is stored, with what a request to the server has around it.
func (f *memories) buffer() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := pop(&f.buffers); ok {
		return b
	}
	return make([]byte, 0, object.MaxChunk+64<<10)
}

func (f *memories) putBuffer(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.buffers) < spare {
		f.buffers = append(f.buffers, b[:0])
	}
}
