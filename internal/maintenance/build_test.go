package maintenance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/kmod"
	"testbox-imaging/internal/testenv"
)

// etcWithBrokenSource is this machine's apt sources and one that nobody answers for.
func etcWithBrokenSource(t *testing.T) string {
	t.Helper()
	etc := t.TempDir()
	os.MkdirAll(filepath.Join(etc, "sources.list.d"), 0o755)
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, _ := filepath.Glob(filepath.Join("/etc/apt", pattern))
		for _, f := range found {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel("/etc/apt", f)
			os.WriteFile(filepath.Join(etc, rel), data, 0o644)
		}
	}
	broken := "deb [trusted=yes] http://127.0.0.1:1/third-party none main\n"
	if err := os.WriteFile(filepath.Join(etc, "sources.list.d", "broken.list"), []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	return etc
}

// TestBuild builds the real thing twice and holds it against the kernel's own tools:
//
//	host's apt sources + a broken one -> Build -> TFTP area -> cpio, depmod, modprobe
func TestBuild(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "apt-get", "dpkg-deb", "depmod", "modprobe", "cpio")
	tftp := t.TempDir()
	cache, err := DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{TFTP: tftp, Agent: testenv.Build(t, "cmd/testbox-maintenance"), Etc: etcWithBrokenSource(t), Say: t.Logf}
	r, err := Build(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "127.0.0.1:1") }) {
		t.Errorf("nothing is said of the broken source: %q", r.Notes)
	}
	dir := filepath.Join(tftp, bootcfg.MaintDir, r.Version.Version)
	if size := fileSize(t, dir, bootcfg.KernelFile) + fileSize(t, dir, bootcfg.InitrdFile); size != r.Size || size >= 30e6 {
		t.Errorf("kernel and initrd have %d bytes, the result says %d", size, r.Size)
	}
	root := unpackInitrd(t, filepath.Join(dir, bootcfg.InitrdFile))
	table := readTable(t, root)
	checkModules(t, root, table, unpackKernel(t, cache, r.Version.Kernel), r.Version.Kernel)
	checkContent(t, root, table, opt.Agent)

	again, err := Build(t.Context(), opt)
	if err != nil || !again.Existed || again.Version != r.Version {
		t.Errorf("a second build gave %+v, %v; want the same version", again, err)
	}
	noTemp(t, tftp)
	nothingLeft(t, cache)
}

// nothingLeft checks that builds left nothing in the cache. While it looks, no
// build of another process works there.
func nothingLeft(t *testing.T, cache string) {
	t.Helper()
	lock, err := os.Open(filepath.Join(cache, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := waitLock(t.Context(), lock, cache); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, workPrefix+"*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func fileSize(t *testing.T, dir, name string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func unpackInitrd(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxWindow(8<<20)) // the kernel's limit
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-idm", "--no-absolute-filenames", "--quiet")
	cmd.Dir, cmd.Stdin = dir, dec
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func readTable(t *testing.T, root string) *kmod.Table {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "lib/modules/modules.table"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := kmod.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// unpackKernel unpacks the downloaded kernel and lets depmod look at it.
func unpackKernel(t *testing.T, cache, release string) string {
	t.Helper()
	dir := t.TempDir()
	debs, _ := filepath.Glob(filepath.Join(cache, "debs", "linux-*"+release+"_*.deb"))
	if len(debs) == 0 {
		t.Fatal("the kernel is not in the cache")
	}
	for _, args := range [][]string{{"dpkg-deb", "-x", debs[len(debs)-1], dir}, {"depmod", "-b", dir, release}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return dir
}

// checkModules asks modprobe what each driver needs: all of it is there, and
// in the table before the driver.
func checkModules(t *testing.T, root string, table *kmod.Table, kernel, release string) {
	t.Helper()
	tree, err := openKernelTree(filepath.Join(kernel, "lib/modules", release))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range drivers {
		if tree.paths[name] == "" {
			t.Logf("kernel %s has no module %s", release, name)
			continue
		}
		out, err := exec.Command("modprobe", "-C", "/dev/null", "-D", "-S", release, "-d", kernel, name).CombinedOutput()
		if err != nil {
			t.Errorf("modprobe -D %s: %v\n%s", name, err, out)
			continue
		}
		order := table.Order(name)
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			f := strings.Fields(line) // "insmod /.../x.ko" or "builtin x"
			if len(f) < 2 || f[0] != "insmod" {
				continue
			}
			need := kmod.Name(strings.TrimSuffix(filepath.Base(f[1]), ".ko"))
			if !slices.Contains(order, need) {
				t.Errorf("%s needs %s; the table has %v", name, need, order)
			}
			if _, err := os.Stat(filepath.Join(root, "lib/modules", need+".ko")); err != nil {
				t.Errorf("%s needs %s: %v", name, need, err)
			}
		}
	}
}

func checkContent(t *testing.T, root string, table *kmod.Table, agent string) {
	t.Helper()
	want, _ := os.ReadFile(agent)
	if got, err := os.ReadFile(filepath.Join(root, "init")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("/init is not the agent: %v", err)
	}
	for _, path := range []string{"usr/share/misc/pci.ids", "dev/console", "proc", "sys", "lib/modules/e1000e.ko",
		"lib/firmware/rtl_nic/rtl8168h-2.fw", "lib/firmware/tigon/tg3.bin", "lib/firmware/bnx2/bnx2-mips-06-6.2.3.fw"} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	if !slices.Contains(table.Load, "nfsv3") {
		t.Errorf("loaded at each start: %v", table.Load)
	}
	for alias, want := range map[string]string{
		"pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00": "e1000e",
		"pci:v000010ECd00008168sv00001043sd00008677bc02sc00i00": "r8169",
		"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01": "ahci",
		"pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02": "nvme",
		"virtio:d00000001v00001AF4":                             "virtio_net",
		"scsi:t-0x00":                                           "sd_mod",
		"usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00":     "usb_storage",
		"pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00": "i6300esb",
		"platform:iTCO_wdt":                                     "iTCO_wdt",
		"vmbus:635161f83edfc546913ff2d2f965ed0e":                "hv_netvsc",
	} {
		if got := table.Match(alias); !slices.Contains(got, want) {
			t.Errorf("%s wants %s, the table says %v", alias, want, got)
		}
	}
}
