package inventory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/image"
)

const cpuinfo = `processor	: 0
physical id	: 0
core id		: 0
model name	: Intel(R) Xeon(R) CPU E3-1230 v3 @ 3.30GHz
microcode	: 0x28
flags		: fpu vme sse2

processor	: 1
physical id	: 0
core id		: 0

processor	: 2
physical id	: 0
core id		: 1

processor	: 3
physical id	: 1
core id		: 0
`

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

func procTree() fstest.MapFS {
	return fstest.MapFS{
		"cpuinfo": file(cpuinfo),
		"meminfo": file("MemTotal:       16314484 kB\nMemFree: 1 kB\n"),
		"version": file("Linux version 6.1.0-32-amd64\n"),
	}
}

// sysTree is a server with a PCI network card, a SATA disk and UEFI firmware,
// as /sys shows it.
func sysTree() fstest.MapFS {
	const (
		card  = "devices/pci0000:00/0000:00:19.0"
		ahci  = "devices/pci0000:00/0000:00:1f.2"
		guid  = globalVariable
		attrs = "\x07\x00\x00\x00"
	)
	option := func(name string, active bool) string {
		b := []byte{0, 0, 0, 0, 4, 0}
		if active {
			b[0] = 1
		}
		for _, c := range []byte(name) {
			b = append(b, c, 0)
		}
		return attrs + string(b) + "\x00\x00\x7f\xff\x04\x00"
	}
	return fstest.MapFS{
		card + "/class":                                   file("0x020000\n"),
		card + "/vendor":                                  file("0x8086\n"),
		card + "/device":                                  file("0x10d3\n"),
		card + "/revision":                                file("0x05\n"),
		card + "/subsystem_vendor":                        file("0x8086\n"),
		card + "/subsystem_device":                        file("0xa01f\n"),
		card + "/current_link_speed":                      file("2.5 GT/s PCIe\n"),
		card + "/current_link_width":                      file("1\n"),
		card + "/driver":                                  link("../../../bus/pci/drivers/e1000e"),
		card + "/net/eth0/address":                        file("00:25:90:AB:CD:EF\n"),
		card + "/net/eth0/carrier":                        file("1\n"),
		card + "/net/eth0/speed":                          file("1000\n"),
		card + "/net/eth0/device":                         link("../../../0000:00:19.0"),
		ahci + "/class":                                   file("0x010601\n"),
		ahci + "/vendor":                                  file("0x8086\n"),
		ahci + "/device":                                  file("0x2922\n"),
		"bus/pci/drivers/e1000e/bind":                     file(""),
		"bus/pci/devices/0000:00:19.0":                    link("../../../" + card),
		"bus/pci/devices/0000:00:1f.2":                    link("../../../" + ahci),
		"class/net/eth0":                                  link("../../" + card + "/net/eth0"),
		"class/net/lo":                                    link("../../devices/virtual/net/lo"),
		"devices/virtual/net/lo/address":                  file("00:00:00:00:00:00\n"),
		"block/sda/queue/rotational":                      file("1\n"),
		"block/sda/device/rev":                            file("CC49\n"),
		"block/sda/sda1/start":                            file("2048\n"),
		"block/sda/sda1/size":                             file("1048576\n"),
		"block/sda/sda2/start":                            file("what\n"),
		"firmware/dmi/tables/DMI":                         file(string(machineTable())),
		"firmware/dmi/tables/smbios_entry_point":          file("_SM3_\x00\x18\x03\x02\x00"),
		"firmware/acpi/tables/DSDT":                       file("DSDT..."),
		"firmware/acpi/tables/raw_event_log":              file("never opened"),
		"firmware/memmap/0/start":                         file("0x0\n"),
		"firmware/efi/fw_platform_size":                   file("64\n"),
		efivars + "/SecureBoot" + guid:                    file(attrs + "\x01"),
		efivars + "/SetupMode" + guid:                     file(attrs + "\x00"),
		efivars + "/BootCurrent" + guid:                   file(attrs + "\x03\x00"),
		efivars + "/BootOrder" + guid:                     file(attrs + "\x03\x00\x0a\x00\x0b\x00"),
		efivars + "/Boot0003" + guid:                      file(option("UEFI PXEv4", true)),
		efivars + "/Boot000A" + guid:                      file(option("debian", false)),
		efivars + "/Setup-ec87d643-eba4-4bb5-a1e5-3f3e36": file("a password"),
	}
}

