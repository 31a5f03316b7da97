package ledger

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// steps are those of the program and some more.
func steps(t *testing.T, more ...string) fs.FS {
	t.Helper()
	text, err := fs.ReadFile(schema, "sqlite/0001.sql")
	if err != nil {
		t.Fatal(err)
	}
	all := fstest.MapFS{"sqlite/0001.sql": {Data: text}}
	for i, s := range more {
		all["sqlite/000"+string(rune('2'+i))+".sql"] = &fstest.MapFile{Data: []byte(s)}
	}
	return all
}

// An older ledger is brought up to date step by step, and keeps what it has. A
// step that fails leaves the ledger as it was before that step.
func TestSteps(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	try := func(steps fs.FS) error {
		l, err := open(ctx, path, Options{}, steps)
		if err != nil {
			return err
		}
		defer l.Close()
		return l.View(ctx, func(tx *Tx) error {
			all, err := tx.Groups()
			if err == nil && len(all) != 1 {
				err = errors.New("the group is gone")
			}
			return err
		})
	}
	l, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(ctx, func(tx *Tx) error { return tx.PutGroup(Group{Name: "g"}) })
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	second := "CREATE TABLE more (x TEXT) STRICT"
	err = try(steps(t, second, "CREATE TABLE half (x TEXT); DELETE FROM groups; INSERT INTO nowhere VALUES (1)"))
	if err == nil || !strings.Contains(err.Error(), "from version 2 to 3") {
		t.Fatalf("the error is %v", err)
	}
	if err := try(steps(t)); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "it has version 2") {
		t.Errorf("the second step was not kept: %v", err)
	}
	if err := try(steps(t, second)); err != nil {
		t.Error(err)
	}
	if err := try(steps(t, second, "CREATE TABLE half (x TEXT)")); err != nil {
		t.Error(err)
	}
	if err := try(fstest.MapFS{"sqlite/0002.sql": {}}); err == nil {
		t.Error("a step is missing")
	}
}

// An error of the database makes an Update fail, also if its function does not
// return the error.
func TestErrorIsKept(t *testing.T) {
	ctx := context.Background()
	l, err := Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Update(ctx, func(tx *Tx) error {
		if err := tx.PutGroup(Group{Name: "g"}); err != nil {
			t.Error(err)
		}
		tx.exec("no SQL")
		return nil
	}); err == nil {
		t.Error("it was committed")
	}
	if err := l.View(ctx, func(tx *Tx) error {
		all, err := tx.Groups()
		if len(all) != 0 {
			t.Errorf("there are %d groups", len(all))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// A ledger that could not be made leaves nothing that has its name.
func TestNotMade(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := open(ctx, path, Options{}, steps(t, "no SQL")); err == nil {
		t.Fatal("it was made")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if err := os.WriteFile(path+".tmp", []byte("left by a kill"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
