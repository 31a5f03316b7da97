package btrfs

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH64 (doc/xxhash_spec.md of xxHash).
const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime3 = 0x165667B19E3779F9
	prime4 = 0x85EBCA77C2B2AE63
	prime5 = 0x27D4EB2F165667C5
)

// xxhash64 is XXH64 with the seed 0.
func xxhash64(b []byte) uint64 {
	n := uint64(len(b))
	var h uint64 = prime5
	if len(b) >= 32 {
		p1, p2 := uint64(prime1), uint64(prime2)
		a, c, d, e := p1+p2, p2, uint64(0), -p1
		for ; len(b) >= 32; b = b[32:] {
			a = round(a, binary.LittleEndian.Uint64(b))
			c = round(c, binary.LittleEndian.Uint64(b[8:]))
			d = round(d, binary.LittleEndian.Uint64(b[16:]))
			e = round(e, binary.LittleEndian.Uint64(b[24:]))
		}
		h = bits.RotateLeft64(a, 1) + bits.RotateLeft64(c, 7) + bits.RotateLeft64(d, 12) + bits.RotateLeft64(e, 18)
		for _, acc := range []uint64{a, c, d, e} {
			h = (h^round(0, acc))*prime1 + prime4
		}
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func round(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*prime2, 31) * prime1
}
