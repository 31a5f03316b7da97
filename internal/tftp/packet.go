package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"testbox-imaging/internal/words"
)

// Operation codes (RFC 1350 section 5, RFC 2347).
const (
	opRead   = 1
	opWrite  = 2
	opData   = 3
	opAck    = 4
	opError  = 5
	opOptAck = 6
)

// Error codes (RFC 1350 appendix, RFC 2347).
const (
	codeOther     = 0
	codeNotFound  = 1
	codeForbidden = 2
	codeIllegal   = 4
	codeUnknownID = 5
	codeOptions   = 8
)

const (
	maxRequest = 1500 // bytes of a request that is looked at
	maxName    = 512  // bytes of a file's name
	maxText    = 128  // bytes of an error's text
	maxOptions = 32
)

// options are what a client asked for. A field is 0 if it did not ask, or if
// what it asked for makes no sense. Such an option is left out of the answer,
// as RFC 2347 wants it.
type options struct {
	block   int // bytes in a block, 8 to 65464 (RFC 2348)
	window  int // blocks in a window, 1 to 65535 (RFC 7440)
	timeout int // seconds, 1 to 255 (RFC 2349)
	size    bool
}

func (o options) any() bool { return o.block > 0 || o.window > 0 || o.timeout > 0 || o.size }

// request is a read request.
type request struct {
	name string
	options
}

// protocolError is what is wrong with a request, as the client is told.
type protocolError struct {
	code uint16
	text string
}

func (e *protocolError) Error() string { return e.text }

// errNoRequest means that a packet is not a request. It gets no answer.
var errNoRequest = errors.New("the packet is not a TFTP request")

// parseRequest reads the first packet of a client. The layout is opcode, name,
// 0, mode, 0, and pairs of option and value, each ended by 0 (RFC 2347).
func parseRequest(p []byte) (request, error) {
	if len(p) < 4 || len(p) > maxRequest {
		return request{}, errNoRequest
	}
	switch binary.BigEndian.Uint16(p) {
	case opRead:
	case opWrite:
		return request{}, &protocolError{codeForbidden, "this server takes no files"}
	default:
		return request{}, errNoRequest
	}
	if p[len(p)-1] != 0 {
		return request{}, &protocolError{codeIllegal, "the request is cut off"}
	}
	words := strings.Split(string(p[2:len(p)-1]), "\x00")
	if len(words) < 2 || words[0] == "" {
		return request{}, &protocolError{codeIllegal, "the request has no file name or no mode"}
	}
	name, mode := words[0], words[1]
	if len(name) > maxName {
		return request{}, &protocolError{codeIllegal, fmt.Sprintf("the file name has more than %d bytes", maxName)}
	}
	// A file that is converted to another system's lines is another file, so
	// this mode would change kernels. No loader uses it.
	if !strings.EqualFold(mode, "octet") {
		return request{}, &protocolError{codeOther, "this server sends files in mode octet (binary) alone"}
	}
	r := request{name: name}
	for words = words[2:]; len(words) >= 2; words = words[2:] {
		if len(words) > 2*maxOptions {
			return request{}, &protocolError{codeOptions, "the request has too many options"}
		}
		r.set(strings.ToLower(words[0]), words[1])
	}
	return r, nil
}

// set takes one option. Unknown ones are passed over.
func (r *request) set(name, value string) {
	n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
	if err != nil {
		return
	}
	within := func(low, high uint64) int {
		if n < low || n > high {
			return 0
		}
		return int(n)
	}
	switch name {
	case "blksize":
		r.block = within(8, 65464)
	case "windowsize":
		r.window = within(1, 65535)
	case "timeout":
		r.timeout = within(1, 255)
	case "tsize": // the value is 0 in a read request, but some loaders send another one
		r.size = true
	}
}

// reply is what a client says during a transfer.
type reply struct {
	op    uint16 // opAck, opError; opRead and opWrite are requests
	block uint16 // of opAck
	code  uint16 // of opError
	text  string // of opError, printable
}

// parseReply reads a packet of a transfer. ok is false if it makes no sense.
func parseReply(p []byte) (r reply, ok bool) {
	if len(p) < 4 {
		return r, false
	}
	r.op = binary.BigEndian.Uint16(p)
	switch r.op {
	case opAck:
		r.block = binary.BigEndian.Uint16(p[2:])
	case opError:
		r.code = binary.BigEndian.Uint16(p[2:])
		text, _, _ := bytes.Cut(p[4:], []byte{0})
		r.text = words.ASCII(string(text), maxText)
	case opRead, opWrite:
	default:
		return r, false
	}
	return r, true
}

func dataPacket(buf []byte, block uint16) []byte {
	buf = binary.BigEndian.AppendUint16(buf[:0], opData)
	return binary.BigEndian.AppendUint16(buf, block)
}

func errorPacket(code uint16, text string) []byte {
	p := binary.BigEndian.AppendUint16(nil, opError)
	p = binary.BigEndian.AppendUint16(p, code)
	return append(append(p, text...), 0)
}

// optAckPacket tells the client which of its options are taken, and with which
// values.
func optAckPacket(o options, size int64) []byte {
	p := binary.BigEndian.AppendUint16(nil, opOptAck)
	add := func(name string, value int64) {
		p = append(append(p, name...), 0)
		p = append(strconv.AppendInt(p, value, 10), 0)
	}
	if o.block > 0 {
		add("blksize", int64(o.block))
	}
	if o.size {
		add("tsize", size)
	}
	if o.timeout > 0 {
		add("timeout", int64(o.timeout))
	}
	if o.window > 0 {
		add("windowsize", int64(o.window))
	}
	return p
}
