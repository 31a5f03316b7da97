// Package testenv has what a test needs from the machine. If the machine lacks
// it, the test is skipped with the reason. With TESTBOX_TEST=all, which `make
// test` sets, the test fails instead, so that CI skips nothing. It is for tests
// only.
package testenv

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	_ "pgregory.net/rapid" // has the flag that init sets
)

// All reports whether every test must run.
func All() bool { return os.Getenv("TESTBOX_TEST") == "all" }

// Effort is how much of a sweep, a model or a long round a test does: a part of it by a plain `go test`, which is to take
// about a minute for all packages, and the whole by `make test`.
func Effort[T any](part, whole T) T {
	if All() {
		return whole
	}
	return part
}

// Long skips a test that has to wait, or to compute, for so long that a plain `go test` goes without it.
func Long(t testing.TB, takes string) {
	t.Helper()
	if !All() {
		t.Skipf("takes %s; `make test` as root runs it", takes)
	}
}

// A model, too, draws fewer cases by a plain `go test`, unless the flag -rapid.checks says how many.
func init() {
	checks := flag.Lookup("rapid.checks")
	if err := checks.Value.Set(Effort("25", checks.DefValue)); err != nil {
		panic(err)
	}
}

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

// Root requires uid 0 and TESTBOX_TEST=all. So tests that make loop devices,
// mounts or namespaces do not run with a plain `go test`.
func Root(t testing.TB) {
	t.Helper()
	need(t, All(), "TESTBOX_TEST=all")
	need(t, os.Getuid() == 0, "root")
}

// Tools requires programs on PATH or in /usr/sbin.
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

// Build compiles a main package of this module with the build tags, statically,
// into a folder of the test. It returns the program's path.
func Build(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	// Without -s -w the maintenance system is larger than loaders should load.
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-tags", strings.Join(tags, ","), "-o", out, "./"+pkg)
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
