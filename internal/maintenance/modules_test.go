package maintenance

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/kmod"
)

// fakeModule is a small ELF file with a .modinfo section.
func fakeModule(info ...string) []byte {
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const head = 64
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(head + len(modinfo) + len(names)), Ehsize: head, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: head, Size: uint64(len(modinfo))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(head + len(modinfo)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, h)
	b.Write(modinfo)
	b.Write(names)
	binary.Write(&b, binary.LittleEndian, sections)
	return b.Bytes()
}

// fakeTree is a kernel's folder of modules.
func fakeTree(t *testing.T, modules map[string][]string, builtin string) *kernelTree {
	t.Helper()
	dir := t.TempDir()
	for path, info := range modules {
		data := fakeModule(info...)
		if strings.HasSuffix(path, ".zst") {
			enc, _ := zstd.NewWriter(nil)
			data = enc.EncodeAll(data, nil)
		}
		full := filepath.Join(dir, "kernel", path)
		os.MkdirAll(filepath.Dir(full), 0o755)
		if err := os.WriteFile(full, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte(builtin), 0o644)
	tree, err := openKernelTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestSelectModules(t *testing.T) {
	tree := fakeTree(t, map[string][]string{
		"drivers/net/r8169.ko":            {"depends=libphy", "softdep=pre: realtek", "firmware=rtl_nic/a.fw", "alias=pci:v10EC*"},
		"drivers/net/phy/libphy.ko":       {"depends="},
		"drivers/net/phy/realtek.ko.zst":  {"depends=libphy", "alias=mdio:001*"},
		"lib/libcrc32c.ko":                {"softdep=pre: crc32c", "softdep=pre: builtin-one none post: other"},
		"crypto/crc32c_generic.ko":        {"alias=crc32c", "alias=crypto-crc32c"},
		"arch/x86/crypto/crc32c-intel.ko": {"alias=crc32c", "alias=cpu:type:x86,ven*fam*mod*:feature:*0094*"},
		"drivers/crypto/crc32c-other.ko":  {"alias=crc32c"},
		"drivers/net/bnx2x.ko":            {"depends=libcrc32c", "alias=pci:v14E4*"},
		"fs/nfs/nfs.ko":                   {"depends=", "alias=nfs4", "alias=fs-nfs"},
		"drivers/usb/uhci-hcd.ko":         {"softdep=pre: ehci_pci"},
		"drivers/usb/ehci-pci.ko":         {"softdep=pre: uhci-hcd"},
		"drivers/net/unwanted.ko":         {"depends="},
	}, "kernel/drivers/virtio/virtio.ko\nkernel/lib/builtin-one.ko\n")
	s, err := selectModules(tree, []string{"r8169", "virtio", "bnx2x", "gone", "nfs", "uhci_hcd"}, []string{"nfs", "gone"})
	if err != nil {
		t.Fatal(err)
	}
	text := s.table.Marshal()
	want := `testbox-modules 1
module libphy
module realtek libphy
module r8169 realtek libphy
module crc32c_intel
module crc32c_generic
module libcrc32c crc32c_intel crc32c_generic
module bnx2x libcrc32c
module nfs
module ehci_pci
module uhci_hcd ehci_pci
alias mdio:001* realtek
alias pci:v10EC* r8169
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
alias pci:v14E4* bnx2x
load nfs
`
	if string(text) != want {
		// The order of the two crc32c modules is their names'.
		want = strings.NewReplacer("module crc32c_intel\nmodule crc32c_generic\n", "module crc32c_generic\nmodule crc32c_intel\n",
			"crc32c_intel crc32c_generic", "crc32c_generic crc32c_intel").Replace(want)
	}
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if _, err := kmod.Parse(text); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.missing, []string{"gone"}) {
		t.Errorf("missing %v", s.missing)
	}
	if got := s.firmware(); !reflect.DeepEqual(got, map[string][]string{"rtl_nic/a.fw": {"r8169"}}) {
		t.Errorf("firmware %v", got)
	}
}

func TestReadModuleRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"garbage.ko": []byte("not an ELF file"), "garbage.ko.zst": []byte("not zstd"), "unknown.ko.lz9": fakeModule("depends="),
	} {
		path := filepath.Join(dir, name)
		os.WriteFile(path, data, 0o644)
		if m, err := readModule(path); err == nil {
			t.Errorf("%s gave %+v", name, m)
		}
	}
}

func FuzzParseModinfo(f *testing.F) {
	f.Add([]byte("depends=a,b-c\x00softdep=pre: x post: y\x00alias=pci:v1*\x00firmware=a/b\x00"))
	f.Add([]byte("\x00=\x00softdep=pre:pre: post"))
	f.Fuzz(func(t *testing.T, section []byte) {
		info := parseModinfo(section)
		for _, n := range append(info.depends, info.softPre...) {
			if n == "" || strings.Contains(n, "-") {
				t.Fatalf("%q needs %q", section, n)
			}
		}
		if slices.ContainsFunc(info.softPre, func(n string) bool { return strings.HasSuffix(n, ":") }) {
			t.Fatalf("%q wants %q", section, info.softPre)
		}
	})
}

func TestFirmware(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "lib/firmware/rtl_nic"), 0o755)
	os.MkdirAll(filepath.Join(dir, "usr/lib/firmware/tigon"), 0o755)
	os.WriteFile(filepath.Join(dir, "lib/firmware/rtl_nic/a.fw"), []byte("a"), 0o644)
	os.WriteFile(filepath.Join(dir, "usr/lib/firmware/tigon/b.bin"), []byte("b"), 0o644)
	os.Symlink("/etc/passwd", filepath.Join(dir, "lib/firmware/evil.fw"))
	os.Symlink("rtl_nic/a.fw", filepath.Join(dir, "lib/firmware/link.fw"))
	named := map[string][]string{
		"rtl_nic/a.fw": {"r8169"}, "rtl_nic/new.fw": {"r8169"}, "tigon/b.bin": {"tg3"}, "link.fw": {"tg3"},
		"evil.fw": {"bnx2"}, "../../../etc/passwd": {"bnx2"}, "gone*.fw": {"ice"},
	}
	entries, lacking, err := firmwareEntries(dir, named)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.path+"="+string(e.data))
	}
	if want := []string{"lib/firmware/link.fw=a", "lib/firmware/rtl_nic/a.fw=a", "lib/firmware/tigon/b.bin=b"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if note := firmwareNote(named, lacking); !strings.HasPrefix(note, "no firmware for bnx2, ice:") {
		t.Errorf("note %q, lacking %v", note, lacking)
	}
}
