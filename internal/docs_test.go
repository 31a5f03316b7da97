package internal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// document is a Markdown file without what stands in code blocks.
type document struct {
	path    string
	lines   []string // "" for lines of code blocks
	anchors map[string]bool
}

func readDocument(t *testing.T, path string) *document {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &document{path: path, anchors: map[string]bool{}}
	fenced := false
	for _, line := range strings.Split(string(data), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced, line = !fenced, ""
		case fenced || strings.HasPrefix(line, "    "):
			line = ""
		}
		d.lines = append(d.lines, line)
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			d.addAnchor(title)
		}
	}
	return d
}

// addAnchor adds the name that GitHub gives to a heading.
func (d *document) addAnchor(title string) {
	name := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, strings.TrimSpace(title))
	unique := name
	for i := 1; d.anchors[unique]; i++ {
		unique = fmt.Sprintf("%s-%d", name, i)
	}
	d.anchors[unique] = true
}

var (
	codeSpan = regexp.MustCompile("`[^`]*`")
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	divider  = regexp.MustCompile(`^\|(:?-+:?\|)+$`)
)

// TestDocuments holds all documents to links that lead somewhere and tables
// that are whole: every row has the columns of the head, and no blank line or
// missing divider makes text of a table's rows.
func TestDocuments(t *testing.T) {
	paths, _ := filepath.Glob("../docs/*.md")
	more, _ := filepath.Glob("../*.md")
	all := map[string]*document{}
	for _, path := range append(paths, more...) {
		all[path] = readDocument(t, path)
	}
	if len(all) < 10 {
		t.Fatal("the documents are not where this test looks for them")
	}
	for _, d := range all {
		d.checkLinks(t, all)
		d.checkTables(t)
	}
}

func (d *document) checkLinks(t *testing.T, all map[string]*document) {
	for i, line := range d.lines {
		for _, m := range mdLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, "code"), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := d.path
			if file != "" {
				to = filepath.Join(filepath.Dir(d.path), file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s:%d: the link %s leads nowhere", d.path, i+1, m[1])
			} else if anchor != "" && (all[to] == nil || !all[to].anchors[anchor]) {
				t.Errorf("%s:%d: there is no heading %s", d.path, i+1, m[1])
			}
		}
	}
}

func (d *document) checkTables(t *testing.T) {
	columns := 0
	for i, line := range d.lines {
		// A bar inside of a code span does not end a cell for people, but for GitHub.
		cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") - 1
		switch row := strings.HasPrefix(line, "|"); {
		case !row:
			columns = 0
		case columns == 0:
			columns = cells
			if next := d.lines[min(i+1, len(d.lines)-1)]; !divider.MatchString(strings.ReplaceAll(next, " ", "")) {
				t.Errorf("%s:%d: a table begins without a head", d.path, i+1)
			}
		case cells != columns || !strings.HasSuffix(line, "|"):
			t.Errorf("%s:%d: the table has %d columns, this row %d", d.path, i+1, columns, cells)
		}
	}
}

// TestScreenshots: every page of the list of pages and every action has a picture in each view, and docs/page.md
// shows all pictures that there are. `make screenshots` takes them.
func TestScreenshots(t *testing.T) {
	text, err := os.ReadFile("../docs/page.md")
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{"login": true, "box": true, "disks": true, "job": true}
	source := func(path string, form *regexp.Regexp, least int) {
		code, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := form.FindAllStringSubmatch(string(code), -1)
		if len(found) < least {
			t.Fatalf("%s has not the form that this test knows", path)
		}
		for _, m := range found {
			wanted[m[1]] = true
		}
	}
	source("page/page.go", regexp.MustCompile(`(?m)^\t\{"\w+", "/(\w*)", "[\w-]+"\},$`), 8)
	source("page/act.go", regexp.MustCompile(`(?m)^\t\{Name: "([\w-]+)", Title: `), 10)
	delete(wanted, "")
	delete(wanted, "finish") // no box of the made-up lab is up for a rescue
	wanted["boxes"] = true
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`"screenshots/([\w.-]+)"`).FindAllStringSubmatch(string(text), -1) {
		shown[m[1]] = true
		if _, err := os.Stat("../docs/screenshots/" + m[1]); err != nil {
			t.Errorf("docs/page.md shows %s, which is not there", m[1])
		}
	}
	for name := range wanted {
		for _, view := range []string{"wide", "wide-dark", "phone", "phone-dark"} {
			if file := name + "-" + view + ".png"; !shown[file] {
				t.Errorf("docs/page.md does not show %s", file)
			}
		}
	}
	files, err := os.ReadDir("../docs/screenshots")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range files {
		if !shown[f.Name()] {
			t.Errorf("docs/page.md does not show %s", f.Name())
		}
		if info, err := f.Info(); err == nil {
			total += info.Size()
		}
	}
	if total > 4<<20 {
		t.Errorf("the pictures have %d bytes", total)
	}
}
