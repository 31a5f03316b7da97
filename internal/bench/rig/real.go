package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// RealAgent is the real agent, started with these words in a box that has one disk,
// which is a file. dir is a folder for what the agent sees of the box.
func RealAgent(agent, dir, words, disk string) (*exec.Cmd, error) {
	st, err := os.Stat(disk)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	const device = "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0"
	for name, text := range map[string]string{
		"proc/cpuinfo":                                 "processor\t: 0\n",
		device + "/model":                              "BENCH\n",
		device + "/type":                               "0\n",
		device + "/wwid":                               "naa.5000c500a1b2c301\n",
		device + "/block/sda/size":                     fmt.Sprintln(st.Size() / 512),
		device + "/block/sda/removable":                "0\n",
		device + "/block/sda/dev":                      "8:0\n",
		device + "/block/sda/ro":                       "0\n",
		device + "/block/sda/queue/logical_block_size": "512\n",
		device + "/block/sda/queue/rotational":         "0\n",
		device + "/block/sda/queue/zoned":              "none\n",
		"sys/class/dmi/id/product_uuid":                "3e2b7d54-90c1-4f6e-8a55-0c1d2e3f4a5b\n",
		"cmdline":                                      words + " BOOTIF=01-52-54-00-12-34-56\n",
		"run/none":                                     "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]string{
		device + "/block/sda/device": "../..",
		"sys/block/sda":              "../../" + device + "/block/sda",
		"dev/sda":                    disk,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.Symlink(to, path); err != nil {
			return nil, err
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Chmod(at("run"), 0o700); err != nil {
		return nil, err
	}
	return exec.Command("setpriv", "--bounding-set=-sys_boot", agent, "run", "--cmdline", at("cmdline"), "--sys", at("sys"),
		"--proc", at("proc"), "--dev", at("dev"), "--run", at("run"), "--host", "bench"), nil
}
