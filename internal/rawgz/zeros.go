package rawgz

import (
	"sync"

	"testbox-imaging/internal/image"
)

// zeroPiece gives the member of a full piece of zeros. It is made only once.
var zeroPiece = sync.OnceValue(func() []byte { return zeroMember(image.PieceSize) })

// zeroMember gives the member of n zeros, 1 to image.PieceSize. Its deflate form is
// fixed here bit by bit, since readers recognize it by comparison, and a library
// may change its output with a new version. It is one block with dynamic codes (RFC
// 1951, 3.2.7). The codes are, with their first bit first,
//
//	0   258 bytes like the byte before (symbol 285), followed by a bit 0 for the distance 1
//	10  the byte zero
//	11  the end (symbol 256)
func zeroMember(n int) []byte {
	w := bitWriter{b: append(make([]byte, 0, 1200), fixedHeader+"\x00\x00\x00\x00\x00\x00\x00\x00"...)}
	w.putZeroCodes()
	left := n - 1
	w.put("10")
	for ; left >= 258; left -= 258 {
		w.put("00")
	}
	for ; left > 0; left-- {
		w.put("10")
	}
	w.put("11")
	m := appendTrailer(w.flush(), make([]byte, n))
	putLengths(m, n)
	return m
}

// putZeroCodes writes the head of the block, which says which code each symbol has.
// Numbers are written from their last bit on, codes from their first.
func (w *bitWriter) putZeroCodes() {
	w.put("1 01")             // the last block, dynamic codes
	w.put("10111 00000 0111") // 29 means 286 symbols, 0 means 1 distance, 14 means 18 lengths, in the order of RFC 1951
	w.put("000 000 100")      // symbol 18, "11 to 138 zeros", has the code 0
	for range 12 {            //
		w.put("000") //
	} //
	w.put("010 000 010") // symbols 2 and 1 have the codes 11 and 10
	w.put("11")          // the byte zero has a code of 2 bits
	w.put("0 1111111")   // 138 symbols have no code
	w.put("0 0101011")   // 117 symbols have no code
	w.put("11")          // symbol 256 has a code of 2 bits
	w.put("0 1000100")   // 28 symbols have no code
	w.put("10")          // symbol 285 has a code of 1 bit
	w.put("10")          // the distance 1 has a code of 1 bit
}

// bitWriter packs bits into bytes. The first bit goes into the lowest bit of a
// byte.
type bitWriter struct {
	b   []byte
	cur byte
	n   int // number of bits in cur
}

// put adds bits, which are given as a text of 0, 1 and blanks.
func (w *bitWriter) put(bits string) {
	for _, c := range []byte(bits) {
		if c == ' ' {
			continue
		}
		w.cur |= (c & 1) << w.n
		if w.n++; w.n == 8 {
			w.b, w.cur, w.n = append(w.b, w.cur), 0, 0
		}
	}
}

// flush fills the last byte with zero bits.
func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.b = append(w.b, w.cur)
	}
	return w.b
}
