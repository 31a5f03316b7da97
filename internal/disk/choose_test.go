// These tests hold the choice of disks, package match, against disks as they are
// read from sysfs.
package disk_test

import (
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/match"
)

func namesOf(disks []disk.Disk) string {
	var s []string
	for _, d := range disks {
		s = append(s, d.Name)
	}
	return strings.Join(s, " ")
}

func boxDisks(t *testing.T) []disk.Disk {
	t.Helper()
	disks, errs := disk.List(disk.Lab())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return disks
}

func TestChooseAuto(t *testing.T) {
	c, err := match.Choose(boxDisks(t), nil)
	if err != nil || namesOf(c.Disks) != "sda sdb sdc sdd sde sdf sdg sdl sdm vda vdb mmcblk0 nvme0n1 nvme0n2 nvme1n1" {
		t.Errorf("chosen are %s, %v", namesOf(c.Disks), err)
	}
	said := strings.Join(c.Notes, "\n")
	for _, part := range []string{"disk sdh (", "a USB disk", "disk dm-0 ("} {
		if !strings.Contains(said, part) {
			t.Errorf("the notes do not have %q:\n%s", part, said)
		}
	}
	if strings.Contains(said, "loop0") || strings.Contains(said, "sdz") {
		t.Errorf("the notes have what has no size:\n%s", said)
	}
	if c.Named() {
		t.Error("named disks")
	}
}

func TestChooseNamed(t *testing.T) {
	disks := boxDisks(t)
	for items, want := range map[string]string{
		"sda":                                    "sda",
		"/dev/nvme0n2":                           "nvme0n2",
		"vda sda sda /dev/sda":                   "sda vda",
		"sdh":                                    "sdh",
		"/dev/disk/by-id/wwn-0x5002538e40a1b2c3": "sda",
		"disk/by-path/pci-0000:00:1f.2-ata-1":    "sda",
		"by-id/virtio-boot-disk":                 "vda",
		"ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A": "sda",
		"pci-0000:04:00.0-nvme-2":                       "nvme0n2",
		"S3Z2NB0K123456A":                               "sda",
		"naa.6d09466017a9e00018e2f70a0d3f2c12":          "sdg",
		"sda sdx":                                       "sda",
	} {
		sel, err := match.Select(strings.Fields(items))
		if err != nil {
			t.Fatal(err)
		}
		c, err := match.Choose(disks, sel)
		if err != nil || namesOf(c.Disks) != want || !c.Named() {
			t.Errorf("%s: %s, %v; want %s", items, namesOf(c.Disks), err, want)
		}
		if gone := strings.Contains(items, "sdx"); gone != slices.Equal(c.Missing, []string{"sdx"}) ||
			gone != strings.Contains(strings.Join(c.Notes, "\n"), "no disk is called sdx") {
			t.Errorf("%s: missing are %q, notes %q", items, c.Missing, c.Notes)
		}
	}
	for items, part := range map[string]string{
		"sdx":            "none of the named disks (sdx) is there",
		"sda1":           "sda1 is a partition; name its disk, sda",
		"/dev/mmcblk0p1": "is a partition",
		"/dev/disk/by-id/ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456A-part1": "is a partition",
		"PHLJ000000000001": "names more than one disk",
		"sdz":              "has no medium",
	} {
		if c, err := match.Choose(disks, strings.Fields(items)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %s, %v; want an error with %q", items, namesOf(c.Disks), err, part)
		}
	}
	if _, err := match.Choose(nil, nil); err == nil || !strings.Contains(err.Error(), "sees no disk") {
		t.Errorf("no disks at all: %v", err)
	}
}

func TestAuto(t *testing.T) {
	want := map[string]string{
		"sdh": "USB", "sdi": "USB", "sdj": "iSCSI", "sdk": "Fibre Channel", "nvme2n1": "NVMe disk over a network", "mmcblk1": "memory card",
		"mmcblk0boot0": "boot or RPMB", "mmcblk0boot1": "boot or RPMB", "mmcblk0rpmb": "boot or RPMB", "mmcblk0gp0": "boot or RPMB",
		"loop0": "size 0", "loop1": "loop", "dm-0": "device-mapper", "md127": "RAID", "zram0": "ram disk", "nbd0": "network block",
		"ram0":    "ram disk",
		"bcache0": "software", "sr0": "optical", "sdz": "size 0",
	}
	for _, d := range boxDisks(t) {
		auto, why := match.Auto(d)
		if auto != (want[d.Name] == "") || !strings.Contains(why, want[d.Name]) {
			t.Errorf("%s: %v, %q; want %q", d.Name, auto, why, want[d.Name])
		}
	}
	d := disk.Disk{Name: "sda"}
	d.Size = 512
	for _, d.Transport = range []string{"", "ata", "virtio"} {
		if auto, why := match.Auto(d); !auto {
			t.Errorf("a disk on %q is not chosen: %s", d.Transport, why)
		}
	}
	d.Transport, d.Removable = "", true
	if auto, why := match.Auto(d); auto || !strings.Contains(why, "removable") {
		t.Errorf("a removable disk: %v, %q", auto, why)
	}
}
