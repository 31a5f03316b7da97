package remote

import (
	"errors"
	"io"
	"testing"

	"testbox-imaging/internal/wire"
)

// TestWidth: requests become shorter when connections break, down to one object, and
// then longer again, slowly.
func TestWidth(t *testing.T) {
	var w width
	broke := &awayError{io.ErrUnexpectedEOF}
	note := func(want int, errs ...error) {
		t.Helper()
		for _, err := range errs {
			w.note(err)
		}
		if got := w.now(); got != want {
			t.Errorf("after %v the width is %d, and not %d", errs, got, want)
		}
	}
	note(64, nil, nil)
	note(64, &awayError{&wire.Problem{Code: wire.CodeBusy}}, errors.New("refused"))
	note(32, broke)
	note(33, nil)
	note(17, broke)
	for range 10 {
		w.note(broke)
	}
	note(1, broke)
	note(3, nil, nil)
	for range 100 {
		w.note(nil)
	}
	note(64)
}
