// Package testenv says what a test needs of the machine. A need that is not
// met skips the test and says why; with TESTBOX_TEST=all, as `make test` sets
// it, it fails the test instead, so that nothing is passed over in CI.
// Test only.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// All reports whether every test must run.
func All() bool { return os.Getenv("TESTBOX_TEST") == "all" }

func need(t testing.TB, met bool, what string) {
	t.Helper()
	switch {
	case met:
	case All():
		t.Fatalf("needs %s, and TESTBOX_TEST=all forbids to skip", what)
	default:
		t.Skipf("needs %s; `make test` as root runs it", what)
	}
}

// Root asks for uid 0 and TESTBOX_TEST=all: tests that make loop devices,
// mounts or namespaces do not run by a plain `go test`.
func Root(t testing.TB) {
	t.Helper()
	need(t, All(), "TESTBOX_TEST=all")
	need(t, os.Getuid() == 0, "root")
}

// Tools asks for programs on PATH or in the system folders.
func Tools(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		_, err := exec.LookPath(n)
		if err != nil {
			_, err = exec.LookPath("/usr/sbin/" + n)
		}
		need(t, err == nil, "the program "+n)
	}
}

// Build compiles a main package of this module, statically, with the build
// tags, into a folder of the test, and returns the program's path.
func Build(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-buildvcs=false", "-tags", strings.Join(tags, ","), "-o", out, "./"+pkg)
	cmd.Dir = Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, msg)
	}
	return out
}

// Top is the folder of go.mod.
func Top() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
