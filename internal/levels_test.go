// Package internal_test holds the packages to their levels: each imports only
// packages of lower levels (docs/design.md). It reads the import lines itself,
// because a test that runs `go list` keeps passing from the test cache.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "testbox-imaging/internal/"

// levels of all packages below internal; test-only ones may be imported by
// tests alone and may import everything.
var levels = map[string]int{
	"box": 0, "cpu": 0, "object": 0, "durable": 0, "parttab": 0, "kmod": 0, "words": 0, "version": 0, "child": 0, "progress": 0, "problem": 0,
	"form": 0, "efi": 0, "authenticode": 0, "pause": 0, "loop": 0, "chart": 0, "forecast": 0, "room": 0, "conns": 0,
	"sparing": 1, "loaders": 1,
	"image": 1, "job": 1, "ledger": 1, "calendar": 1, "power": 1, "dhcp": 1, "tftp": 1, "sight": 1,
	"rawgz": 2, "chunk": 2, "pack": 2, "index": 2, "blob": 2, "disk": 2, "bootcfg": 2, "usedmap": 2, "convert": 2,
	"setting": 2, "schedule": 2,
	"copier": 3, "store": 3, "sharedir": 3, "inventory": 3, "bootfiles": 3, "site": 3, "imagefs": 3, "lab": 3,
	"match": 3, "hook": 3, "bootarea": 3, "boottest": 3,
	"wire":   3,
	"remote": 4, "boxapi": 4, "peer": 4,
	"backup": 4, "maintenance": 4, "pid1": 4, "sharesetup": 4, "wear": 4,
	"agent":  5,
	"follow": 6, "dispatch": 6,
	"arming": 7, "api": 7,
	"apiclient": 8, "page": 8,
	"server": 9,
	"setup":  10, "doctor": 10,
}

var testOnly = map[string]bool{"faults": true, "conform": true, "testenv": true, "realfs": true, "e2e": true, "bench": true}

// agentMay are the modules from outside that the agent's program may bring
// into a box: it stays small, and free of store, server, command-line and
// metrics libraries.
var agentMay = []string{
	"github.com/klauspost/compress", "github.com/zeebo/blake3", "github.com/zeebo/xxh3", "github.com/cespare/xxhash/v2",
	"golang.org/x/crypto/blake2b", "golang.org/x/crypto/ssh",
	"github.com/insomniacslk/dhcp", "github.com/vishvananda/netlink", "golang.org/x/sys", "golang.org/x/sync",
}

type goFile struct {
	pkg     string // path below internal/, or cmd/...
	name    string // "share.go"
	test    bool
	imports []string
}

func readFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, _ := filepath.Rel("..", filepath.Dir(path))
		g := goFile{pkg: strings.TrimPrefix(filepath.ToSlash(dir), "internal/"), name: d.Name(), test: strings.HasSuffix(path, "_test.go")}
		for _, im := range f.Imports {
			g.imports = append(g.imports, strings.Trim(im.Path.Value, `"`))
		}
		files = append(files, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// top is the first element of a package path: usedmap/ext4 has usedmap's level.
func top(pkg string) string { return strings.SplitN(pkg, "/", 2)[0] }

func TestLevels(t *testing.T) {
	seen := 0
	for _, f := range readFiles(t) {
		if f.pkg == "internal" || testOnly[top(f.pkg)] {
			continue
		}
		isCmd := strings.HasPrefix(f.pkg, "cmd/")
		level, known := levels[top(f.pkg)]
		if !isCmd && !known {
			t.Errorf("package %s has no level; give it one in levels_test.go and docs/design.md", f.pkg)
			continue
		}
		for _, im := range f.imports {
			dep, ours := strings.CutPrefix(im, module)
			if !ours {
				continue
			}
			seen++
			if top(dep) == top(f.pkg) {
				continue
			}
			if testOnly[top(dep)] {
				if !f.test {
					t.Errorf("%s imports %s outside a test", f.pkg, dep)
				}
				continue
			}
			if f.test || isCmd {
				continue
			}
			if l, ok := levels[top(dep)]; !ok || l >= level {
				t.Errorf("%s (level %d) imports %s (level %d)", f.pkg, level, dep, l)
			}
		}
	}
	if seen == 0 {
		t.Fatal("no import of this project was seen; the test looks in the wrong place")
	}
}

// TestAgentImports walks what the agent's program brings into a box.
func TestAgentImports(t *testing.T) {
	byPkg := map[string][]string{}
	for _, f := range readFiles(t) {
		if !f.test {
			byPkg[f.pkg] = append(byPkg[f.pkg], f.imports...)
		}
	}
	todo, done := []string{"cmd/testbox-maintenance"}, map[string]bool{}
	for len(todo) > 0 {
		pkg := todo[0]
		todo = todo[1:]
		if done[pkg] {
			continue
		}
		done[pkg] = true
	imports:
		for _, im := range byPkg[pkg] {
			if dep, ours := strings.CutPrefix(im, module); ours {
				todo = append(todo, dep)
				continue
			}
			if !strings.Contains(strings.SplitN(im, "/", 2)[0], ".") {
				continue
			}
			for _, m := range agentMay {
				if im == m || strings.HasPrefix(im, m+"/") {
					continue imports
				}
			}
			t.Errorf("%s brings %s into the agent", pkg, im)
		}
	}
	for _, not := range []string{"maintenance", "lab", "site", "store", "blob", "ledger", "boxapi", "dispatch", "api", "apiclient",
		"server", "dhcp"} {
		if done[not] {
			t.Errorf("the agent imports %s", not)
		}
	}
	if !done["agent"] {
		t.Fatal("the agent's program does not import package agent; the test looks in the wrong place")
	}
}

// shareFiles are the files of package agent that may know share mode. log.go and
// track.go know the form of a log alone, which is the same in every mode.
var shareFiles = []string{"share.go", "sharebackup.go", "shareimage.go", "foresee.go", "log.go", "track.go"}

// TestAgentSeam: what the agent does, it does over interfaces of its own. Only files
// whose names begin with "server" know server mode.
func TestAgentSeam(t *testing.T) {
	seen, server := 0, 0
	for _, f := range readFiles(t) {
		if f.pkg != "agent" || f.test {
			continue
		}
		for _, im := range f.imports {
			dep, ours := strings.CutPrefix(im, module)
			if ours && slices.Contains([]string{"remote", "wire", "chunk"}, dep) {
				if server++; !strings.HasPrefix(f.name, "server") {
					t.Errorf("%s of package agent imports %s, which only server mode has", f.name, dep)
				}
			}
			if !ours || !slices.Contains([]string{"sharedir", "bootfiles", "rawgz"}, dep) {
				continue
			}
			if seen++; !slices.Contains(shareFiles, f.name) {
				t.Errorf("%s of package agent imports %s, which only share mode has", f.name, dep)
			}
		}
	}
	if seen == 0 || server == 0 {
		t.Fatal("no file of package agent knows share mode, or none knows server mode; the test looks in the wrong place")
	}
}
