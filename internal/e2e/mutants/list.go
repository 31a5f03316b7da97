package main

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is one change of the code for the worse, and the tests that must
// notice it.
type mutant struct {
	where    string // file and line of the list
	what     string // what is broken, in words
	file     string // that is changed, below the root of the project
	pkg      string // with the tests, below the root of the project
	tests    []string
	survives string // why no test can notice it; "" is a mutant that must be noticed

	before, after string // whole lines of the file
}

// An entry of a list:
//
//	= the read-back of a restore from a file compares nothing
//	file internal/copier/body.go
//	test internal/copier TestAlteredPiece TestDroppedWrites
//	 	got.add(s.sum)
//	-	if !got.same(d.sums) {
//	+	if false {
//
// The lines that begin with a space, a minus or a plus are those of a diff's
// hunk. What stands there before must be in the file exactly once. A line
// `survives REASON` says that no test can notice the change.
func parseList(where, text string) (out []*mutant, err error) {
	var m *mutant
	var before, after []string
	end := func() {
		if m != nil {
			m.before, m.after = strings.Join(before, ""), strings.Join(after, "")
			out = append(out, m)
		}
		m, before, after = nil, nil, nil
	}
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", where, i+1)
		if rest, is := strings.CutPrefix(line, "= "); is {
			end()
			m = &mutant{where: at, what: rest}
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if m == nil {
			return nil, fmt.Errorf("%s: an entry begins with `= `", at)
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line[0] == ' ':
			before, after = append(before, line[1:]+"\n"), append(after, line[1:]+"\n")
		case line[0] == '-':
			before = append(before, line[1:]+"\n")
		case line[0] == '+':
			after = append(after, line[1:]+"\n")
		case word == "file":
			m.file = rest
		case word == "test":
			names := strings.Fields(rest)
			m.pkg, m.tests = names[0], names[1:]
		case word == "survives":
			m.survives = rest
		default:
			return nil, fmt.Errorf("%s: an entry has lines `file`, `test`, `survives` and those of a diff, not %q", at, line)
		}
	}
	end()
	return out, nil
}

// readLists reads all lists below a folder.
func readLists(dir string) (out []*mutant, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list, err := parseList(filepath.Base(name), string(text))
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// apply gives the file's text with the change.
func (m *mutant) apply(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", err
	}
	source := "\n" + string(text) // so that each line has a line's end before it
	switch n := strings.Count(source, "\n"+m.before); {
	case m.before == "" || m.before == m.after:
		return "", errors.New("it changes nothing")
	case n == 0:
		return "", fmt.Errorf("the code is not in %s any more: bring the entry up to date", m.file)
	case n > 1:
		return "", fmt.Errorf("the code is %d times in %s: give more lines of it", n, m.file)
	}
	return strings.Replace(source, "\n"+m.before, "\n"+m.after, 1)[1:], nil
}

// check finds what is wrong with an entry without running a test.
func (m *mutant) check(root string) error {
	text, err := m.apply(root)
	if err != nil {
		return err
	}
	if filepath.Ext(m.file) == ".go" { // else it is a part of the page
		if _, err := parser.ParseFile(token.NewFileSet(), m.file, text, 0); err != nil {
			return fmt.Errorf("the changed file is no Go: %w", err)
		}
	}
	if len(m.tests) == 0 {
		return errors.New("no test is named that notices it")
	}
	there, err := testsIn(filepath.Join(root, m.pkg))
	if err != nil {
		return err
	}
	for _, name := range m.tests {
		if top, _, _ := strings.Cut(name, "/"); !slices.Contains(there, top) {
			return fmt.Errorf("there is no test %s in %s", top, m.pkg)
		}
	}
	return nil
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)

// known has the tests of the packages that testsIn has seen.
var known = map[string][]string{}

// testsIn gives the names of the tests of a package.
func testsIn(dir string) (names []string, err error) {
	if names := known[dir]; names != nil {
		return names, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	isTest := func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), "_test.go") }
	for _, e := range entries {
		if !isTest(e) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, f[1])
		}
	}
	known[dir] = names
	return names, nil
}
