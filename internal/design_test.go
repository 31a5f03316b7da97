package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tableRows gives the cells of the table below a heading of docs/design.md.
func tableRows(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) == 5 {
			rows = append(rows, cells[1:4])
		}
	}
	if len(rows) < 10 {
		t.Fatalf("the table below %q is not where this test looks for it", heading)
	}
	return rows[2:]
}

// TestPackageTable: docs/design.md names each package, with its level.
func TestPackageTable(t *testing.T) {
	want := map[string]string{}
	for _, f := range readFiles(t) {
		switch level, known := levels[top(f.pkg)]; {
		case strings.HasPrefix(f.pkg, "cmd/"):
			want[f.pkg] = "commands"
		case known:
			want[f.pkg] = strconv.Itoa(level)
		case testOnly[top(f.pkg)]:
			want[f.pkg] = "test only"
		}
	}
	for _, row := range tableRows(t, "Packages") {
		pkg, level := strings.Trim(row[1], " `"), strings.TrimSpace(row[0])
		switch {
		case want[pkg] == "":
			t.Errorf("there is no package %s, or it has two rows", pkg)
		case want[pkg] != level:
			t.Errorf("package %s has the level %s, and not %s", pkg, want[pkg], level)
		}
		delete(want, pkg)
	}
	for pkg := range want {
		t.Errorf("package %s has no row", pkg)
	}
}

// TestWhereTable: the files that docs/design.md sends its readers to are there,
// and so are the names that it says are in them.
func TestWhereTable(t *testing.T) {
	span, name := regexp.MustCompile("`([^`]*)`"), regexp.MustCompile(`^[A-Za-z.]+$`)
	for _, row := range tableRows(t, "Where one changes what") {
		for _, cell := range row[1:] {
			text, path := "", ""
			for _, m := range span.FindAllStringSubmatch(cell, -1) {
				if name.MatchString(m[1]) && path == "" {
					continue
				}
				if name.MatchString(m[1]) {
					last := m[1][strings.LastIndex(m[1], ".")+1:]
					if !regexp.MustCompile(`\b` + last + `\b`).MatchString(text) {
						t.Errorf("%s: there is no %s in %s", row[0], m[1], path)
					}
					continue
				}
				path = m[1]
				i := slices.IndexFunc([]string{".", ".."}, func(dir string) bool {
					_, err := os.Stat(filepath.Join(dir, path))
					return err == nil
				})
				if i < 0 {
					t.Errorf("%s: there is no %s", row[0], path)
				} else if strings.HasSuffix(path, ".go") {
					b, _ := os.ReadFile(filepath.Join([]string{".", ".."}[i], path))
					text = string(b)
				}
			}
		}
	}
}
