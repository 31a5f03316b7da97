package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func list(t testing.TB, sys fs.FS) []Disk {
	t.Helper()
	disks, errs := List(sys)
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	return disks
}

func TestListIdentities(t *testing.T) {
	disks := list(t, lab().fs())
	for _, c := range []struct{ name, transport, path, wwn, serial, model string }{
		{"sda", "ata", "pci-0000:00:1f.2-ata-1.0", "naa.5002538e40a1b2c3", "S3Z2NB0K123456A", "Samsung SSD 860 EVO 500GB"},
		{"sdb", "ata", "pci-0000:00:1f.2-ata-2.1.0", "", "WD-PMP1", "WDC WD10"},
		{"sdc", "sas", "pci-0000:03:00.0-sas-phy3-lun-0", "naa.5000c500aaaaaaab", "S0M1ABCD0000K1234567", "ST600MM0006"},
		{"sdd", "sas", "pci-0000:03:00.0-sas-exp0x5001636000000001-phy7-lun-0", "", "", "ST600MM0006"},
		{"sde", "sas", "pci-0000:03:00.0-sas-0x500056b3cccccccc-lun-0x012c000000000000", "", "", "WIDE"},
		{"sdf", "scsi", "pci-0000:41:00.0-scsi-0:2:0:0", "naa.6d09466017a9e00018e2f70a0d3f2c11", "00a1b2c3d4e5f60718002ac8a0607086",
			"PERC H730 Mini"},
		{"sdg", "scsi", "pci-0000:41:00.0-scsi-0:2:1:0", "naa.6d09466017a9e00018e2f70a0d3f2c12", "", "PERC H730 Mini"},
		{"sdh", "usb", "pci-0000:00:14.0-usb-0:4:1.0-scsi-0:0:0:0", "", "60A44C4138E8", "DataTraveler 3.0"},
		{"sdi", "usb", "pci-0000:00:14.0-usb-0:5.2:1.0-scsi-0:0:0:0", "", "WX1234567890", "Elements 2620"},
		{"sdj", "iscsi", "ip-10.0.0.5:3260-iscsi-iqn.2026-01.lab:lun-lun-1", "naa.6001405aaaaaaaaaaaaaaaaaaaaaaaaa", "", "disk0"},
		{"sdk", "fc", "pci-0000:81:00.0-fc-0x500507680b21ac5d-lun-5", "", "", "2145"},
		{"sdl", "hyperv", "acpi-VMBUS:00-vmbus-00000000000088990000000000000000-lun-0", "naa.600224801111222233334444aaaabbbb", "",
			"Virtual Disk"},
		{"sdm", "scsi", "pci-0000:00:05.0-scsi-1:0:0:0", "", "", "QEMU HARDDISK"},
		{"vda", "virtio", "pci-0000:00:04.0", "", "boot-disk", ""},
		{"vdb", "virtio", "pci-0000:00:06.0", "", "", ""},
		{"nvme0n1", "nvme", "pci-0000:04:00.0-nvme-1", "eui.01000000000000005cd2e4aaaaaaaa01", "PHLJ000000000001", "INTEL SSDPE2KX010T8"},
		{"nvme0n2", "nvme", "pci-0000:04:00.0-nvme-2", "", "PHLJ000000000001", "INTEL SSDPE2KX010T8"},
		{"nvme1n1", "nvme", "pci-0000:00:0e.0-pci-10000:e1:00.0-nvme-1", "uuid.11111111-2222-3333-4444-555555555555", "DUALPORT1", "Dual"},
		{"nvme2n1", "nvme-tcp", "", "", "abcdef", "Linux"},
		{"mmcblk0", "mmc", "", "", "0x1a2b3c4d", "DF4032"},
		{"mmcblk1", "sd", "", "", "0x00000001", "SC16G"},
		{"loop1", "virtual", "", "", "", ""},
		{"sr0", "ata", "pci-0000:00:1f.2-ata-3.0", "", "", "DVDRAM"},
	} {
		d := find1(t, disks, c.name)
		if d.Transport != c.transport || d.Path != c.path || d.WWN != c.wwn || d.Serial != c.serial || d.Model != c.model {
			t.Errorf("%s is\n%q %q %q %q %q, want\n%q %q %q %q %q", c.name, d.Transport, d.Path, d.WWN, d.Serial, d.Model, c.transport, c.path,
				c.wwn, c.serial, c.model)
		}
	}
}

