// Package problem has the two kinds of errors that are no failure: nothing was
// begun, so nothing was changed. Whoever answers a user maps a kind to an exit
// code or to a status of HTTP; every other error is a failure.
package problem

import "fmt"

// Kind is why something was not begun.
type Kind int

// The kinds.
const (
	Wrong   Kind = iota + 1 // wrong use or wrong input: another request can succeed
	Refused                 // it could do harm: what is in its way has to be put right first
)

// Error is an error of a kind. In a chain or a join the first one counts.
type Error struct {
	Kind Kind
	Err  error // says what to do
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Wrongf makes an error of wrong use or wrong input, as fmt.Errorf does.
func Wrongf(format string, args ...any) error {
	return &Error{Wrong, fmt.Errorf(format, args...)}
}

// Refusef makes an error of something that is not done because it could do harm.
func Refusef(format string, args ...any) error {
	return &Error{Refused, fmt.Errorf(format, args...)}
}
