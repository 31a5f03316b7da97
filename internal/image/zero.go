package image

import "bytes"

// IsZero reports whether all bytes of b are zero.
func IsZero(b []byte) bool {
	// b equals itself shifted by one byte only if all its bytes are equal. So
	// the fast comparison of package bytes can do the work.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
