package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/store"
)

// withFirmware commits a copy of a box's latest backup that has a state of the firmware.
func (s *shell) withFirmware(box string, state *efi.State) {
	s.t.Helper()
	st, err := store.OpenDir(s.t.Context(), os.Getenv("TESTBOX_STORE"), nil, false, s.t.Logf)
	if err != nil {
		s.t.Fatal(err)
	}
	records, _, err := st.RecordsOf(s.t.Context(), box)
	if err == nil {
		r := *records[len(records)-1]
		r.Time, r.ID, r.Firmware = time.Time{}, "", state
		session := st.Begin()
		err = session.Commit(s.t.Context(), &r)
		session.Close()
	}
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestFirmwareShown: image show says what the firmware was like at a backup, and image diff how that has changed.
func TestFirmwareShown(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	s.run(0, "image", "create", "10.0.0.1", s.write("raw", conform.Disks(1 << 20)["mixed"]))
	net := efi.Number(2)
	state := &efi.State{Kind: efi.UEFI, Bits: 64, Vendor: "Maker", Version: "1.0", SecureBoot: "on", Order: []efi.Number{2, 3}, Current: &net,
		Entries: []efi.Entry{{Number: 0, Name: "Setup", Active: true, Kind: efi.FirmwareEntry},
			{Number: 2, Name: "PXE", Active: true, Kind: efi.NetworkEntry, MAC: "52:54:00:00:00:01"},
			{Number: 3, Name: "debian", Active: true, Kind: efi.DiskEntry, File: `\EFI\debian\shimx64.efi`,
				Partition: &efi.Partition{Number: 1, GUID: "a1", Disk: "sda"}}},
		Variables: []efi.Variable{{Name: "Timeout", Size: 2, SHA256: strings.Repeat("0", 64), Value: "0500"}},
		NVMe:      []efi.Namespace{{Disk: "nvme0n1", Serial: "S1", ID: 1, Blocks: 8, Formats: []efi.LBAFormat{{Block: 512}, {Block: 4096}}}},
		Problems:  []string{"the UEFI variable Boot0007: input/output error"}}
	if out := s.run(0, "image", "show", "10.0.0.1"); strings.Contains(out, "firmware") {
		t.Errorf("a backup of a file has firmware:\n%s", out)
	}
	s.withFirmware("10.0.0.1", state)
	want := `firmware: UEFI, 64 bits, Maker 1.0
  Secure Boot: on
  boot order:
    0002 PXE: network, card 52:54:00:00:00:01 (started this boot)
    0003 debian: \EFI\debian\shimx64.efi, partition 1 of sda (a1)
  not in the boot order:
    0000 Setup: a program of the firmware
  namespace 1 of nvme0n1 (S1): 8 blocks, format 512 bytes, can have 4096 bytes
  variables, which --json prints: Timeout
  not known: the UEFI variable Boot0007: input/output error
`
	if out := s.run(0, "image", "show", "10.0.0.1"); !strings.Contains(out, want) {
		t.Errorf("it shows:\n%s\nwant:\n%s", out, want)
	}
	var shown struct{ Firmware *efi.State }
	if err := json.Unmarshal([]byte(s.run(0, "image", "show", "--json", "10.0.0.1")), &shown); err != nil || shown.Firmware == nil ||
		shown.Firmware.Variables[0].Value != "0500" {
		t.Errorf("--json has %+v, %v", shown.Firmware, err)
	}

	both := []string{"10.0.0.1@latest~1", "10.0.0.1"}
	if out := s.run(0, append([]string{"image", "diff"}, both...)...); !strings.Contains(out, "not compared, since the first backup says") {
		t.Error(out)
	}
	s.withFirmware("10.0.0.1", state)
	if out := s.run(0, "image", "diff", "10.0.0.1@latest~1", "10.0.0.1"); out != "sda: the same\nfirmware: the same\n" {
		t.Error(out)
	}
	later := *state
	later.SecureBoot, later.Order = "off", []efi.Number{3, 2}
	s.withFirmware("10.0.0.1", &later)
	want = "sda: the same\nfirmware: Secure Boot was on, is off\nfirmware: boot order was 0002 PXE, 0003 debian, is 0003 debian, 0002 PXE\n"
	if out := s.run(exitDiffer, append([]string{"image", "diff"}, both...)...); !strings.HasPrefix(out, want) {
		t.Errorf("%s\nwant %s", out, want)
	}
	var diff imageDiff
	out := s.run(exitDiffer, append([]string{"image", "diff", "--json"}, both...)...)
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&diff); err != nil || len(diff.Disks) != 1 || diff.Firmware == nil ||
		len(diff.Firmware.Changes) != 2 {
		t.Errorf("--json has %s, %v", out, err)
	}
	// Who names a disk means that disk alone.
	if out := s.run(0, "image", "diff", both[0]+":sda", both[1]+":sda"); out != "sda: the same\n" {
		t.Error(out)
	}
}
