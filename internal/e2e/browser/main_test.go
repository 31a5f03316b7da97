// Package browser tests the web page of a server in a real Chromium, as people use it. The
// server is a process with a listener, a ledger and a store, and its boxes are simulated. All
// of it has a network of its own, from which nothing else can be reached.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/e2e/browser/demo"
	"testbox-imaging/internal/testenv"
)

func TestMain(m *testing.M) {
	if !testenv.All() || os.Getuid() != 0 {
		os.Exit(m.Run()) // everything is skipped
	}
	inside, code, err := rig.Network()
	if inside && err == nil {
		code = m.Run()
		err = stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

// port is where the page of the lab is.
const port = 9443

// shared is what all tests use: a lab and a browser.
var shared struct {
	sync.Once
	dir     string
	lab     *demo.Lab
	browser *chrome.Browser
	agents  []*demo.Agent
	err     error
}

func start() (err error) {
	s := &shared
	if s.dir, err = os.MkdirTemp("", "testbox-browser."); err != nil {
		return err
	}
	testbox := filepath.Join(s.dir, "testbox")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", testbox, "./cmd/testbox")
	build.Dir, build.Env = testenv.Top(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build testbox: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), chrome.Limit)
	defer cancel()
	if s.lab, err = demo.Start(ctx, testbox, filepath.Join(s.dir, "state"), port, 0, ""); err != nil {
		return err
	}
	if s.agents, err = s.lab.Present(ctx); err != nil {
		return err
	}
	pin, err := chrome.Pin(filepath.Join(s.lab.Dir, "tls", "api.crt"))
	if err != nil {
		return err
	}
	s.browser, err = chrome.Start(filepath.Join(s.dir, "profile"), rig.ServerIP, pin)
	return err
}

func stop() (err error) {
	s := &shared
	if s.browser != nil {
		s.browser.Close()
	}
	for _, a := range s.agents {
		a.Close()
	}
	if s.lab != nil {
		err = s.lab.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// world is the lab and the browser. They are started for the first test that needs them.
func world(t *testing.T) *demo.Lab {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "chromium", "ip")
	shared.Do(func() { shared.err = start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.lab
}

// tab opens a tab. At its end the test fails if anything was wrong there that it did not allow.
func tab(t *testing.T, v chrome.View) *chrome.Tab {
	t.Helper()
	world(t)
	b, err := shared.browser.Open(v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, text := range b.Wrong() {
			t.Errorf("the page: %s", text)
		}
		b.Close()
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
