package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// Code says what kind of problem there is. Codes never change their meaning.
type Code string

// These are the codes.
const (
	CodeMissing   Code = "missing"    // an object is not in the store (chunk.ErrMissing)
	CodeClosed    Code = "closed"     // the session or the image was closed (chunk.ErrClosed)
	CodeDamaged   Code = "damaged"    // the bytes of an object do not match its name or its sum (object.ErrDamaged)
	CodeNotFound  Code = "not-found"  // there is no such backup, or this token may not read it (fs.ErrNotExist)
	CodeNotOpen   Code = "not-open"   // the image must be opened again, as after a restart of the server
	CodeRefused   Code = "refused"    // the request is wrong, and will be wrong at every try
	CodeToken     Code = "token"      // the server does not know the token
	CodeForbidden Code = "forbidden"  // the token does not allow this
	CodeFull      Code = "full"       // the token has stored as much as it may
	CodeBusy      Code = "busy"       // the server has no room now, and another try is welcome
	CodeFailed    Code = "failed"     // something broke at the server, such as a full disk
	CodeNoRequest Code = "no-request" // the server has no such request
)

// ErrToken, ErrForbidden, ErrFull, ErrRefused, ErrNotOpen, ErrBusy and ErrFailed
// are matched by errors with the code of that name.
var (
	ErrNotOpen   = errors.New("the image is not open")
	ErrRefused   = errors.New("refused by the server")
	ErrToken     = errors.New("the server does not know this session")
	ErrForbidden = errors.New("this session may not do that")
	ErrFull      = errors.New("this session has stored as much as it may")
	ErrBusy      = errors.New("the server is busy")
	ErrFailed    = errors.New("the server failed")
)

// codes has each code with its error and its HTTP status. The first that an error
// matches is its code.
var codes = []struct {
	code   Code
	err    error
	status int
}{
	{CodeClosed, chunk.ErrClosed, http.StatusGone},
	{CodeMissing, chunk.ErrMissing, http.StatusConflict},
	{CodeDamaged, object.ErrDamaged, http.StatusUnprocessableEntity},
	{CodeNotFound, fs.ErrNotExist, http.StatusNotFound},
	{CodeNotOpen, ErrNotOpen, http.StatusPreconditionFailed},
	{CodeRefused, ErrRefused, http.StatusBadRequest},
	{CodeRefused, chunk.ErrWrong, http.StatusBadRequest},
	{CodeToken, ErrToken, http.StatusUnauthorized},
	{CodeForbidden, ErrForbidden, http.StatusForbidden},
	{CodeFull, ErrFull, http.StatusInsufficientStorage},
	{CodeBusy, ErrBusy, http.StatusServiceUnavailable},
	{CodeNoRequest, ErrRefused, http.StatusNotFound},
	{CodeFailed, ErrFailed, http.StatusInternalServerError},
}

// ProblemType is the content type of a problem.
const ProblemType = "application/problem+json"

// Problem is the answer to a request that could not be done, in JSON.
type Problem struct {
	Code Code   `json:"code"`
	Text string `json:"text,omitempty"` // for people, at most MaxText bytes
	// Counted is how many objects of the request were stored. The next one is the
	// problem's.
	Counted int `json:"counted,omitempty"`
}

// ProblemOf makes the problem of an error. An error without a code has failed.
func ProblemOf(err error) Problem {
	var p *Problem
	if errors.As(err, &p) {
		return Problem{Code: p.Code, Text: Clean(err.Error())}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return Problem{Code: c.code, Text: Clean(err.Error())}
		}
	}
	return Problem{Code: CodeFailed, Text: Clean(err.Error())}
}

// Status returns the HTTP status that a problem is sent with.
func (p *Problem) Status() int {
	for _, c := range codes {
		if c.code == p.Code {
			return c.status
		}
	}
	return http.StatusInternalServerError
}

func (p *Problem) Error() string {
	if p.Text == "" {
		return string(p.Code)
	}
	return p.Text
}

// Unwrap returns the error that stands for the code.
func (p *Problem) Unwrap() error {
	for _, c := range codes {
		if c.code == p.Code {
			return c.err
		}
	}
	return ErrFailed
}

// Marshal returns the problem's JSON.
func (p *Problem) Marshal() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // the fields are plain
	}
	return b
}

// ParseProblem parses a problem that came with an HTTP status.
func ParseProblem(b []byte, status int) (*Problem, error) {
	var p Problem
	if len(b) > MaxProblem {
		return nil, fmt.Errorf("a problem has more than %d bytes", MaxProblem)
	}
	if err := image.DecodeStrict("the problem", b, &p); err != nil {
		return nil, err
	}
	known := false
	for _, c := range codes {
		known = known || c.code == p.Code
	}
	if !known || p.Status() != status || p.Counted < 0 || p.Counted > MaxObjects {
		return nil, fmt.Errorf("a problem has the code %.40q with status %d, and counts %d", p.Code, status, p.Counted)
	}
	p.Text = Clean(p.Text)
	return &p, nil
}

// Clean makes text from the other side, or for it, fit for a log: one line without
// control characters, and at most MaxText bytes.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s[:min(len(s), MaxText)])
	if len(s) < MaxText {
		return s
	}
	return strings.ToValidUTF8(s[:MaxText-len("...")], "") + "..."
}