func someDisk(name, transport string) disk.Disk {
	return disk.Disk{
		Name: name, Transport: transport, Parts: []string{name + "1", name + "2"}, Links: []string{"by-id/ata-ST1000_W1"},
		Identity: image.Identity{Serial: "W1", Model: "ST1000", Size: 1e12, SectorSize: 512, Path: "pci-0000:00:1f.2-ata-1"},
	}
}

func options(t *testing.T) Options {
	addr, err := box.ParseAddr("10.40.41.42")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Sys: sysTree(), Proc: procTree(), Dev: "/dev", Address: addr, Host: "box42", Maintenance: "1.2",
		Time:   time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		PCIIDs: func() ([]byte, error) { return []byte(someIDs), nil },
		Kmsg:   func() ([]byte, error) { return []byte("first line\n\x1b[31mred\n"), nil },
		Disks:  []disk.Disk{someDisk("sda", "ata"), {Name: "loop0", Transport: "virtual"}},
		health: func(path string, kind healthKind) (Health, error) {
			if path != "/dev/sda" || kind != healthATA {
				return Health{}, errors.New("asked for " + path)
			}
			return Health{Status: healthGood, Attributes: []Attribute{{ID: 5, Name: "reallocated sectors", Value: 100, Worst: 100, Threshold: 36,
				Raw: "0"}}}, nil
		},
	}
}

func TestCollect(t *testing.T) {
	inv := Collect(t.Context(), options(t))
	if want := []string{
		"partition sda2: its start is not readable",
		"UEFI: Boot000B: /sys/firmware/efi/efivars/Boot000B" + globalVariable + ": file does not exist",
	}; !slices.Equal(inv.Problems, want) {
		t.Errorf("problems are %q, want %q", inv.Problems, want)
	}
	if inv.Address != "10.40.41.42" || inv.Hex != "0A28292A" || inv.Host != "box42" || inv.UUID != "00112233-4455-6677-8899-aabbccddeef0" {
		t.Errorf("box is %s %s %s %s", inv.Address, inv.Hex, inv.Host, inv.UUID)
	}
	c := inv.CPU
	if c.Model != "Intel(R) Xeon(R) CPU E3-1230 v3 @ 3.30GHz" || c.Sockets != 2 || c.Cores != 3 || c.Threads != 4 || c.Microcode != "0x28" ||
		len(c.Flags) != 3 {
		t.Errorf("processors are %+v", c)
	}
	if inv.Memory != 16314484<<10 {
		t.Errorf("memory is %d", inv.Memory)
	}
	if len(inv.PCI) != 2 || inv.PCI[0].Driver != "e1000e" || inv.PCI[0].Link != "2.5 GT/s PCIe x1" ||
		inv.PCI[0].SubsystemName != "Gigabit CT2 Desktop Adapter" {
		t.Errorf("PCI is %+v", inv.PCI)
	}
	nic := NIC{Name: "eth0", MAC: "00:25:90:ab:cd:ef", Driver: "e1000e", PCI: "0000:00:19.0", Up: true, Speed: 1000}
	if len(inv.Network) != 1 || inv.Network[0] != nic {
		t.Errorf("network cards are %+v, want %+v", inv.Network, nic)
	}
	if len(inv.KernelLog) != 2 || inv.KernelLog[1] != "?[31mred" {
		t.Errorf("kernel log is %q", inv.KernelLog)
	}
}

func TestCollectFirmware(t *testing.T) {
	f := Collect(t.Context(), options(t)).Firmware
	order := []BootEntry{{"0003", "UEFI PXEv4", true}, {"000A", "debian", false}, {"000B", "", false}}
	if f.Kind != "UEFI" || f.Bits != 64 || f.SecureBoot != "on" || f.BootCurrent != "0003" || !slices.Equal(f.BootOrder, order) {
		t.Errorf("firmware is %+v", f)
	}
	o := options(t)
	sys := sysTree()
	for name := range sys {
		if strings.HasPrefix(name, "firmware/efi") {
			delete(sys, name)
		}
	}
	o.Sys = sys
	if f := Collect(t.Context(), o).Firmware; f.Kind != "BIOS" || f.BootOrder != nil {
		t.Errorf("firmware without efi is %+v", f)
	}
}

