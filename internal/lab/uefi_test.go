package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNVRAMOutlivesTheMachine: QEMU tells the order of boot devices only to a firmware that is new. Later it would
// undo what the firmware was told by an operating system.
func TestNVRAMOutlivesTheMachine(t *testing.T) {
	if !exists(UEFISecure.vars()) {
		t.Skip("the package ovmf is not installed")
	}
	l := &Lab{Dir: t.TempDir()}
	m, err := l.Machine(Spec{Firmware: UEFISecure, Disks: []Disk{{Path: "disk", Bus: NVMe, Serial: "S", Sector: 4096}}})
	if err != nil {
		t.Fatal(err)
	}
	command := func() string {
		t.Helper()
		fresh, err := m.prepareNVRAM()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(m.argv(fresh), " ")
	}
	first := command()
	for _, want := range []string{"q35,smm=on", ",romfile=,bootindex=0",
		"serial=S,logical_block_size=4096,physical_block_size=4096,bootindex=1",
		"file=" + filepath.Join(l.Dir, m.Addr.String()+"-nvram")} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in the first command: %s", want, first)
		}
	}
	if err := os.WriteFile(m.nvram(), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if second := command(); strings.Contains(second, "bootindex") {
		t.Errorf("the order is told again: %s", second)
	}
	if data, err := os.ReadFile(m.nvram()); err != nil || string(data) != "changed" {
		t.Errorf("the firmware's variables are new: %v", err)
	}
	if err := m.ForgetNVRAM(); err != nil {
		t.Fatal(err)
	}
	if third := command(); !strings.Contains(third, "bootindex=0") {
		t.Errorf("new firmware is not told the order: %s", third)
	}
}
