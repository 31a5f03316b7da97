package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/sharedir"
)

// createFails lets the creation of one file fail.
type createFails struct {
	durable.OS
	name string
}

func (c createFails) Create(path string, mode fs.FileMode) (durable.File, error) {
	if strings.HasPrefix(filepath.Base(path), c.name) {
		return nil, fs.ErrPermission
	}
	return c.OS.Create(path, mode)
}

// TestSaveInventory: people can read what is saved, and one file that cannot be
// written does not keep the others away.
func TestSaveInventory(t *testing.T) {
	b := newBench(t)
	files := []inventory.File{{Name: box.InfoText, Data: []byte("t")}, {Name: box.InfoJSON, Data: []byte("j")}}
	for _, fails := range []string{"nothing", box.InfoText} {
		os.RemoveAll(b.path(folder))
		s := &Share{FS: createFails{name: fails}, Backup: b.path("backup"), Cmd: &bootcfg.Cmdline{Address: b.addr}}
		h, err := s.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.SaveInventory(files); errors.Is(err, fs.ErrPermission) != (fails != "nothing") {
			t.Errorf("when %s cannot be written, the error is %v", fails, err)
		}
		for _, f := range files {
			st, err := os.Stat(b.path(folder, f.Name))
			if written := f.Name != fails; written != (err == nil) || written && st.Mode().Perm() != 0o644 {
				t.Errorf("when %s cannot be written, %s is %v, %v", fails, f.Name, st, err)
			}
		}
		if h.HasInventory() != (fails == "nothing") {
			t.Errorf("when %s cannot be written, there is an inventory: %v", fails, h.HasInventory())
		}
	}
}

// TestLogOpener: what process 1 says of the agent stands in the box's log, and
// is read there.
func TestLogOpener(t *testing.T) {
	b := newBench(t)
	cmd, err := bootcfg.ParseCmdline(b.arm(box.Backup, nil))
	if err != nil {
		t.Fatal(err)
	}
	open := LogOpener(Config{TFTP: b.path("tftp"), Backup: b.path("backup")})
	say := func(format string, args ...any) { t.Errorf(format, args...) }
	log, err := open(cmd, say)
	if err != nil {
		t.Fatal(err)
	}
	log.Error("the agent was killed by signal 9")
	if err := log.Flush(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{folder + box.LogFile, "backup/" + box.LogFile} {
		if text := b.read(name); !strings.HasSuffix(text, ": 10.88.0.11: error: the agent was killed by signal 9\n") {
			t.Errorf("%s is %q", name, text)
		}
	}
	cmd.Mode = "other"
	if _, err := open(cmd, say); err == nil {
		t.Error("a mode that nobody knows has a log")
	}
	cmd.Mode = bootcfg.ShareMode
	os.Remove(b.path("backup", sharedir.Marker))
	if _, err := open(cmd, say); err == nil {
		t.Error("an area that is not mounted has a log")
	}
}

// TestUnknownMode: an agent does nothing in a mode that it does not know.
func TestUnknownMode(t *testing.T) {
	s := newSession(Config{})
	err := s.startedWith(&bootcfg.Cmdline{Mode: "other"})
	if outcomeOf(err) != box.Refused || !strings.Contains(err.Error(), "does not know the mode other") || s.arming != nil {
		t.Errorf("the error is %v", err)
	}
}
