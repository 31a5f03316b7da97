package blob

import "fmt"

// TooLargeError says that a blob is larger than it can be.
type TooLargeError struct {
	Name        string
	Size, Limit int64 // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, more than the %d that it can have", e.Name, e.Size, e.Limit)
}
