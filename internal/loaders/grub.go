package loaders

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"testbox-imaging/internal/authenticode"
)

// hasModule says whether a module is built into GRUB. The section "mods" has them one
// behind the other (include/grub/kernel.h): a header with the offset of the first, then for each a
// type, a size with this head, and an ELF file whose section ".modname" has its name.
func hasModule(grub *authenticode.File, name string) bool {
	data, _ := grub.Section("mods")
	const magic = 0x676d696d // GRUB_MODULE_MAGIC
	if len(data) < 24 || binary.LittleEndian.Uint32(data) != magic {
		return false
	}
	at, size := uint64(binary.LittleEndian.Uint32(data[4:])), uint64(binary.LittleEndian.Uint32(data[8:]))
	// On 64-bit machines four bytes fill up before the offset, and both have eight bytes.
	if wide := binary.LittleEndian.Uint64(data[8:]); at == 0 && wide >= 24 {
		at, size = wide, binary.LittleEndian.Uint64(data[16:])
	}
	if size > uint64(len(data)) || at > size {
		return false
	}
	for data = data[at:size]; len(data) >= 8; {
		kind, n := binary.LittleEndian.Uint32(data), uint64(binary.LittleEndian.Uint32(data[4:]))
		if n < 8 || n > uint64(len(data)) {
			return false
		}
		if kind == 0 && moduleName(data[8:n]) == name { // OBJ_TYPE_ELF
			return true
		}
		data = data[n:]
	}
	return false
}

func moduleName(module []byte) string {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return ""
	}
	s := f.Section(".modname")
	if s == nil || s.Size > 256 {
		return ""
	}
	name, err := s.Data()
	if err != nil {
		return ""
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	return string(name)
}
