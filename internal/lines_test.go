package internal_test

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxLine is how many characters a line of code may have; a tab counts as one.
const maxLine = 140

// TestLineLength holds all code to maxLine. Text between backquotes is passed
// over, since its lines are what is printed or run.
func TestLineLength(t *testing.T) {
	files := 0
	for _, top := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			files++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			raw := rawLines(text)
			for i, line := range strings.Split(string(text), "\n") {
				if n := utf8.RuneCountInString(line); n > maxLine && !raw[i+1] {
					t.Errorf("%s:%d has %d characters, at most %d are wanted", path, i+1, n, maxLine)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

// rawLines are the lines of a Go file on which there is text between backquotes, from 1 on.
func rawLines(text []byte) map[int]bool {
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	var of scanner.Scanner
	of.Init(file, text, nil, 0)
	raw := map[int]bool{}
	for {
		at, tok, word := of.Scan()
		if tok == token.EOF {
			return raw
		}
		if tok == token.STRING && word[0] == '`' {
			for first, n := file.Line(at), 0; n <= strings.Count(word, "\n"); n++ {
				raw[first+n] = true
			}
		}
	}
}