func TestCollectDisks(t *testing.T) {
	o := options(t)
	o.Disks = append(o.Disks, someDisk("sdb", "usb"), someDisk("vda", "virtio"), someDisk("sdc", "sas"), someDisk("nvme0n1", "nvme"))
	o.Sys.(fstest.MapFS)["block/sdc/device/vendor"] = file("ATA     \n")
	o.health = func(path string, kind healthKind) (Health, error) {
		switch {
		case path == "/dev/sda" && kind == healthATA:
			return Health{Status: healthGood}, nil
		case path == "/dev/sdc" && kind == healthATA:
			return Health{Status: healthFailing, Note: "the disk expects to fail"}, nil
		case path == "/dev/nvme0n1" && kind == healthNVMe:
			return Health{}, errors.New("no such device")
		}
		t.Errorf("%s was asked", path)
		return Health{}, nil
	}
	inv := Collect(t.Context(), o)
	want := map[string]string{"sda": healthGood, "sdb": healthUnknown, "vda": healthUnknown, "sdc": healthFailing, "nvme0n1": healthUnknown}
	if len(inv.Disks) != len(want) {
		t.Fatalf("%d disks, want %d without the loop device", len(inv.Disks), len(want))
	}
	for _, d := range inv.Disks {
		if d.Health.Status != want[d.Name] {
			t.Errorf("%s: health %+v, want %s", d.Name, d.Health, want[d.Name])
		}
	}
	sda := inv.Disks[0]
	if sda.Serial != "W1" || sda.Firmware != "CC49" || sda.Rotational == nil || !*sda.Rotational {
		t.Errorf("sda is %+v", sda)
	}
	if want := []Partition{{"sda1", 2048 * 512, 1048576 * 512}}; !slices.Equal(sda.Partitions, want) {
		t.Errorf("partitions are %+v, want %+v", sda.Partitions, want)
	}
	for _, want := range []string{"disk sdc: health is failing: the disk expects to fail", "disk nvme0n1: health is unknown: no such device"} {
		if !slices.Contains(inv.Problems, want) {
			t.Errorf("problems %q lack %q", inv.Problems, want)
		}
	}
}

func TestDeadDiskIsSkipped(t *testing.T) { synctest.Test(t, deadDiskIsSkipped) }

func deadDiskIsSkipped(t *testing.T) {
	o := options(t)
	o.Disks = []disk.Disk{someDisk("sda", "ata"), someDisk("sdb", "ata")}
	release := make(chan struct{})
	defer close(release)
	o.health = func(path string, _ healthKind) (Health, error) {
		if path == "/dev/sda" {
			<-release
		}
		return Health{Status: healthGood}, nil
	}
	o.limits = defaultLimits
	o.limits.disk = 50 * time.Millisecond
	inv := Collect(t.Context(), o)
	if h := inv.Disks[0].Health; h.Status != healthUnknown || !strings.Contains(h.Note, "skipped") {
		t.Errorf("dead disk: %+v", h)
	}
	if h := inv.Disks[1].Health; h.Status != healthGood {
		t.Errorf("the disk beside it: %+v", h)
	}
}

func TestCollectFromNothing(t *testing.T) {
	inv := Collect(t.Context(), Options{Sys: fstest.MapFS{}, Proc: fstest.MapFS{}})
	for _, want := range []string{"processors", "memory", "SMBIOS", "network cards"} {
		if !slices.ContainsFunc(inv.Problems, func(p string) bool { return strings.HasPrefix(p, want) }) {
			t.Errorf("problems %q say nothing of %s", inv.Problems, want)
		}
	}
	if inv.Host != "unknown" || inv.Time.IsZero() || inv.UUID != "" {
		t.Errorf("inventory of nothing is %+v", inv)
	}
}

func TestCollectEndsWithContext(t *testing.T) { synctest.Test(t, collectEndsWithContext) }

func collectEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if inv := Collect(ctx, options(t)); len(inv.Problems) == 0 {
		t.Error("a cancelled collection has no problems")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("a cancelled collection took %v", d)
	}
}

// TestThisMachine collects from the machine that runs the test.
func TestThisMachine(t *testing.T) {
	sys := os.DirFS("/sys")
	disks, errs := disk.List(sys)
	t.Log("disks:", disks, errs)
	o := options(t)
	o.Sys, o.Proc, o.Disks, o.Dev, o.health, o.Kmsg = sys, os.DirFS("/proc"), disks, "/dev", nil, KernelLog
	inv := Collect(t.Context(), o)
	for _, p := range inv.Problems {
		t.Log("problem:", p)
	}
	if inv.CPU.Threads == 0 || inv.Memory == 0 || inv.Kernel == "" {
		t.Errorf("processors %+v, memory %d, kernel %q", inv.CPU, inv.Memory, inv.Kernel)
	}
	if _, err := inv.Zip(); err != nil {
		t.Error(err)
	}
	if _, err := ParseJSON(inv.JSON()); err != nil {
		t.Error(err)
	}
	text, _, _ := strings.Cut(string(inv.Text()), "\nKernel log")
	t.Log(text)
}
