package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/zeebo/blake3"

	"testbox-imaging/internal/blob"
)

// The small blobs are text in an envelope. Its first line has the BLAKE3-256 of
// all that follows, which detects flipped bits.
//
//	testbox-record 1 <64 hexadecimal digits>
//	{ ... }

// seal puts a text into an envelope.
func seal(what string, body []byte) []byte {
	sum := blake3.Sum256(body)
	return append(fmt.Appendf(nil, "testbox-%s 1 %s\n", what, hex.EncodeToString(sum[:])), body...)
}

// errEnvelope says that a blob's text does not have the checksum that it was
// written with.
var errEnvelope = errors.New("it is damaged: its checksum is another")

// unseal takes a text out of its envelope.
func unseal(what string, text []byte) ([]byte, error) {
	line, body, ok := bytes.Cut(text, []byte("\n"))
	sum := blake3.Sum256(body)
	if want := fmt.Sprintf("testbox-%s 1 %s", what, hex.EncodeToString(sum[:])); !ok || string(line) != want {
		return nil, errEnvelope
	}
	return body, nil
}

// envelope is the JSON of v in an envelope.
func envelope(what string, v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	return seal(what, append(body, '\n')), nil
}

// writeOver writes a blob with the JSON of v over a version. It refuses more
// than limit bytes, since readers would refuse them too.
func writeOver(ctx context.Context, blobs blob.Store, name string, over blob.Version, what string, v any, limit int64) error {
	text, err := envelope(what, v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if n := int64(len(text)); n > limit {
		return &blob.TooLargeError{Name: name, Size: n, Limit: limit}
	}
	return blob.WriteOver(ctx, blobs, name, over, text)
}

// isSpoilt reports whether an error says that the bytes of a small blob are
// lost. It is false if they only could not be read now.
func isSpoilt(err error) bool {
	var large *blob.TooLargeError
	return errors.Is(err, errEnvelope) || errors.As(err, &large) || errors.Is(err, syscall.EIO)
}

// readEnvelope reads a blob that is in an envelope, of at most limit bytes.
func readEnvelope(ctx context.Context, blobs blob.Store, name, what string, limit int64) ([]byte, error) {
	text, err := blob.ReadAll(ctx, blobs, name, limit)
	if err != nil {
		return nil, err
	}
	body, err := unseal(what, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return body, nil
}
