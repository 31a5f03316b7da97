// Package deb tests the Debian packages.
package deb

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

var update = flag.Bool("update", false, "write debian/copyright anew")

// copyrightHead is the beginning of debian/copyright.
const copyrightHead = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Testbox Imaging
Comment: The programs have Go's standard library and the modules below in them. Each
 stands here as the folder into which "go mod vendor" would put it. This file is
 written by: go test ./internal/e2e/deb -run TestCopyright -update

Files: *
Copyright: The authors of Testbox Imaging
License: Apache-2.0
`

const apache = ` On Debian systems the whole licence is in /usr/share/common-licenses/Apache-2.0.
`

var (
	licence = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|authors)`)
	holder  = regexp.MustCompile(`(?i)^\W*(?:portions )?(copyright.*(?:\(c\)|©|[0-9]{4}).*)$`)
	isCode  = regexp.MustCompile(`(?i)\.go$`)
)

// indented is a text as the long part of a field.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, " \n\t") + "\n") {
		if line = strings.TrimRight(strings.ReplaceAll(line, "\t", "    "), " \r\n"); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}

// stanza says what a module's own files say. Apache's licence is not repeated.
func stanza(path, dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var holders []string
	var text, name string
	for _, e := range entries {
		if !licence.MatchString(e.Name()) || isCode.MatchString(e.Name()) || e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			if m := holder.FindStringSubmatch(strings.TrimSpace(line)); m != nil && !slices.Contains(holders, m[1]) {
				holders = append(holders, m[1])
			}
		}
		is := ""
		switch whole := string(data); {
		case strings.Contains(whole, "Apache License") && strings.Contains(whole, "Grant of Patent License"):
			is, data = "Apache-2.0", nil
			text += apache
		case strings.Contains(whole, "CC0 1.0"):
			is = "CC0-1.0"
		case strings.Contains(whole, "Neither the name"), strings.Contains(whole, "names of its contributors"),
			strings.Contains(whole, "may be used to endorse"):
			is = "BSD-3-clause"
		case strings.Contains(whole, "Redistribution and use in source"):
			is = "BSD-2-clause"
		case strings.Contains(whole, "Permission is hereby granted, free of charge"):
			is = "Expat"
		}
		if name == "" {
			name = is
		}
		if data != nil {
			text += " " + e.Name() + ":\n .\n" + indented(string(data))
		}
		text += " .\n"
	}
	if text == "" || name == "" {
		return "", fmt.Errorf("%s has no licence that this test knows", path)
	}
	if holders == nil {
		holders = []string{"The authors of " + path}
	}
	return fmt.Sprintf("\nFiles: %s/*\nCopyright: %s\nLicense: %s\n%s", path, strings.Join(holders, "\n "), name,
		strings.TrimSuffix(text, " .\n")), nil
}

func goSays(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = testenv.Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// TestCopyright: debian/copyright has each module that is in a program, with its licence.
func TestCopyright(t *testing.T) {
	for _, name := range []string{"go.mod", "go.sum"} { // so that the test's result is not kept after a change
		if _, err := os.ReadFile(filepath.Join(testenv.Top(), name)); err != nil {
			t.Fatal(err)
		}
	}
	modules := strings.Split(goSays(t, "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}",
		"./cmd/testbox", "./cmd/testbox-maintenance"), "\n")
	slices.Sort(modules)
	want := copyrightHead + apache
	for _, line := range append([]string{"go " + goSays(t, "env", "GOROOT")}, slices.Compact(modules)...) {
		path, dir, _ := strings.Cut(line, " ")
		if path == "" {
			continue
		}
		if path != "go" {
			path = "vendor/" + path
		}
		text, err := stanza(path, dir)
		if err != nil {
			t.Fatal(err)
		}
		want += text
	}
	if strings.Count(want, "\nFiles: ") < 40 {
		t.Fatal("go list says too few modules; the test looks in the wrong place")
	}
	file := filepath.Join(testenv.Top(), "debian/copyright")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, []byte(want)) {
		t.Errorf("debian/copyright does not say what the modules say (%v); run "+
			"go test ./internal/e2e/deb -run TestCopyright -update, and look at what has changed", err)
	}
}
