package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/image"
)

const boxAddr = "10.88.0.11"

// prepare makes the disk, the areas and the box.
func (b *bench) prepare() error {
	b.results = map[string]*result{}
	if err := makeDisk(b.disk(), b.dir); err != nil {
		return err
	}
	if err := os.Mkdir(b.path("dev"), 0o755); err != nil {
		return err
	}
	if err := measure.Command("cp", "--sparse=never", b.disk(), b.target()); err != nil {
		return err
	}
	if err := measure.Command(filepath.Join(b.bin, "testbox"), "share", "init", "--server", "10.88.0.1", b.dir); err != nil {
		return err
	}
	if err := b.makeVersion(); err != nil {
		return err
	}
	return b.makeSysfs()
}

// makeVersion makes a maintenance system that nothing boots.
func (b *bench) makeVersion() error {
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: "1.0", Form: bootcfg.FormRAM, Kernel: "6.1.0-37-amd64",
		Built: time.Now().UTC()}
	text, err := v.Marshal()
	if err != nil {
		return err
	}
	dir := filepath.Join("testbox-tftp", bootcfg.MaintDir, v.Version)
	return b.writeFiles(map[string]string{
		filepath.Join("testbox-tftp", v.KernelPath()): "kernel",
		filepath.Join("testbox-tftp", v.InitrdPath()): "initrd",
		filepath.Join(dir, bootcfg.VersionFile):       string(text),
	})
}

// makeSysfs makes what the agent reads of /sys of a box with one disk.
func (b *bench) makeSysfs() error {
	const disk = "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0"
	err := b.writeFiles(map[string]string{
		"proc/cpuinfo":                               "processor\t: 0\n",
		disk + "/model":                              "BENCH\n",
		disk + "/type":                               "0\n",
		disk + "/wwid":                               "naa.5000c500a1b2c301\n",
		disk + "/block/sda/size":                     fmt.Sprintln(diskSize / 512),
		disk + "/block/sda/removable":                "0\n",
		disk + "/block/sda/dev":                      "8:0\n",
		disk + "/block/sda/ro":                       "0\n",
		disk + "/block/sda/queue/logical_block_size": "512\n",
		disk + "/block/sda/queue/zoned":              "none\n",
		"sys/class/dmi/id/product_uuid":              "3e2b7d54-90c1-4f6e-8a55-0c1d2e3f4a5b\n",
	})
	if err != nil {
		return err
	}
	if err := os.Symlink("../..", b.path(disk+"/block/sda/device")); err != nil {
		return err
	}
	if err := os.Mkdir(b.path("sys/block"), 0o755); err != nil {
		return err
	}
	return os.Symlink("../../"+disk+"/block/sda", b.path("sys/block/sda"))
}

func (b *bench) writeFiles(files map[string]string) error {
	for name, text := range files {
		path := b.path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// arm arms the box, and has the loader make a kernel command line of it.
func (b *bench) arm(t tool, action string) error {
	if t.name != "agent" {
		return nil
	}
	conf := b.path("testbox-tftp/pxelinux.cfg")
	if err := measure.Command(filepath.Join(b.bin, "testbox"), "pxe-conf", "-c", conf, boxAddr, action); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(conf, "0A58000B"))
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`(?m)^\s*APPEND\s+(.*)$`).FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("boot file without APPEND:\n%s", text)
	}
	return os.WriteFile(b.path("cmdline"), append(m[1], '\n'), 0o644)
}

// agent is the agent doing what the box is armed for.
func (b *bench) agent() *exec.Cmd {
	return exec.Command(filepath.Join(b.bin, "testbox-maintenance"), "run", "--cmdline", b.path("cmdline"), "--sys", b.path("sys"),
		"--proc", b.path("proc"), "--dev", b.path("dev"), "--tftp", b.path("testbox-tftp"), "--backup", b.path("testbox-backup"),
		"--address", boxAddr, "--host", "bench")
}

// verifyTime is how long the agent's last restore read back.
func (b *bench) verifyTime() (time.Duration, error) {
	text, err := os.ReadFile(b.path("testbox-backup/" + boxAddr + "/last-action.json"))
	if err != nil {
		return 0, err
	}
	var last struct{ Receipts []image.Receipt }
	if err := json.Unmarshal(text, &last); err != nil || len(last.Receipts) != 1 {
		return 0, fmt.Errorf("last-action.json has %d receipts: %v", len(last.Receipts), err)
	}
	for _, st := range last.Receipts[0].Stages {
		if st.Name == "verify" {
			return st.Elapsed, nil
		}
	}
	return 0, fmt.Errorf("last-action.json has no stage verify:\n%s", text)
}
