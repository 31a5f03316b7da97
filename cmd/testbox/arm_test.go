package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// TestArmedMeanwhile: somebody else arms one of two boxes after both were
// checked. That is a refusal only if no box was armed before, and nobody is told
// that the box is armed.
func TestArmedMeanwhile(t *testing.T) {
	for taken, code := range map[int]int{0: exitRefused, 1: exitFailed} {
		dir := filepath.Join(t.TempDir(), bootcfg.ConfigDir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		place := &arming.Place{Boot: bootfiles.New(durable.OS{}, dir), FS: durable.OS{}, Now: time.Now}
		plan := &arming.Plan{Version: &bootcfg.Version{}}
		newBox := func(addr string, action box.Action) arming.PlannedBox {
			a, err := box.ParseAddr(addr)
			if err != nil {
				t.Fatal(err)
			}
			area := bootcfg.NFSPath{Server: a.IP(), Path: "/area"}
			c := bootcfg.Cmdline{Action: action, Arming: box.NewArming(), Address: a, TFTP: area, Backup: area}
			text, err := bootcfg.Generate(bootcfg.BootFile{Cmdline: c, Kernel: "k", Initrd: "i"})
			if err != nil {
				t.Fatal(err)
			}
			return arming.PlannedBox{Target: arming.Target{Given: addr, Addr: a}, Cmdline: c, Text: text}
		}
		for _, addr := range []string{"10.40.41.42", "10.40.41.43"} {
			plan.Boxes = append(plan.Boxes, newBox(addr, box.Backup))
		}
		other := newBox(plan.Boxes[taken].Addr.String(), box.Restore)
		if err := place.Boot.Write(other.Addr, other.Text, false); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := writePlan(printer{out: &out, err: new(bytes.Buffer)}, place, plan, false)
		if exitCode(err, true) != code || !strings.Contains(err.Error(), "is armed already, for restore") ||
			strings.Contains(err.Error(), "boxes after it") != (taken == 0) {
			t.Errorf("box %d: %v, exit code %d", taken, err, exitCode(err, true))
		}
		if got := strings.Count(out.String(), "armed for"); got != taken || strings.Contains(out.String(), other.Addr.String()+":") {
			t.Errorf("box %d: it says %q", taken, out.String())
		}
	}
}
