package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// meanwhile does something when the first line is written to it.
type meanwhile struct {
	bytes.Buffer
	do func()
}

func (m *meanwhile) Write(b []byte) (int, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.Buffer.Write(b)
}

// TestDisarmedMeanwhile: of several boxes, what somebody does to one while they
// are disarmed is not said of the next one, which was not armed at all.
func TestDisarmedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		anew bool   // else it is disarmed
		says string // of the second box, on stdout
		err  string
	}{
		"disarmed":   {false, "10.40.41.43: somebody else disarmed it\n", ""},
		"armed anew": {true, "", "10.40.41.43 is not disarmed: 10.40.41.43 was armed anew"},
	} {
		dir := t.TempDir()
		file := func(addr string) (path string, text []byte) {
			a, err := box.ParseAddr(addr)
			if err != nil {
				t.Fatal(err)
			}
			area := bootcfg.NFSPath{Server: a.IP(), Path: "/area"}
			c := bootcfg.Cmdline{Action: box.Verify, Arming: box.NewArming(), Address: a, TFTP: area, Backup: area}
			text, err = bootcfg.Generate(bootcfg.BootFile{Cmdline: c, Kernel: "k", Initrd: "i"})
			if err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, a.Hex()), text
		}
		write := func(path string, text []byte) {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Error(err)
			}
		}
		write(filepath.Join(dir, bootcfg.DefaultName), bootcfg.DefaultConfig())
		for _, addr := range []string{"10.40.41.42", "10.40.41.43"} {
			path, text := file(addr)
			write(path, text)
		}
		second, text := file("10.40.41.43")
		out := &meanwhile{do: func() {
			if os.Remove(second); c.anew {
				write(second, text)
			}
		}}
		w := realWorld()
		w.names.Names = func(context.Context, string) ([]string, error) { return nil, os.ErrNotExist }
		err := runDisarm(t.Context(), printer{out: out, err: new(bytes.Buffer)}, w, dir, []string{"10.40.41.42", "10.40.41.43", "10.40.41.44"})
		if says := out.String(); !strings.Contains(says, "10.40.41.42: disarmed;") || !strings.Contains(says, c.says) ||
			!strings.HasSuffix(says, "10.40.41.44: was not armed\n") {
			t.Errorf("%s: it says %q", name, says)
		}
		if (err != nil) != c.anew || err != nil && (!strings.HasPrefix(err.Error(), c.err) || strings.Contains(err.Error(), "10.40.41.44")) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(second); (err == nil) != c.anew {
			t.Errorf("%s: the second box: %v", name, err)
		}
	}
}
