package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// ProblemType is the content type of errors, as RFC 9457 has it.
const ProblemType = "application/problem+json"

// Code tells a program what kind of error it has.
type Code string

// The codes.
const (
	CodeWrong        Code = "wrong"        // wrong use or wrong input; nothing was changed
	CodeRefused      Code = "refused"      // it could do harm; nothing was changed
	CodeNotFound     Code = "not-found"    // there is no such thing, or it is not for this token
	CodeUnauthorized Code = "unauthorized" // who asks is not known
	CodeForbidden    Code = "forbidden"    // who asks is known, and may not
	CodeBusy         Code = "busy"         // the same request may succeed later
	CodeFailed       Code = "failed"       // the server could not do it
)

// Problem is an error as the API gives it.
type Problem struct {
	Type   string   `json:"type" doc:"always about:blank; code says more"`
	Title  string   `json:"title" doc:"the status in words"`
	Status int      `json:"status"`
	Detail string   `json:"detail" doc:"what is wrong, and what to do"`
	Code   Code     `json:"code" enum:"wrong,refused,not-found,unauthorized,forbidden,busy,failed" doc:"for programs"`
	Errors []Detail `json:"errors,omitempty" doc:"what is wrong with the parts of the request"`
}

// Detail is what is wrong with a part of a request.
type Detail struct {
	Location string `json:"location,omitempty" example:"body.targets[3]"`
	Message  string `json:"message"`
}

// Error is the whole error in one text.
func (p *Problem) Error() string {
	text := p.Detail
	for _, d := range p.Errors {
		text += fmt.Sprintf("; %s: %s", d.Location, d.Message)
	}
	return text
}

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return ProblemType }

// Unwrap gives the kind of the error, as package problem has it.
func (p *Problem) Unwrap() error {
	switch p.Code {
	case CodeWrong, CodeNotFound, CodeUnauthorized:
		return &problem.Error{Kind: problem.Wrong, Err: errors.New(p.Detail)}
	case CodeRefused, CodeForbidden:
		return &problem.Error{Kind: problem.Refused, Err: errors.New(p.Detail)}
	}
	return nil
}

// maxDetail is how long a text of a problem may be.
const maxDetail = 2000

// clean makes a text fit for a line of a terminal or a log.
func clean(s string) string {
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// newProblem makes a problem of a status.
func newProblem(status int, code Code, text string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: clean(text), Code: code}
}

func unauthorized(format string, args ...any) error {
	return newProblem(http.StatusUnauthorized, CodeUnauthorized, fmt.Sprintf(format, args...))
}

func forbidden(format string, args ...any) error {
	return newProblem(http.StatusForbidden, CodeForbidden, fmt.Sprintf(format, args...))
}

func notFound(format string, args ...any) error {
	return newProblem(http.StatusNotFound, CodeNotFound, fmt.Sprintf(format, args...))
}

func busy(format string, args ...any) error {
	return newProblem(http.StatusServiceUnavailable, CodeBusy, fmt.Sprintf(format, args...))
}

// problemOf says which problem an error is.
func problemOf(err error) *Problem {
	var p *Problem
	var e *problem.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, ledger.ErrNotFound), errors.Is(err, fs.ErrNotExist) && !errors.As(err, &e):
		return newProblem(http.StatusNotFound, CodeNotFound, err.Error())
	case errors.As(err, &e) && e.Kind == problem.Wrong:
		return newProblem(http.StatusBadRequest, CodeWrong, err.Error())
	case e != nil: // refused
		return newProblem(http.StatusConflict, CodeRefused, err.Error())
	case errors.Is(err, ledger.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusServiceUnavailable, CodeBusy, "the server ends, or the request took too long; try again")
	case errors.Is(err, ledger.ErrFull), errors.Is(err, ledger.ErrReadOnly):
		return newProblem(http.StatusInsufficientStorage, CodeFailed, err.Error())
	}
	return newProblem(http.StatusInternalServerError, CodeFailed, err.Error())
}

// codeOf is the code of a status of the library's own errors.
func codeOf(status int) Code {
	switch {
	case status == http.StatusNotFound:
		return CodeNotFound
	case status >= 500:
		return CodeFailed
	}
	return CodeWrong
}

// init makes the library's errors those of this package. There is one such
// function for the whole program, and this package alone uses the library.
func init() {
	huma.NewError = func(status int, text string, errs ...error) huma.StatusError {
		if status == http.StatusUnprocessableEntity { // one status for all that is wrong with a request
			status = http.StatusBadRequest
		}
		if status == http.StatusBadRequest && text == "validation failed" {
			text = "the request is not right"
		}
		p := newProblem(status, codeOf(status), text)
		for _, err := range errs {
			if len(p.Errors) == 16 {
				break
			}
			d := Detail{}
			var e *huma.ErrorDetail
			switch {
			case err == nil:
				continue
			case errors.As(err, &e):
				d = Detail{clean(e.Location), clean(e.Message)}
			default:
				d.Message = clean(err.Error())
			}
			p.Errors = append(p.Errors, d)
		}
		return p
	}
}

// send answers with a problem.
func (p *Problem) send(w http.ResponseWriter) {
	b, _ := json.Marshal(p)
	w.Header().Set("Content-Type", ProblemType)
	w.WriteHeader(p.Status)
	w.Write(append(b, '\n'))
}

// Elsewhere answers requests of the API that come to the port for boxes. at says where the
// API is.
func Elsewhere(at string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // a body is not read
		newProblem(http.StatusNotFound, CodeWrong, "this is the port for boxes, and not for the admin API; "+at).send(w)
	})
}

// Clean makes the texts of a problem that came from a server fit for a terminal.
func (p *Problem) Clean() {
	p.Detail = clean(p.Detail)
	p.Errors = p.Errors[:min(len(p.Errors), 16)]
	for i, d := range p.Errors {
		p.Errors[i] = Detail{clean(d.Location), clean(d.Message)}
	}
}