func TestListSizesAndParts(t *testing.T) {
	disks := list(t, lab().fs())
	if d := find1(t, disks, "vdb"); d.Size != 20<<30 || d.SectorSize != 4096 {
		t.Errorf("vdb has %d bytes in sectors of %d; sysfs counts in 512 bytes whatever the sector", d.Size, d.SectorSize)
	}
	if d := find1(t, disks, "sda"); !slices.Equal(d.Parts, []string{"sda1", "sda2", "sda10"}) {
		t.Errorf("sda has the partitions %q", d.Parts)
	}
	if d := find1(t, disks, "mmcblk0"); !slices.Equal(d.Parts, []string{"mmcblk0p1"}) {
		t.Errorf("mmcblk0 has the partitions %q", d.Parts)
	}
	if a, b := find1(t, disks, "nvme0n1"), find1(t, disks, "nvme0n2"); a.NamespaceID != 1 || b.NamespaceID != 2 {
		t.Errorf("namespaces are %d and %d", a.NamespaceID, b.NamespaceID)
	}
	for _, d := range disks {
		if d.Name == "nvme1c1n1" {
			t.Error("the hidden path of a multipath disk is listed")
		}
	}
	if !slices.IsSortedFunc(disks, func(a, b Disk) int { return CompareNames(a.Name, b.Name) }) {
		t.Error("the list is not sorted")
	}
}

func TestListLinks(t *testing.T) {
	disks := list(t, lab().fs())
	for name, want := range map[string][]string{
		"sda": {"by-id/ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A", "by-id/wwn-0x5002538e40a1b2c3", "by-id/scsi-35002538e40a1b2c3",
			"by-id/scsi-1ATA_Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A", "by-path/pci-0000:00:1f.2-ata-1.0", "by-path/pci-0000:00:1f.2-ata-1"},
		"sdb": {"by-id/ata-WDC_WD10_WD-PMP1", "by-path/pci-0000:00:1f.2-ata-2.1.0", "by-path/pci-0000:00:1f.2-ata-2"},
		"sdf": {"by-id/wwn-0x6d09466017a9e00018e2f70a0d3f2c11", "by-id/scsi-36d09466017a9e00018e2f70a0d3f2c11"},
		"sdh": {"by-id/usb-Kingston_DataTraveler_3.0_60A44C4138E8-0:0"},
		"sdm": {"by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi0"},
		"vda": {"by-id/virtio-boot-disk", "by-path/pci-0000:00:04.0", "by-path/virtio-pci-0000:00:04.0"},
		"nvme0n1": {"by-id/nvme-eui.01000000000000005cd2e4aaaaaaaa01", "by-id/nvme-INTEL_SSDPE2KX010T8_PHLJ000000000001",
			"by-id/nvme-INTEL_SSDPE2KX010T8_PHLJ000000000001_1"},
		"mmcblk0": {"by-id/mmc-DF4032_0x1a2b3c4d"},
	} {
		d := find1(t, disks, name)
		for _, l := range want {
			if !slices.Contains(d.Links, l) {
				t.Errorf("%s has the links %q, without %s", name, d.Links, l)
			}
		}
	}
}

// A tree of plain folders, as a test makes it, knows no paths.
func TestListPlainFolders(t *testing.T) {
	dir := t.TempDir()
	for name, v := range map[string]string{
		"block/sda/size": "2048\n", "block/sda/dev": "8:0\n", "block/sda/queue/logical_block_size": "512\n",
		"block/sda/device/model": "TESTDISK\n", "block/sda/device/vpd_pg80": vpd(0x80, " SER1 "),
		"block/sda/device/wwid":    "naa.5000c50012345678\n",
		"block/sda/sda1/partition": "1\n",
		"block/vda/size":           "4096\n", "block/vda/queue/logical_block_size": "4096\n", "block/vda/serial": "v1",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(v), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	disks := list(t, os.DirFS(dir))
	if len(disks) != 2 {
		t.Fatalf("disks are %v", disks)
	}
	a, v := disks[0], disks[1]
	if a.Serial != "SER1" || a.WWN != "naa.5000c50012345678" || a.Size != 1<<20 || a.Path != "" || !slices.Equal(a.Parts, []string{"sda1"}) {
		t.Errorf("sda is %+v", a)
	}
	if v.Serial != "v1" || v.SectorSize != 4096 || v.Transport != "virtio" {
		t.Errorf("vda is %+v", v)
	}
	if a.Transport != "" || a.Removable || v.Removable {
		t.Errorf("the transport of sda is %q; removable are %v and %v", a.Transport, a.Removable, v.Removable)
	}
}

// badFS fails to read what it is told to.
type badFS struct {
	fstest.MapFS
	bad string
}

func (b badFS) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, b.bad) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("input/output error")}
	}
	return b.MapFS.Open(name)
}

