// Package problem has the two kinds of errors that are no failures. With both,
// nothing was begun, so nothing was changed. Every other error is a failure.
// The code that answers a user maps a kind to an exit code or to an HTTP
// status.
package problem

import "fmt"

// Kind is why something was not begun.
type Kind int

// The kinds.
const (
	Wrong   Kind = iota + 1 // wrong use or wrong input; another request can succeed
	Refused                 // it could do harm; what the error names must be put right first
)

// Error is an error with a kind. If a chain or a join has several, the first
// counts.
type Error struct {
	Kind Kind
	Err  error // says what to do
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Wrongf makes an error of kind Wrong, as fmt.Errorf does.
func Wrongf(format string, args ...any) error {
	return &Error{Wrong, fmt.Errorf(format, args...)}
}

// Refusef makes an error of kind Refused, as fmt.Errorf does.
func Refusef(format string, args ...any) error {
	return &Error{Refused, fmt.Errorf(format, args...)}
}
