// Package wire has the messages between the agent of a box and the server, their
// bytes and their limits. Client and server both use it, and docs/protocol.md
// describes it. Everything that comes from the other side is hostile: each parser
// here accepts only what its counterpart writes, and bounds what it reads.
package wire

import (
	"fmt"
	"strconv"
	"time"

	"testbox-imaging/internal/object"
)

// Prefix is how all paths of this version of the protocol begin.
const Prefix = "/agent/v1/"

// These limit the sizes and counts of messages. Both sides enforce them.
const (
	MaxToken   = 128       // characters of a session token
	MaxNumber  = 1<<53 - 1 // of a session, a commit or an image
	MaxNames   = 1024      // names in a question what is missing
	MaxObjects = 64        // objects in one request
	MaxPlaces  = 64        // places in one request for objects
	MaxChecks  = 1024      // places in one request for a check
	MaxImages  = 64        // images that a token has open at once
	MaxAtOnce  = 16        // requests of a token that are served at once
	MaxText    = 1024      // bytes of a text for people
	MaxProblem = 16 << 10  // bytes of a problem, and of every other answer in JSON
	MaxOpen    = 4 << 10   // bytes of the request that opens an image
	MaxRecord  = 16 << 20  // bytes of a record
	// MaxBody is the most bytes of objects in one request. The largest root fits.
	MaxBody = object.MaxRoot + 1<<20
)

// These limit how long one side waits for the other.
const (
	// QuietWait and MinRate bound how slow a connection may be. Who reads or writes
	// gives up when it has waited QuietWait longer than the bytes that came would
	// have taken at MinRate bytes a second.
	QuietWait = 60 * time.Second
	MinRate   = 4 << 10
	// AnswerWait is how long a server takes at most until it begins to answer. If it
	// is not ready then, it says so by CodeBusy or CodeWorking. It is shorter than
	// QuietWait.
	AnswerWait = 20 * time.Second
	// AwayWait is how long an agent goes on trying while the server is away.
	AwayWait = 10 * time.Minute
	// IdleWait is after which time a server ends a session, or closes an image, that
	// nobody has used. It is longer than AwayWait.
	IdleWait = 30 * time.Minute
	// CommitWait is how long an agent waits for a commit that the server works on.
	CommitWait = 2 * time.Hour
	// HeaderWait is how long the head of a request may take.
	HeaderWait = 10 * time.Second
	// HelloWait is how long the body of a hello may take.
	HelloWait = 10 * time.Second
)

// ParseNumber parses the number of a session, a commit or an image in a path. The
// agent counts from 1.
func ParseNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < 1 || n > MaxNumber || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%.40q is no number from 1 to %d", s, uint64(MaxNumber))
	}
	return n, nil
}

// Paths of requests.

// MissingPath asks which objects must be sent.
func MissingPath(session uint64) string { return fmt.Sprintf("%ssessions/%d/missing", Prefix, session) }

// ObjectsPath sends objects.
func ObjectsPath(session uint64) string { return fmt.Sprintf("%ssessions/%d/objects", Prefix, session) }

// CommitPath commits a backup.
func CommitPath(session, commit uint64) string {
	return fmt.Sprintf("%ssessions/%d/commits/%d", Prefix, session, commit)
}

// SessionPath ends a session.
func SessionPath(session uint64) string { return fmt.Sprintf("%ssessions/%d", Prefix, session) }

// ImagePath opens an image, and closes it.
func ImagePath(image uint64) string { return fmt.Sprintf("%simages/%d", Prefix, image) }

// ReadPath reads objects of an image.
func ReadPath(image uint64) string { return fmt.Sprintf("%simages/%d/read", Prefix, image) }

// CheckPath checks objects of an image.
func CheckPath(image uint64) string { return fmt.Sprintf("%simages/%d/check", Prefix, image) }

// ValidToken reports whether s can be a session token: letters, digits, "-" and
// "_".
func ValidToken(s string) bool {
	if s == "" || len(s) > MaxToken {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
