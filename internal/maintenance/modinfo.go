package maintenance

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/kmod"
)

// maxModule is the size in bytes above which a decompressed module is refused.
const maxModule = 64 << 20

// modinfo is what the .modinfo section of a kernel module says.
type modinfo struct {
	depends  []string // modules whose symbols it uses
	softPre  []string // modules or aliases that should be loaded before it
	aliases  []string
	firmware []string // below /lib/firmware
}

// parseModinfo reads a .modinfo section. It has "key=value" strings, each with
// a zero byte at its end (include/linux/moduleinfo.h of the kernel).
func parseModinfo(section []byte) modinfo {
	var info modinfo
	for _, s := range bytes.Split(section, []byte{0}) {
		key, value, _ := strings.Cut(string(s), "=")
		switch key {
		case "depends":
			for _, d := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' }) {
				info.depends = append(info.depends, kmod.Name(d))
			}
		case "softdep":
			info.softPre = append(info.softPre, softPre(value)...)
		case "alias":
			info.aliases = append(info.aliases, value)
		case "firmware":
			info.firmware = append(info.firmware, value)
		}
	}
	return info
}

// softPre returns the names behind "pre:" in a text such as "pre: a b post: c".
// The names behind "post:" are ignored. Such modules only add to a module, and
// none of our drivers has any.
func softPre(value string) []string {
	var names []string
	pre := false
	for _, w := range strings.Fields(value) {
		switch {
		case strings.HasSuffix(w, ":"):
			pre = w == "pre:"
		case pre:
			names = append(names, kmod.Name(w))
		}
	}
	return names
}

// module is the decompressed file of a kernel module, and its modinfo.
type module struct {
	modinfo
	data []byte
}

// readModule reads a .ko file, which newer Debian kernels have compressed. The
// maintenance system gets it decompressed.
func readModule(path string) (*module, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		data, err = decompress(path, data)
	}
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", filepath.Base(path), err)
	}
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", filepath.Base(path), err)
	}
	defer file.Close()
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("kernel module %s has no section .modinfo", filepath.Base(path))
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", filepath.Base(path), err)
	}
	return &module{parseModinfo(info), data}, nil
}

func decompress(path string, data []byte) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".ko":
		return data, nil
	case ".zst":
		dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer dec.Close()
		return dec.DecodeAll(data, nil)
	case ".xz":
		cmd := exec.Command("xz", "-dc")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("is compressed by xz, which is not installed; apt-get install xz-utils")
		}
		return out, err
	}
	return nil, errors.New("is compressed in an unknown way")
}

// kernelTree is the modules of one unpacked kernel.
type kernelTree struct {
	paths   map[string]string // module name to file
	builtin map[string]bool   // modules that are part of the kernel itself
	read    map[string]*module
	crypto  map[string][]string // alias of the crypto interface to modules; nil before indexCrypto
}

// openKernelTree lists the modules below a folder such as
// lib/modules/6.1.0-37-amd64.
func openKernelTree(dir string) (*kernelTree, error) {
	k := &kernelTree{paths: map[string]string{}, builtin: map[string]bool{}, read: map[string]*module{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if name, rest, ok := strings.Cut(d.Name(), ".ko"); ok && (rest == "" || rest[0] == '.') {
			k.paths[kmod.Name(name)] = path
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(k.paths) == 0 {
		return nil, fmt.Errorf("%s has no kernel modules", dir)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	for _, line := range strings.Fields(string(builtin)) {
		name, _, _ := strings.Cut(filepath.Base(line), ".ko")
		k.builtin[kmod.Name(name)] = true
	}
	return k, err
}

// module returns a module, which it reads only once. It is nil if the kernel
// has no module of this name.
func (k *kernelTree) module(name string) (*module, error) {
	path, ok := k.paths[name]
	if !ok || k.read[name] != nil {
		return k.read[name], nil
	}
	m, err := readModule(path)
	if err == nil {
		k.read[name] = m
	}
	return m, err
}

// resolveSoft returns the modules that a word of a soft dependency means. The
// word is the name of a module or an alias such as "crc32c", which several
// algorithms of the crypto interface share. Modules that the kernel does not
// have are left out.
func (k *kernelTree) resolveSoft(word string) ([]string, error) {
	if k.paths[word] != "" {
		return []string{word}, nil
	}
	if k.builtin[word] {
		return nil, nil
	}
	if k.crypto == nil {
		if err := k.indexCrypto(); err != nil {
			return nil, err
		}
	}
	return k.crypto[word], nil
}

func (k *kernelTree) indexCrypto() error {
	k.crypto = map[string][]string{}
	for _, name := range sortedKeys(k.paths) {
		if !strings.Contains(k.paths[name], "/crypto/") || strings.Contains(k.paths[name], "/drivers/") {
			continue
		}
		m, err := k.module(name)
		if err != nil {
			return err
		}
		for _, a := range m.aliases {
			a = kmod.Name(a)
			k.crypto[a] = append(k.crypto[a], name)
		}
	}
	return nil
}
