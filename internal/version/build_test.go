package version_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

// sources copies what a build needs to a new folder.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd", "internal", "scripts"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("../..", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "Makefile", ".gitignore"} {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// in runs a program in a folder, without this machine's own settings for git.
func in(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GOFLAGS=-mod=mod",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestMake builds both programs as a person does: from an unpacked tar file, in
// a clone that belongs to somebody else, and with changes.
func TestMake(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "git", "make", "chown")
	dir := sources(t)
	says := func(want string) {
		t.Helper()
		in(t, dir, "make", "build")
		for _, program := range []string{"testbox", "testbox-maintenance"} {
			if got := in(t, dir, "bin/"+program, "--version"); got != program+" version unreleased, "+want {
				t.Errorf("%s says %q, want %q", program, got, want)
			}
		}
	}
	in(t, filepath.Dir(dir), "git", "init", "--quiet") // the folder above is a repository, and is not asked
	says("unknown commit")
	in(t, dir, "git", "init", "--quiet")
	in(t, dir, "git", "add", ".")
	in(t, dir, "git", "commit", "--quiet", "--message", "all")
	commit := in(t, dir, "git", "rev-parse", "HEAD")
	in(t, dir, "chown", "--recursive", "65534", ".")
	says("commit " + commit)
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := in(t, dir, "scripts/version"); !strings.Contains(got, commit+"+changes ") {
		t.Errorf("with changes: %q", got)
	}
}

// TestNeedsGo: who has no Go, or an old one, is told what to do.
func TestNeedsGo(t *testing.T) {
	testenv.Tools(t, "make")
	for name, script := range map[string]string{
		"missing":         "",
		"Debian 12":       "echo go1.19.8",
		"go.mod is wrong": "echo \"go: errors parsing go.mod: invalid go version '1.26.0'\" >&2; exit 1",
	} {
		program := filepath.Join(t.TempDir(), "go")
		if script != "" {
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("make", "-C", "../..", "build", "GO="+program).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "This needs Go 1.") || !strings.Contains(string(out), "go.dev") {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}
