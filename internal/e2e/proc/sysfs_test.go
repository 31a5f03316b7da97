package proc

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeSysfs makes what the agent reads of /sys for these disks: SATA disks on
// one AHCI controller, as Linux shows them, with symbolic links and all.
func writeSysfs(t testing.TB, sys, uuid string, disks []*testDisk) {
	t.Helper()
	tree := map[string]string{
		"class/dmi/id/product_uuid":                 uuid,
		"class/dmi/id/sys_vendor":                   "Testbox Works",
		"class/dmi/id/product_name":                 "Model T",
		"devices/pci0000:00/0000:00:1f.2/class":     "0x010601",
		"devices/pci0000:00/0000:00:1f.2/vendor":    "0x8086",
		"devices/pci0000:00/0000:00:1f.2/device":    "0x2922",
		"kernel/mm/transparent_hugepage/enabled":    "always [madvise] never",
		"devices/system/cpu/online":                 "0-1",
		"firmware/memmap/0/type":                    "System RAM",
		"devices/pci0000:00/0000:00:1f.2/driver":    "-> ../../../bus/pci/drivers/ahci",
		"bus/pci/drivers/ahci/bind":                 "",
		"devices/pci0000:00/0000:00:1f.2/subsystem": "-> ../../../bus/pci",
		"bus/pci/devices/0000:00:1f.2":              "-> ../../../devices/pci0000:00/0000:00:1f.2",
		"bus/scsi/uevent":                           "",
		"class/block/uevent":                        "",
	}
	for _, d := range disks {
		d.sysfs(tree)
	}
	for name, text := range tree {
		path := filepath.Join(sys, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, link := strings.CutPrefix(text, "-> "); link {
			must(t, os.Symlink(to, path))
			continue
		}
		if !strings.HasPrefix(filepath.Base(name), "vpd_") { // these are binary
			text += "\n"
		}
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// sysfs adds a disk to the tree; a text "-> X" is a symbolic link.
func (d *testDisk) sysfs(tree map[string]string) {
	host := fmt.Sprintf("devices/pci0000:00/0000:00:1f.2/ata%d/host%d", d.port, d.port-1)
	addr := fmt.Sprintf("%d:0:0:0", d.port-1)
	device := fmt.Sprintf("%s/target%d:0:0/%s", host, d.port-1, addr)
	block := device + "/block/" + d.name
	add := func(dir string, kv ...string) {
		for i := 0; i < len(kv); i += 2 {
			tree[dir+"/"+kv[i]] = kv[i+1]
		}
	}
	add(fmt.Sprintf("devices/pci0000:00/0000:00:1f.2/ata%d/ata_port/ata%d", d.port, d.port), "port_no", fmt.Sprint(d.port))
	add(block, "size", fmt.Sprint(d.size/512), "dev", fmt.Sprintf("8:%d", 16*(d.name[2]-'a')), "ro", "0", "device", "-> ../../../"+addr,
		"removable", map[bool]string{true: "1", false: "0"}[d.removable], "range", "16", "capability", "50", "hidden", "0",
		"subsystem", "-> "+strings.Repeat("../", strings.Count(block, "/")+1)+"class/block")
	add(block+"/queue", "logical_block_size", fmt.Sprint(d.sector), "physical_block_size", fmt.Sprint(d.sector), "rotational", "1", "zoned",
		"none")
	add(device, "model", fmt.Sprintf("%-16s", d.model), "vendor", "ATA     ", "rev", "1.0 ", "type", "0", "state", "running",
		"subsystem", "-> "+strings.Repeat("../", strings.Count(device, "/")+1)+"bus/scsi")
	if d.wwn != "" {
		add(device, "wwid", "naa."+d.wwn)
	}
	if d.serial != "" {
		tree[device+"/vpd_pg80"] = string([]byte{0, 0x80, 0, byte(len(d.serial))}) + d.serial
	}
	if id, err := hex.DecodeString(d.wwn); err == nil && len(id) == 8 {
		tree[device+"/vpd_pg83"] = string([]byte{0, 0x83, 0, 12, 1, 3, 0, 8}) + string(id)
	}
	tree["block/"+d.name] = "-> ../" + block
	tree["class/block/"+d.name] = "-> ../../" + block
	for _, p := range d.parts {
		name := fmt.Sprintf("%s%d", d.name, p.number)
		add(block+"/"+name, "partition", fmt.Sprint(p.number), "start", fmt.Sprint(p.off/512), "size", fmt.Sprint(p.size/512), "ro", "0",
			"dev", fmt.Sprintf("8:%d", 16*int(d.name[2]-'a')+p.number))
	}
}
