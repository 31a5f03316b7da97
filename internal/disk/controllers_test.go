package disk

import (
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
)

// A controller counts as unready until it has shown what is behind it.
func TestUnready(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	link := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: fs.ModeSymlink} }
	pci := func(class string, more ...string) map[string]*fstest.MapFile {
		m := map[string]*fstest.MapFile{"class": text("0x" + class), "vendor": text("0x8086"), "device": text("0xf1a5")}
		for _, name := range more {
			m[name] = link("../somewhere")
		}
		return m
	}
	for name, c := range map[string]struct {
		dir, linked string
		files       map[string]*fstest.MapFile
		want        string
	}{
		"a network card without a driver": {"bus/pci/devices/0000:00:06.0", "", pci("020000"), "[]"},
		"a SATA controller without a driver": {"bus/pci/devices/0000:00:06.0", "", pci("010601"),
			"[0000:00:06.0 (PCI class 010601, 8086:f1a5) has no driver in this maintenance system]"},
		"a SATA controller": {"bus/pci/devices/0000:00:06.0", "", pci("010601", "driver"), "[]"},
		"an NVMe disk whose driver has only begun": {"bus/pci/devices/0000:00:06.0", "", pci("010802", "driver"),
			"[0000:00:06.0 (PCI class 010802, 8086:f1a5) is not ready yet]"},
		"an NVMe disk": {"bus/pci/devices/0000:00:06.0", "", pci("010802", "driver", "nvme"), "[]"},
		"the real folder is elsewhere": {"devices/pci0000:00/0000:00:06.0", "bus/pci/devices/0000:00:06.0", pci("010400"),
			"[0000:00:06.0 (PCI class 010400, 8086:f1a5) has no driver in this maintenance system]"},
		"a class that is not one": {"bus/pci/devices/0000:00:06.0", "", pci("01"), "[]"},
		"a virtio disk without a driver": {"bus/virtio/devices/virtio1", "", map[string]*fstest.MapFile{"device": text("0x0002")},
			"[virtio1 (virtio disk) has no driver in this maintenance system]"},
		"a virtio SCSI controller with a driver": {"bus/virtio/devices/virtio1", "",
			map[string]*fstest.MapFile{"device": text("0x0008"), "driver": link("../somewhere")}, "[]"},
		"a virtio network card": {"bus/virtio/devices/virtio1", "", map[string]*fstest.MapFile{"device": text("0x0001")}, "[]"},
		"an NVMe controller that is reset": {"class/nvme/nvme0", "", map[string]*fstest.MapFile{"state": text("resetting")},
			"[nvme0 (NVMe controller, resetting) is not ready yet]"},
		"an NVMe controller that is live": {"class/nvme/nvme0", "", map[string]*fstest.MapFile{"state": text("live")}, "[]"},
		"an NVMe controller that is dead": {"class/nvme/nvme0", "", map[string]*fstest.MapFile{"state": text("dead")}, "[]"},
		"nothing":                         {"block", "", nil, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			sys := fstest.MapFS{}
			for file, data := range c.files {
				sys[c.dir+"/"+file] = data
			}
			if c.linked != "" {
				sys[c.linked] = link("../../../" + c.dir)
			}
			if got := fmt.Sprint(Unready(sys)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
