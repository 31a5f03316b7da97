package lab

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func appendText(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestWatchFindsEachLineOnce(t *testing.T) {
	w := &Watch{Path: filepath.Join(t.TempDir(), "log")}
	go func() {
		time.Sleep(2 * pollEvery)
		appendText(t, w.Path, "one: ready\r\nno")
		time.Sleep(2 * pollEvery)
		appendText(t, w.Path, "ise\ntwo: ready\nlogin: ")
	}()
	for _, want := range []string{"one: ready", "two: ready"} {
		line, err := w.Wait(t.Context(), regexp.MustCompile("ready$"), time.Minute)
		if err != nil || line != want {
			t.Fatalf("got %q, %v; want %q", line, err, want)
		}
	}
	// A prompt is a line without an end.
	if line, err := w.Wait(t.Context(), regexp.MustCompile("^login: $"), time.Minute); err != nil || line != "login: " {
		t.Fatalf("prompt: %q, %v", line, err)
	}
	if _, err := w.Wait(t.Context(), regexp.MustCompile("ready"), 3*pollEvery); err == nil {
		t.Fatal("a line was found twice")
	}
}

func TestWatchSkipAll(t *testing.T) {
	w := &Watch{Path: filepath.Join(t.TempDir(), "log")}
	appendText(t, w.Path, "old: ready\n")
	w.SkipAll()
	appendText(t, w.Path, "new: ready\n")
	if line, err := w.Wait(t.Context(), regexp.MustCompile("ready"), time.Minute); err != nil || line != "new: ready" {
		t.Fatalf("got %q, %v", line, err)
	}
}

func TestWatchSaysWhyItGaveUp(t *testing.T) {
	w := &Watch{Path: filepath.Join(t.TempDir(), "log")}
	appendText(t, w.Path, "Kernel panic\n")
	_, err := w.Wait(t.Context(), regexp.MustCompile("ready"), time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") || !strings.Contains(err.Error(), "ready") {
		t.Errorf("the error should say what was awaited and what came: %v", err)
	}
	died := errors.New("QEMU died")
	w.Alive = func() error { return died }
	if _, err := w.Wait(t.Context(), regexp.MustCompile("ready"), time.Hour); !errors.Is(err, died) {
		t.Errorf("got %v, want that QEMU died", err)
	}
	// What it wrote before it died still counts.
	appendText(t, w.Path, "ready\n")
	if _, err := w.Wait(t.Context(), regexp.MustCompile("ready"), time.Hour); err != nil {
		t.Error(err)
	}
}
