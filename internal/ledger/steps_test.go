package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"testbox-imaging/internal/box"
)

// steps are those of the program and some more.
func steps(t *testing.T, more ...string) fs.FS {
	t.Helper()
	all := fstest.MapFS{}
	for i, s := range append(ownSteps(t), more...) {
		all[fmt.Sprintf("sqlite/%04d.sql", i+1)] = &fstest.MapFile{Data: []byte(s)}
	}
	return all
}

// ownSteps are those of the program.
func ownSteps(t *testing.T) []string {
	t.Helper()
	own, err := readSteps(schema)
	if err != nil {
		t.Fatal(err)
	}
	return own
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
	own := len(ownSteps(t))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("from version %d to %d", own+1, own+2)) {
		t.Fatalf("the error is %v", err)
	}
	if err := try(steps(t)); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), fmt.Sprintf("it has version %d", own+1)) {
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

// A ledger of the first version keeps its boxes, and learns what was seen of them.
func TestFirstVersion(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	one := fstest.MapFS{"sqlite/0001.sql": {Data: []byte(ownSteps(t)[0])}}
	l, err := open(ctx, path, Options{}, one)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := box.ParseAddr("10.0.0.9")
	if err != nil {
		t.Fatal(err)
	}
	err = l.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec(`INSERT INTO boxes VALUES (?, 'web', '', 'good', '', '', '', 0, '{"a":1}', 1, 2)`, addr.Hex())
		return err
	})
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(ctx, path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = l.View(ctx, func(tx *Tx) error {
		b, err := tx.Box(addr)
		if b.Name != "web" || string(b.Settings) != `{"a":1}` || string(b.Sight) != `{}` || b.LastSeen.UnixNano() != 2 {
			t.Errorf("%+v", b)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
