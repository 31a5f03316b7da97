package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/wire"
)

// tokenName is the file with the token of a start, in memory. Only root may read it.
const tokenName = "testbox-session"

// errNoSession says that no agent of this start has begun a session.
var errNoSession = errors.New("no agent has begun a session with the server since this box started")

// tokenOf returns the token of this start of the box. The first program draws it, and
// the others find it in the folder. With join, there must be one. old says that another
// program has drawn it.
func tokenOf(dir string, join bool) (token string, old bool, err error) {
	path := filepath.Join(dir, tokenName)
	if dir != "" {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", false, fmt.Errorf("the token of this start: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	switch {
	case wire.ValidToken(token) && len(token) >= wire.MinToken:
		return token, true, nil
	case join:
		return "", false, errNoSession
	}
	token = rand.Text()
	if dir != "" {
		err = os.WriteFile(path, []byte(token+"\n"), 0o600)
	}
	return token, false, err
}
