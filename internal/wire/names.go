package wire

import (
	"fmt"

	"testbox-imaging/internal/object"
)

// keySize is the length of a key in bytes: its kind, and its name.
const keySize = 1 + 32

// MaxKeys is the length in bytes of the longest question what is missing.
const MaxKeys = MaxNames * keySize

// AppendKeys appends the question which of the keys are missing.
func AppendKeys(b []byte, keys []object.Key) []byte {
	for _, k := range keys {
		b = append(append(b, byte(k.Kind)), k.Name[:]...)
	}
	return b
}

// ParseKeys parses what AppendKeys writes.
func ParseKeys(b []byte) ([]object.Key, error) {
	if len(b)%keySize != 0 || len(b) == 0 || len(b) > MaxKeys {
		return nil, fmt.Errorf("%d bytes are not 1 to %d names of %d bytes", len(b), MaxNames, keySize)
	}
	keys := make([]object.Key, 0, len(b)/keySize)
	for ; len(b) > 0; b = b[keySize:] {
		k := object.Key{Kind: object.Kind(b[0]), Name: object.Name(b[1:keySize])}
		if k.Kind.Max() == 0 {
			return nil, fmt.Errorf("%v is unknown", k.Kind)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Bitmap makes the answer which of the keys are missing. Bit i, counted from the
// lowest bit of the first byte, stands for the key i. missing has some of the
// keys, in their order.
func Bitmap(keys, missing []object.Key) ([]byte, error) {
	b := make([]byte, (len(keys)+7)/8)
	left := missing
	for i, k := range keys {
		if len(left) > 0 && left[0] == k {
			b[i/8] |= 1 << (i % 8)
			left = left[1:]
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("%v is missing, but was not asked for in this order", left[0])
	}
	return b, nil
}

// ParseBitmap returns which of the keys are missing.
func ParseBitmap(b []byte, keys []object.Key) (missing []object.Key, err error) {
	if len(b) != (len(keys)+7)/8 {
		return nil, fmt.Errorf("%d bytes do not answer for %d names", len(b), len(keys))
	}
	for i := range len(b) * 8 {
		switch set := b[i/8]>>(i%8)&1 == 1; {
		case set && i >= len(keys):
			return nil, fmt.Errorf("it answers for more than %d names", len(keys))
		case set:
			missing = append(missing, keys[i])
		}
	}
	return missing, nil
}
