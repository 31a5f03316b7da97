package demo

import (
	"testing"
	"time"

	"testbox-imaging/internal/efi"
)

// TestFirmware: the made-up firmware is such as a box could have, and that of one box needs somebody.
func TestFirmware(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	needs := 0
	for _, b := range Boxes(at) {
		for _, ago := range []int{0, updated + 1} {
			if err := b.firmware(ago).Check(); err != nil {
				t.Errorf("%s: %v", b.Name, err)
			}
		}
		n, err := efi.ParseNote(b.note(at).Marshal())
		if err != nil {
			t.Fatalf("%s: %v", b.Name, err)
		}
		if b.uefi != (n.NetworkFirst != nil) {
			t.Errorf("%s: %+v", b.Name, n.NetworkFirst)
		}
		if n.NetworkFirst != nil && n.NetworkFirst.Bad() {
			needs++
			if got := efi.Changes(b.firmware(0), &n.State); len(got) != 2 {
				t.Errorf("%s: since its backup it is different: %v", b.Name, got)
			}
		}
	}
	if needs != 1 {
		t.Errorf("the firmware of %d boxes needs somebody", needs)
	}
}