func TestListUnreadable(t *testing.T) {
	all := len(list(t, lab().fs()))
	for bad, lost := range map[string]int{"vpd_pg80": 0, "vpd_pg83": 0, "wwid": 0, "removable": 0, "sda/size": 1,
		"vdb/queue/logical_block_size": 1, "serial": 0, "port_no": 0} {
		disks, errs := List(badFS{lab().fs(), bad})
		if len(disks) != all-lost || len(errs) == 0 {
			t.Errorf("%s unreadable: %d disks of %d, errors %v", bad, len(disks), all, errs)
		}
	}
	if _, errs := List(fstest.MapFS{}); len(errs) != 1 {
		t.Errorf("no /sys: errors %v", errs)
	}
}

func TestListHostileText(t *testing.T) {
	tr := lab()
	dev := "devices/pci0000:40/0000:40:01.0/0000:41:00.0/host3/target3:2:0/3:2:0:0/"
	tr[dev+"model"] = "evil\n2026-11-22T08:00:00+00:00: 10.0.0.1: info: \x1b[31m\xff"
	tr[dev+"vpd_pg80"] = vpd(0x80, "A\x00B\n\x07")
	d := find1(t, list(t, tr.fs()), "sdf")
	if strings.ContainsFunc(d.Model+d.Serial, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("model %q, serial %q", d.Model, d.Serial)
	}
	tr["block/sdf"] = "-> ../../../../outside"
	if _, errs := List(tr.fs()); len(errs) == 0 {
		t.Error("a link out of the tree is no error")
	}
}

func TestKnown(t *testing.T) {
	for _, s := range []string{"", "  ", "0", "0000000000", "------", "FFFFFFFFFFFFFFFF", "None", "unknown", "To Be Filled By O.E.M.", "S?1",
		"..."} {
		if got := known(s); got != "" {
			t.Errorf("%q counts as known", s)
		}
	}
	for _, s := range []string{"S1", "WD-1", "QM00001", "0123456789ABCDEF"} {
		if known(s) != s {
			t.Errorf("%q does not count as known", s)
		}
	}
}

func TestListThisMachine(t *testing.T) {
	disks, errs := List(os.DirFS("/sys"))
	if len(disks) == 0 && len(errs) == 0 {
		t.Skip("this machine has no disks")
	}
	number := func(name, attribute string) (n int64) {
		text, err := os.ReadFile("/sys/block/" + name + "/" + attribute)
		must(t, err)
		_, err = fmt.Sscan(string(text), &n)
		must(t, err)
		return n
	}
	seen := map[string]bool{}
	for _, d := range disks {
		if seen[d.Name] {
			t.Errorf("%s is there twice", d.Name)
		}
		seen[d.Name] = true
		if d.Transport == "virtual" {
			continue // loop devices that other tests make, change and take away just now
		}
		if size, sector := number(d.Name, "size")*512, number(d.Name, "queue/logical_block_size"); d.Size != size ||
			int64(d.SectorSize) != sector {
			t.Errorf("%s has %d bytes in sectors of %d, the kernel says %d and %d", d.Name, d.Size, d.SectorSize, size, sector)
		}
	}
	for _, err := range errs {
		t.Log(err)
	}
}

// TestListMultipath: two paths tell which device of dm-multipath holds them. A
// disk of another device-mapper device tells nothing.
func TestListMultipath(t *testing.T) {
	sys := fstest.MapFS{}
	add := func(name, text string) { sys[name] = &fstest.MapFile{Data: []byte(text + "\n")} }
	for _, d := range []string{"sda", "sdb", "sdc", "dm-0", "dm-1"} {
		add("block/"+d+"/size", "2048")
		add("block/"+d+"/queue/logical_block_size", "512")
	}
	add("block/dm-0/dm/uuid", "mpath-3600508b4")
	add("block/dm-1/dm/uuid", "LVM-abc")
	add("block/sda/holders/dm-0/x", "")
	add("block/sdb/holders/dm-0/x", "")
	add("block/sdc/holders/dm-1/x", "")
	disks := list(t, sys)
	for name, want := range map[string]string{"sda": "mpath-3600508b4", "sdb": "mpath-3600508b4", "sdc": "", "dm-0": ""} {
		if d := find1(t, disks, name); d.Multipath != want {
			t.Errorf("%s is held by %q, want %q", name, d.Multipath, want)
		}
	}
}

// TestListSectors: what counts are the sectors by which a disk is addressed, not
// those that it has inside.
func TestListSectors(t *testing.T) {
	for _, c := range []struct {
		what, logical, physical string
		want                    int
	}{{"512n", "512", "512", 512}, {"512e", "512", "4096", 512}, {"4Kn", "4096", "4096", 4096}} {
		disks := list(t, fstest.MapFS{"block/sda/size": {Data: []byte("2048")},
			"block/sda/queue/logical_block_size":  {Data: []byte(c.logical)},
			"block/sda/queue/physical_block_size": {Data: []byte(c.physical)}})
		if disks[0].SectorSize != c.want || disks[0].Size != 1<<20 {
			t.Errorf("a disk of %s has %v", c.what, disks[0])
		}
	}
}
