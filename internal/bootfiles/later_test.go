package bootfiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// TestLater has the names that PXELINUX asks for after a box's own, and no
// others.
func TestLater(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"0": "", "0A": "", "0A5": "", "0A58": "", "0A580": "", "0A5800": "", "0A58000": "", "0A58000B": "",
		"default": string(bootcfg.DefaultConfig()),
		"A":       "", "B": "", "0A58001": "", "0A59": "", "0A58000B0": "", "0A58.tmp": "",
		"58000B": "", "01-52-54-00-12-34-56": "", "0A58000C": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := box.ParseAddr("10.88.0.11")
	if err != nil {
		t.Fatal(err)
	}
	f := New(durable.OS{}, dir)
	later, err := f.Later(addr)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range later {
		names = append(names, l.Name)
		if l.Why == nil {
			t.Errorf("%s is empty and is taken for local boot", l.Name)
		}
	}
	if got := strings.Join(names, " "); got != "0A58000 0A5800 0A580 0A58 0A5 0A 0" {
		t.Errorf("the names are %s", got)
	}
	if all := f.NotLocal(addr); len(all) != 7 {
		t.Errorf("not local boot are %v", all)
	}
}
