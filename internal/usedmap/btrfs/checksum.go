package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"
)

// checksum is a function over all of a block but its first 32 bytes. The block
// begins with the result.
type checksum func(data []byte) []byte

// checksums has the functions by enum btrfs_csum_type.
var checksums = map[uint16]checksum{
	0: func(data []byte) []byte {
		return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))
	},
	1: func(data []byte) []byte { return binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(data)) },
	2: func(data []byte) []byte { s := sha256.Sum256(data); return s[:] },
	3: func(data []byte) []byte { s := blake2b.Sum256(data); return s[:] },
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c checksum) matches(block []byte) bool { return bytes.HasPrefix(block, c(block[32:])) }
