package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/efi"
)

// TestSightText: whoever lists boxes sees which of them want a look, and what to do.
func TestSightText(t *testing.T) {
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	b := api.Box{Address: "10.0.0.1", SilentSince: at, Moved: &api.Moved{Address: "10.0.0.7", Since: at},
		Shared: &api.SharedAddress{MAC: "52:54:00:00:00:09", Last: at}, UsualPause: 72 * 3600,
		Machines: []api.Machine{{Asked: []api.Ask{{Time: at, Over: "dhcp", Asked: "DISCOVER", Given: "lpxelinux.0"},
			{Time: at, Over: "tftp", Asked: "x"}}}}}
	if got := noteOf(b); got != "SILENT, MOVED to 10.0.0.7, SHARES 52:54:00:00:00:09" {
		t.Error(got)
	}
	if got := noteOf(api.Box{SilentSince: at, Lost: true}); got != "LOST" {
		t.Error(got)
	}
	needs := &api.BoxFirmware{Kind: "UEFI", Version: "Maker 1.0", SecureBoot: "on", BootOrder: efi.OrderIgnored, Why: "It was 0002.",
		Needs: true}
	if got := noteOf(api.Box{Firmware: needs}); got != "BOOT ORDER ignored" {
		t.Error(got)
	}
	if got := noteOf(api.Box{Firmware: &api.BoxFirmware{BootOrder: efi.OrderRepaired}}); got != "" {
		t.Error(got)
	}
	if got := noteOf(api.Box{}); got != "" {
		t.Error(got)
	}
	var lines []string
	line := func(name, value string) { lines = append(lines, fmt.Sprintf("%s: %s", name, value)) }
	printSight(line, b)
	b.Firmware = needs
	printBoxFirmware(line, b)
	got := strings.Join(lines, "\n")
	for _, want := range []string{"usual pause: 72h at most", "testbox box readdress 10.0.0.1 10.0.0.7", "the machine 52:54:00:00:00:09 asked",
		"dhcp: DISCOVER, got lpxelinux.0", "tftp: x, got nothing", "silent: ",
		"firmware: UEFI, Maker 1.0, as of ", "Secure Boot: on", "boot order: ignored. It was 0002. The maintenance system had put",
		"Then: testbox refresh-info 10.0.0.1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
}
