package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/testenv"
)

// TestSyncsAreReal: what must be durable is synced by the operating system.
func TestSyncsAreReal(t *testing.T) {
	s := testenv.SyncFolder(t)
	o := durable.OS{}
	file := filepath.Join(s.Dir, "file")
	for _, tt := range []struct {
		name           string
		run            func() error
		files, folders int
	}{
		{"write", func() error { return durable.WriteFile(o, file, []byte("text"), 0o600) }, 1, 1},
		{"remove", func() error { return durable.Remove(o, file) }, 0, 1},
		{"remove what is not there", func() error { return durable.Remove(o, file) }, 0, 1},
		{"a folder", func() error { return o.MkdirAll(filepath.Join(s.Dir, "a"), 0o700) }, 0, 1},
		{"a folder that is there", func() error { return o.MkdirAll(filepath.Join(s.Dir, "a"), 0o700) }, 0, 1},
		{"folders", func() error { return o.MkdirAll(filepath.Join(s.Dir, "b/c/d"), 0o700) }, 0, 3},
	} {
		s.Counts()
		if err := tt.run(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if files, folders := s.Counts(); files != tt.files || folders != tt.folders {
			t.Errorf("%s: %d files and %d folders are synced, want %d and %d", tt.name, files, folders, tt.files, tt.folders)
		}
	}
}

// TestSyncsThatFail: a sync that fails is an error, but for a folder whose file
// system has no such call.
func TestSyncsThatFail(t *testing.T) {
	s := testenv.SyncFolder(t)
	file := filepath.Join(s.Dir, "file")
	write := func(text string) error { return durable.WriteFile(durable.OS{}, file, []byte(text), 0o600) }
	if err := write("old"); err != nil {
		t.Fatal(err)
	}
	s.Fail(syscall.EIO, 0)
	if err := write("new"); !errors.Is(err, syscall.EIO) || errors.Is(err, durable.ErrUnsure) {
		t.Errorf("the sync of a file fails: %v", err)
	}
	if text, err := os.ReadFile(file); string(text) != "old" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if names, err := (durable.OS{}).ReadDir(s.Dir); len(names) != 1 {
		t.Errorf("left are %v, %v", names, err)
	}
	s.Fail(0, syscall.EIO)
	if err := write("new"); !errors.Is(err, syscall.EIO) || !errors.Is(err, durable.ErrUnsure) {
		t.Errorf("the sync of a folder fails: %v", err)
	}
	if err := (durable.OS{}).MkdirAll(filepath.Join(s.Dir, "a"), 0o700); !errors.Is(err, syscall.EIO) {
		t.Errorf("the sync of the folder above fails: %v", err)
	}
	s.Fail(0, syscall.EINVAL)
	if err := write("newer"); err != nil {
		t.Errorf("a folder that knows no sync: %v", err)
	}
}

func TestSyncDirErrors(t *testing.T) {
	for _, none := range []error{nil, syscall.EINVAL, syscall.ENOTSUP, syscall.ENOSYS} {
		wrapped := none
		if none != nil {
			wrapped = &fs.PathError{Op: "sync", Path: "/d", Err: none}
		}
		if err := durable.SyncDirError(wrapped); err != nil {
			t.Errorf("%v is an error", err)
		}
	}
	for _, is := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.ESTALE, syscall.EROFS, syscall.EBADF, syscall.EINTR,
		fs.ErrClosed} {
		if err := durable.SyncDirError(&fs.PathError{Op: "sync", Path: "/d", Err: is}); !errors.Is(err, is) {
			t.Errorf("%v is no error", is)
		}
	}
}

// TestAbortRemovesItsOwn: a write that is given up leaves nothing, and leaves
// what another writer of the same path has.
func TestAbortRemovesItsOwn(t *testing.T) {
	for k, hit := 0, true; hit; k++ {
		v := oldFile(t)
		other, err := durable.Create(v, path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		kth := &faults.Kth{FS: v, K: k}
		p, err := durable.CreateBeside(kth, path, 0o600)
		switch {
		case err == nil && k == 0: // nothing fails
			p.Abort()
		case err == nil && p.CommitNew() == nil:
			t.Error("a file is new where one is")
		}
		hit = k == 0 || kth.Injected()
		names, err := v.ReadDir("/d")
		if got := strings.Join(names, " "); got != "file file.tmp" && !strings.HasPrefix(kth.Failed(), "remove ") {
			t.Errorf("after %q there are %s, %v", kth.Failed(), got, err)
		}
		if err := other.Commit(); err != nil {
			t.Errorf("after %q, the other writer: %v", kth.Failed(), err)
		}
	}
}
