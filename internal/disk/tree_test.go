package disk

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

// tree is a /sys being built. Values that start with "-> " are links.
type tree map[string]string

// fs is the tree as a file system. Text attributes get their line end, as the
// kernel gives them.
func (t tree) fs() fstest.MapFS {
	m := fstest.MapFS{}
	for name, v := range t {
		if to, ok := strings.CutPrefix(v, "-> "); ok {
			m[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
			continue
		}
		if !strings.Contains(name, "vpd_") {
			v += "\n"
		}
		m[name] = &fstest.MapFile{Data: []byte(v), Mode: 0o444}
	}
	return m
}

func (t tree) add(dir string, kv ...string) {
	for i := 0; i < len(kv); i += 2 {
		t[path.Join(dir, kv[i])] = kv[i+1]
	}
}

// block adds a whole disk of so many bytes at devices/..., with its link in
// block/; device is where its device link leads, seen from the disk.
func (t tree) block(dir string, size int64, device string, kv ...string) {
	name := path.Base(dir)
	up := strings.Repeat("../", strings.Count(dir, "/")+1)
	t["block/"+name] = "-> ../" + dir
	t.add(dir, "size", fmt.Sprint(size/512), "removable", "0", "hidden", "0", "ro", "0", "queue/logical_block_size", "512",
		"queue/rotational", "1", "holders/.keep", "", "subsystem", "-> "+up+"class/block")
	if device != "" {
		t[dir+"/device"] = "-> " + device
	}
	t.add(dir, kv...)
}

// scsi adds a SCSI disk below a host's folder ("devices/.../host2") at H:B:T:L.
func (t tree) scsi(host, hbtl, name string, size int64, attrs ...string) string {
	n := strings.Split(hbtl, ":")
	dev := fmt.Sprintf("%s/target%s:%s:%s/%s", host, n[0], n[1], n[2], hbtl)
	t.block(dev+"/block/"+name, size, "../../../"+hbtl)
	t.add(dev, "type", "0", "state", "running", "scsi_level", "6")
	t.add(dev, attrs...)
	return dev + "/block/" + name
}

// vpd is a page of vital product data.
func vpd(code byte, body string) string {
	return string([]byte{0, code}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

// des is a designator of page 83h about the disk itself.
func des(kind byte, id string) string { return string([]byte{1, kind, 0, byte(len(id))}) + id }

func unhex(s string) string {
	var b []byte
	for i := 0; i < len(s); i += 2 {
		var c byte
		fmt.Sscanf(s[i:i+2], "%02x", &c)
		b = append(b, c)
	}
	return string(b)
}

// page89 is ATA information with IDENTIFY's model and serial.
func page89(model, serial string) string {
	id := make([]byte, 512)
	put := func(word, words int, s string) {
		s = fmt.Sprintf("%-*s", 2*words, s)
		for i := 0; i < 2*words; i += 2 {
			id[2*word+i], id[2*word+i+1] = s[i+1], s[i]
		}
	}
	put(10, 10, fmt.Sprintf("%20s", serial)) // serials stand at the right
	put(27, 20, model)
	return vpd(0x89, strings.Repeat("\x00", 56)+string(id))
}

// lab is a /sys with one disk of every kind that boxes have.
func lab() tree {
	t := tree{}
	const gib = 1 << 30

	ahci := "devices/pci0000:00/0000:00:1f.2"
	t.add(ahci+"/ata1/ata_port/ata1", "port_no", "1")
	sda := t.scsi(ahci+"/ata1/host0", "0:0:0:0", "sda", 500*gib, "vendor", "ATA     ", "model", "Samsung SSD 860 ", "wwid",
		"t10.ATA     Samsung SSD 860 EVO 500GB  S3Z2NB0K",
		"vpd_pg80", vpd(0x80, "     S3Z2NB0K123456A"), "vpd_pg83", vpd(0x83,
			des(0, "     S3Z2NB0K123456A")+des(1, "ATA     Samsung SSD 860 EVO 500GB               S3Z2NB0K123456A     ")+des(3,
				unhex("5002538e40a1b2c3"))),
		"vpd_pg89", page89("Samsung SSD 860 EVO 500GB", "S3Z2NB0K123456A"))
	t.add(sda, "sda1/partition", "1", "sda1/size", "2048", "sda10/partition", "10", "sda2/partition", "2", "sdaX/none", "1")
	t.add(ahci+"/ata2/ata_port/ata2", "port_no", "2")
	// port multiplier
	t.scsi(ahci+"/ata2/host1", "1:1:0:0", "sdb", 10*gib, "vendor", "ATA     ", "model", "WDC WD10", "vpd_pg80", vpd(0x80, "WD-PMP1"))

	sas := "devices/pci0000:00/0000:00:02.0/0000:03:00.0/host2"
	end := sas + "/port-2:0/end_device-2:0"
	t.add(sas+"/port-2:0/sas_port/port-2:0", "num_phys", "1")
	t.add(end+"/sas_device/end_device-2:0", "phy_identifier", "3", "sas_address", "0x5000c500aaaaaaaa")
	t.scsi(end, "2:0:0:0", "sdc", 600*gib, "vendor", "SEAGATE ", "model", "ST600MM0006     ",
		"vpd_pg80", vpd(0x80, "S0M1ABCD0000K1234567"), "vpd_pg83",
		vpd(0x83, des(3, unhex("5000c500aaaaaaab"))+string([]byte{1, 0x93, 0, 8})+unhex("5000c500aaaaaaaa")))
	exp := sas + "/port-2:1/expander-2:0"
	t.add(exp+"/sas_device/expander-2:0", "sas_address", "0x5001636000000001")
	t.add(exp+"/port-2:0:7/sas_port/port-2:0:7", "num_phys", "1")
	t.add(exp+"/port-2:0:7/end_device-2:0:7/sas_device/end_device-2:0:7", "phy_identifier", "7", "sas_address", "0x5000c500bbbbbbbb")
	t.scsi(exp+"/port-2:0:7/end_device-2:0:7", "2:0:1:0", "sdd", 600*gib, "model", "ST600MM0006     ")
	t.add(sas+"/port-2:2/sas_port/port-2:2", "num_phys", "4")
	t.add(sas+"/port-2:2/end_device-2:2/sas_device/end_device-2:2", "sas_address", "0x500056b3cccccccc")
	t.scsi(sas+"/port-2:2/end_device-2:2", "2:0:2:300", "sde", 600*gib, "model", "WIDE")

	mega := "devices/pci0000:40/0000:40:01.0/0000:41:00.0/host3"
	t.scsi(mega, "3:2:0:0", "sdf", 2000*gib, "vendor", "DELL    ", "model", "PERC H730 Mini  ", "vpd_pg80",
		vpd(0x80, "00a1b2c3d4e5f60718002ac8a0607086"),
		"vpd_pg83", vpd(0x83, des(3, unhex("6d09466017a9e00018e2f70a0d3f2c11"))))
	t.scsi(mega, "3:2:1:0", "sdg", 2000*gib, "vendor", "DELL    ", "model", "PERC H730 Mini  ", "vpd_pg83",
		vpd(0x83, des(3, unhex("6d09466017a9e00018e2f70a0d3f2c12"))))

	usb := "devices/pci0000:00/0000:00:14.0/usb1/1-4"
	t.add(usb, "serial", "60A44C4138E8", "idVendor", "0951")
	stick := t.scsi(usb+"/1-4:1.0/host4", "4:0:0:0", "sdh", 16*gib, "vendor", "Kingston", "model", "DataTraveler 3.0")
	t.add(stick, "removable", "1")
	t.add("devices/pci0000:00/0000:00:14.0/usb1/1-5/1-5.2", "serial", "000000000000")
	t.scsi("devices/pci0000:00/0000:00:14.0/usb1/1-5/1-5.2/1-5.2:1.0/host5", "5:0:0:0", "sdi", 1000*gib, "vendor", "WD      ", "model",
		"Elements 2620   ",
		"vpd_pg80", vpd(0x80, "WX1234567890"))

	session := "devices/platform/host6/session1"
	t.add(session+"/iscsi_session/session1", "targetname", "iqn.2026-01.lab:lun")
	t.add(session+"/connection1:0/iscsi_connection/connection1:0", "persistent_address", "10.0.0.5", "persistent_port", "3260")
	t.scsi(session, "6:0:0:1", "sdj", 50*gib, "vendor", "LIO-ORG ", "model", "disk0", "vpd_pg83",
		vpd(0x83, des(3, unhex("6001405aaaaaaaaaaaaaaaaaaaaaaaaa"))))
	fc := "devices/pci0000:80/0000:80:02.0/0000:81:00.0/host7/rport-7:0-2"
	t.add(fc+"/target7:0:0/fc_transport/target7:0:0", "port_name", "0x500507680b21ac5d")
	t.scsi(fc, "7:0:0:5", "sdk", 50*gib, "model", "2145")

	hv := "devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/00000000-0000-8899-0000-000000000000/host8"
	t.scsi(hv, "8:0:0:0", "sdl", 127*gib, "vendor", "Msft    ", "model", "Virtual Disk    ", "vpd_pg83",
		vpd(0x83, des(1, "MSFT    \x01\x02\x03")+des(3, unhex("600224801111222233334444aaaabbbb"))))
	vscsi := "devices/pci0000:00/0000:00:05.0/virtio2"
	t.scsi(vscsi+"/host10", "10:0:0:0", "sdm", 20*gib, "vendor", "QEMU    ", "model", "QEMU HARDDISK   ", "vpd_pg83",
		vpd(0x83, string([]byte{2, 0, 0, 11})+"drive-scsi0"))
	t[vscsi+"/host9/scsi_host/host9/state"] = "running" // an older host on the same controller
	t.block("devices/pci0000:00/0000:00:04.0/virtio1/block/vda", 20*gib, "../../../virtio1", "serial", "boot-disk")
	t.block("devices/pci0000:00/0000:00:06.0/virtio3/block/vdb", 20*gib, "../../../virtio3", "serial", "", "queue/logical_block_size", "4096")

	nvme := "devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0"
	t.add(nvme, "model", "INTEL SSDPE2KX010T8                     ", "serial", "PHLJ000000000001    ", "transport", "pcie")
	t.block(nvme+"/nvme0n1", 900*gib, "../../nvme0", "nsid", "1", "wwid", "eui.01000000000000005cd2e4aaaaaaaa01")
	t.block(nvme+"/nvme0n2", 100*gib, "../../nvme0", "nsid", "2", "wwid", "nvme.8086-50484c4a-494e54454c-00000002")
	multi := "devices/virtual/nvme-subsystem/nvme-subsys1"
	path1 := "devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:1b.0/10000:e1:00.0/nvme/nvme1"
	t.add(multi, "model", "Dual", "serial", "DUALPORT1", "nvme1",
		"-> ../../../pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:1b.0/10000:e1:00.0/nvme/nvme1")
	t.add(path1, "transport", "pcie", "model", "Dual", "serial", "DUALPORT1")
	t.block(multi+"/nvme1n1", 800*gib, "../../nvme-subsys1", "nsid", "1", "wwid", "uuid.11111111-2222-3333-4444-555555555555")
	t.block(path1+"/nvme1c1n1", 800*gib, "../../nvme1", "nsid", "1", "hidden", "1")
	tcp := "devices/virtual/nvme-fabrics/ctl/nvme2"
	t.add(tcp, "transport", "tcp", "model", "Linux", "serial", "abcdef")
	t.block(tcp+"/nvme2n1", 800*gib, "../../nvme2", "nsid", "1")

	card := "devices/pci0000:00/0000:00:1c.0/mmc_host/mmc0/mmc0:0001"
	t.add(card, "type", "MMC", "name", "DF4032", "serial", "0x1a2b3c4d")
	t.block(card+"/block/mmcblk0", 32*gib, "../../../mmc0:0001")
	t.add(card+"/block/mmcblk0", "mmcblk0p1/partition", "1")
	for _, area := range []string{"boot0", "boot1", "rpmb", "gp0"} {
		t.block(card+"/block/mmcblk0/mmcblk0"+area, 4<<20, "../../mmcblk0")
	}
	sd := "devices/pci0000:00/0000:00:1c.1/mmc_host/mmc1/mmc1:aaaa"
	t.add(sd, "type", "SD", "name", "SC16G", "serial", "0x00000001")
	t.block(sd+"/block/mmcblk1", 16*gib, "../../../mmc1:aaaa")

	for name, size := range map[string]int64{"loop0": 0, "loop1": gib, "dm-0": gib, "md127": gib, "zram0": gib, "nbd0": gib,
		"ram0": 64 << 20, "bcache0": gib} {
		t.block("devices/virtual/block/"+name, size, "")
	}
	t.add(ahci+"/ata3/ata_port/ata3", "port_no", "3")
	t.scsi(ahci+"/ata3/host11", "11:0:0:0", "sr0", gib, "model", "DVDRAM")
	t.add(ahci+"/ata3/host11/target11:0:0/11:0:0:0/block/sr0", "removable", "1")
	t.scsi(mega, "3:2:9:0", "sdz", 0, "model", "EMPTY")
	return t
}

// find1 is the disk of a name in a list.
func find1(t testing.TB, disks []Disk, name string) Disk {
	t.Helper()
	for _, d := range disks {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no disk %s in %v", name, disks)
	return Disk{}
}
