package internal_test

import (
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
			quoted := false
			for i, line := range strings.Split(string(text), "\n") {
				quotes := strings.Count(line, "`")
				if n := utf8.RuneCountInString(line); n > maxLine && !quoted && quotes == 0 {
					t.Errorf("%s:%d has %d characters, at most %d are wanted", path, i+1, n, maxLine)
				}
				quoted = quoted != (quotes%2 == 1)
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
