// Mutants proves that the tests of this project prove something: it breaks the
// code on purpose, one change at a time, and runs the tests that must notice
// it. The changes are in the lists beside it. The checkout is never touched: a
// changed file takes part in a build by an overlay.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// limit is how long the tests of one mutant may take: a change can make a test
// wait for ever, which is noticed by that.
const limit = 10 * time.Minute

func main() {
	only := flag.String("run", "", "only mutants whose file, package or words match this `regexp`")
	jobs := flag.Int("j", 2, "how many mutants are tried at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, ".", *only, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// verdict is what became of a mutant.
type verdict int

const (
	noticed  verdict = iota
	survived         // all tests passed
	broken           // it could not be built
)

func run(ctx context.Context, root, only string, jobs int) error {
	all, err := readLists(filepath.Join(root, "internal/e2e/mutants/list"))
	if err != nil {
		return err
	}
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(m *mutant) bool { return !match.MatchString(m.file + " " + m.pkg + " " + m.what) })
	if len(all) == 0 {
		return errors.New("no mutant is named so")
	}
	for _, m := range all {
		if err := m.check(root); err != nil {
			return fmt.Errorf("%s: %s: %w", m.where, m.what, err)
		}
	}
	if root, err = filepath.Abs(root); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		fmt.Println("warning: not run as root, so mutants survive that only tests with root notice")
	} else if err := os.Setenv("TESTBOX_TEST", "all"); err != nil {
		return err
	}
	if err := sound(ctx, root, all); err != nil {
		return err
	}
	return tryAll(ctx, root, all, jobs)
}

// sound wants the named tests to run and to pass while nothing is broken.
func sound(ctx context.Context, root string, all []*mutant) error {
	tests := map[string][]string{}
	for _, m := range all {
		tests[m.pkg] = append(tests[m.pkg], m.tests...)
	}
	for pkg, names := range tests {
		slices.Sort(names)
		names = slices.Compact(names)
		start := time.Now()
		out, err := goTest(ctx, root, os.Environ(), pkg, names, "-v")
		if err != nil {
			return fmt.Errorf("the tests of %s fail while nothing is broken: %w\n%s", pkg, err, tail(out))
		}
		for _, name := range names {
			if !strings.Contains(out, "--- PASS: "+name+" (") {
				return fmt.Errorf("%s of %s was not run to its end while nothing is broken, so it notices nothing", name, pkg)
			}
		}
		fmt.Printf("sound     %6.1fs  %s\n", time.Since(start).Seconds(), pkg)
	}
	return nil
}

func tryAll(ctx context.Context, root string, all []*mutant, jobs int) error {
	var mu sync.Mutex // guards wrong and the output
	var wrong []string
	counts := map[verdict]int{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, m := range all {
		g.Go(func() error {
			start := time.Now()
			v, out, err := m.try(ctx, root)
			if err != nil {
				return fmt.Errorf("%s: %w", m.where, err)
			}
			mu.Lock()
			defer mu.Unlock()
			counts[v]++
			word := [...]string{"noticed", "SURVIVED", "BROKEN"}[v]
			switch {
			case v == broken:
				wrong = append(wrong, fmt.Sprintf("%s: %s: it cannot be built\n%s", m.where, m.what, tail(out)))
			case v == survived && m.survives == "":
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s did not notice it", m.where, m.what, strings.Join(m.tests, ", ")))
			case v == survived:
				word = "survived"
			case m.survives != "":
				wrong = append(wrong, fmt.Sprintf("%s: %s: it is noticed, but the list says that no test can: %s", m.where, m.what, m.survives))
			}
			fmt.Printf("%-9s %6.1fs  %s: %s\n", word, time.Since(start).Seconds(), m.file, m.what)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Printf("%d mutants: %d noticed, %d survived, %d could not be built\n", len(all), counts[noticed], counts[survived], counts[broken])
	for _, m := range all {
		if m.survives != "" {
			fmt.Printf("explained: %s: %s\n", m.what, m.survives)
		}
	}
	if len(wrong) > 0 {
		return errors.New("these are not as the list says:\n" + strings.Join(wrong, "\n"))
	}
	return nil
}

// try runs the tests of a mutant.
func (m *mutant) try(ctx context.Context, root string) (verdict, string, error) {
	dir, err := os.MkdirTemp("", "testbox-mutant")
	if err != nil {
		return broken, "", err
	}
	defer os.RemoveAll(dir)
	text, err := m.apply(root)
	if err != nil {
		return broken, "", err
	}
	changed, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): changed}})
	if err != nil {
		return broken, "", err
	}
	if err := errors.Join(os.WriteFile(changed, []byte(text), 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		return broken, "", err
	}
	// By the environment it holds for programs too that a test builds.
	env := append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	out, err := goTest(ctx, root, env, m.pkg, m.tests, "-failfast")
	switch {
	case ctx.Err() != nil:
		return broken, "", ctx.Err()
	case err == nil:
		return survived, out, nil
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return broken, out, nil
	}
	return noticed, out, nil
}

// goTest runs some tests of a package.
func goTest(ctx context.Context, root string, env []string, pkg string, tests []string, flags ...string) (string, error) {
	args := []string{"test", "-count=1", "-vet=off", "-timeout", limit.String(), "-run", pattern(tests)}
	last := []string{"./" + pkg}
	if rapid, err := usesRapid(filepath.Join(root, pkg)); err != nil {
		return "", err
	} else if rapid { // which would write what failed into the checkout, after it has looked long for the smallest case
		last = append(last, "-rapid.nofailfile", "-rapid.shrinktime=1s")
	}
	cmd := exec.CommandContext(ctx, "go", slices.Concat(args, flags, last)...)
	cmd.Dir, cmd.Env = root, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func usesRapid(dir string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), `"pgregory.net/rapid"`) {
			return true, err
		}
	}
	return false, err
}

// pattern is the -run of some tests; a name may have that of a subtest.
func pattern(tests []string) string {
	all := make([]string, len(tests))
	for i, name := range tests {
		all[i] = "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	}
	return strings.Join(all, "|")
}

// tail is the end of what a test printed.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
