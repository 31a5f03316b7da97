package blob

import (
	"errors"
	"fmt"
)

// ErrChanged is matched by the error of a Commit over a version that is not the
// present one any more.
var ErrChanged = errors.New("another process changed or removed it meanwhile")

// ErrOverwritten is matched by the error of a Commit that succeeded, and whose
// blob was replaced before it could be checked.
var ErrOverwritten = errors.New("another process wrote in its place at once")

// TooLargeError says that a blob is larger than its limit.
type TooLargeError struct {
	Name        string
	Size, Limit int64 // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, more than the %d that it can have", e.Name, e.Size, e.Limit)
}
