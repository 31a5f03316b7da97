package image

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/object"
)

func facts() *Facts {
	return &Facts{
		Format: 1, Name: "sda", Kernel: "sdb",
		Disk: Identity{WWN: "naa.5000c50012345678", Serial: "S1", Path: "pci-0000:00:1f.2-ata-1", Model: "M", Size: 1 << 30, SectorSize: 512},
		Box:  "10.0.0.1", Host: "box1", UUID: "0b0d0000-0000-4000-8000-000000000001", Arming: "0123456789abcdef",
		Time:   time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		BLAKE3: strings.Repeat("0a", 32), SHA256: strings.Repeat("1b", 32), FileSize: 12345,
		Bad: []Range{{512, 512}, {4096, 1024}},
	}
}

func TestFactsRoundTrip(t *testing.T) {
	f := facts()
	got, err := ParseFacts(f.Marshal())
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestFactsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Facts){
		"format":            func(f *Facts) { f.Format = 2 },
		"name":              func(f *Facts) { f.Name = "../sda" },
		"no name":           func(f *Facts) { f.Name = "" },
		"size":              func(f *Facts) { f.Disk.Size = 0 },
		"negative size":     func(f *Facts) { f.Disk.Size = -512 },
		"sector size":       func(f *Facts) { f.Disk.SectorSize = 520 },
		"size and sector":   func(f *Facts) { f.Disk.Size++ },
		"file size":         func(f *Facts) { f.FileSize = 0 },
		"short hash":        func(f *Facts) { f.BLAKE3 = f.BLAKE3[2:] },
		"upper-case hash":   func(f *Facts) { f.SHA256 = strings.ToUpper(f.SHA256) },
		"bad out of disk":   func(f *Facts) { f.Bad = []Range{{1 << 30, 512}} },
		"bad overflows":     func(f *Facts) { f.Bad = []Range{{512, 1<<63 - 1}} },
		"bad out of order":  func(f *Facts) { f.Bad = []Range{{4096, 512}, {512, 512}} },
		"bad with no bytes": func(f *Facts) { f.Bad = []Range{{512, 0}} },
	} {
		f := facts()
		spoil(f)
		if _, err := ParseFacts(f.Marshal()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, text := range []string{"", "{}", "null", "[1]", `{"format":1,"surprise":2}`} {
		if _, err := ParseFacts([]byte(text)); err == nil {
			t.Errorf("%q: taken", text)
		}
	}
	if _, err := ParseFacts(append(facts().Marshal(), "{}"...)); err == nil {
		t.Error("something after the end: taken")
	}
	if _, err := ParseFacts(bytes.Repeat([]byte(" "), MaxFacts+1)); err == nil {
		t.Error("too large: taken")
	}
}

// TestFirmware: a sidecar and a record can have the state of the box's firmware.
func TestFirmware(t *testing.T) {
	state := &efi.State{Kind: efi.UEFI, Order: []efi.Number{3}, Entries: []efi.Entry{{Number: 3, Kind: efi.DiskEntry, Option: []byte{1}}}}
	f := facts()
	f.Firmware = state
	if got, err := ParseFacts(f.Marshal()); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v, %v", got, err)
	}
	r := &Record{Format: 1, ID: "20261127-004616", Box: "10.0.0.1", Firmware: state,
		Disks: []RecordedDisk{{Name: "sda", Disk: Identity{Size: 512, SectorSize: 512}, Root: object.Name{1}, Zero: 512}}}
	if got, err := ParseRecord(r.Marshal()); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	state.Kind = "x"
	if _, err := ParseFacts(f.Marshal()); err == nil {
		t.Error("a sidecar with firmware of no kind is taken")
	}
	if r.Check() == nil {
		t.Error("a record with firmware of no kind is taken")
	}
}

func TestValidName(t *testing.T) {
	for s, want := range map[string]bool{"sda": true, "nvme0n1": true, "vda": true, "mmcblk0": true, "": false, "0sda": false, ".": false,
		"a/b": false, "a.b": false, strings.Repeat("a", 33): false} {
		if ValidName(s) != want {
			t.Errorf("ValidName(%q) = %v", s, !want)
		}
	}
}

func TestNamesPartition(t *testing.T) {
	for _, s := range []string{"sda1", "SDA1", "sdaa12", "sda-part1", "sda_1", "sda-1", "sdap1", "sda-p3", "hda5", "vda1", "xvdb2",
		"nvme0n1p1", "nvme0n1-part1",
		"NVME0N1P3", "nvme10n2p15", "mmcblk0p2", "md0p1", "md127p1", "loop0p1", "cciss-c0d0p1", "part1", "partition-2", "ata-DISK_X-part1",
		"mmcblk0boot0", "mmcblk1gp3"} {
		if !NamesPartition(s) {
			t.Errorf("%s is no partition", s)
		}
	}
	for _, s := range []string{"sda", "sdaa", "nvme0n1", "nvme10n2", "mmcblk0", "vda", "xvda", "md127", "loop0", "cciss-c0d0", "disk1",
		"image2", "root", "sda-2024", "sda-old", "web1", "p1", "sd1", "zd16", "dm-0"} {
		if NamesPartition(s) {
			t.Errorf("%s is a partition", s)
		}
	}
}

func TestStageRate(t *testing.T) {
	if r := (Stage{Bytes: 100, Elapsed: 2 * time.Second}).Rate(); r != 50 {
		t.Errorf("rate is %v", r)
	}
	if r := (Stage{Bytes: 100}).Rate(); r != 0 {
		t.Errorf("rate without time is %v", r)
	}
	for want, s := range map[float64]Stage{
		50: {Name: "read", Bytes: 100, Elapsed: time.Hour, Active: 2 * time.Second},
		25: {Name: "compare", Bytes: 100, Elapsed: time.Hour, Active: 4 * time.Second},
	} {
		if r := s.ReadRate(); r != want {
			t.Errorf("%+v: the disk was read at %v", s, r)
		}
	}
	for _, s := range []Stage{{Name: "read", Bytes: 100}, {Name: "read", Bytes: 100, Active: -1}, {Name: "write", Bytes: 100, Active: 1}} {
		if r := s.ReadRate(); r != 0 {
			t.Errorf("%+v: the disk was read at %v", s, r)
		}
	}
}

func FuzzParseFacts(f *testing.F) {
	f.Add(facts().Marshal())
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseFacts(data)
		if err != nil {
			return
		}
		again, err := ParseFacts(got.Marshal())
		if err != nil || !reflect.DeepEqual(got.Marshal(), again.Marshal()) {
			t.Fatalf("%+v does not survive: %+v, %v", got, again, err)
		}
	})
}

func TestClip(t *testing.T) {
	r := Range{Off: 10, Len: 20}
	for _, c := range []struct{ from, to, off, len int64 }{
		{0, 100, 10, 20}, {15, 100, 15, 15}, {0, 15, 10, 5}, {12, 13, 12, 1}, {0, 10, 10, 0}, {30, 40, 30, 0}, {50, 40, 50, 0},
	} {
		got := r.Clip(c.from, c.to)
		if got.Len != c.len || got.Len > 0 && got.Off != c.off {
			t.Errorf("from %d to %d there is %v, want %d bytes at %d", c.from, c.to, got, c.len, c.off)
		}
	}
	if r.End() != 30 {
		t.Errorf("%v ends at %d", r, r.End())
	}
}
