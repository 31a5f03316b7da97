package image

import "bytes"

// IsZero reports whether all bytes of b are zero.
func IsZero(b []byte) bool {
	// Shifted by one byte, b equals itself only if all its bytes are alike;
	// so the fast comparison of package bytes does the work.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
