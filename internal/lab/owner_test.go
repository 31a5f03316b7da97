package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCleanTakesDeadLabsOnly(t *testing.T) {
	tmp := t.TempDir()
	mark := func(name, owner string) string {
		dir := filepath.Join(tmp, name)
		if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
			t.Fatal(err)
		}
		if owner != "" {
			if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte(owner), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	live := mark(dirPrefix+"live", "")
	if err := writeOwner(live); err != nil {
		t.Fatal(err)
	}
	dead := mark(dirPrefix+"dead", `{"pid": 4194305, "start": "1"}`) // above the highest number of a process
	reused := mark(dirPrefix+"reused", `{"pid": 1, "start": "99999999999"}`)
	keep := []string{live, mark(dirPrefix+"unmarked", ""), mark("other", `{"pid": 4194305, "start": "1"}`), mark(dirPrefix+"broken", "{")}

	gone, err := Clean(tmp)
	if err == nil {
		t.Error("the mark that cannot be read should be told")
	}
	if want := []string{dead, reused}; !slices.Equal(gone, want) {
		t.Errorf("removed %q, want %q", gone, want)
	}
	for _, dir := range gone {
		if exists(dir) {
			t.Errorf("%s is still there", dir)
		}
	}
	for _, dir := range keep {
		if !exists(dir) {
			t.Errorf("%s was removed", dir)
		}
	}
}

func TestOwnerOfAnotherProcessIsRespected(t *testing.T) {
	start, err := startTime(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	if !(owner{os.Getppid(), start}).alive() || (owner{os.Getppid(), start + "1"}).alive() {
		t.Error("a process is known by its number and its start time")
	}
}
