package efi

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// The builders make variables by hand, after the UEFI specification.

func utf(s string) (b []byte) {
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func aNode(kind, sub byte, data []byte) []byte {
	b := []byte{kind, sub}
	b = binary.LittleEndian.AppendUint16(b, uint16(4+len(data)))
	return append(b, data...)
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

var endNode = aNode(typeEnd, subEndAll, nil)

func option(attributes uint32, name string, path []byte, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, attributes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	return join(b, utf(name), path, data)
}

func guidBytes(s string) []byte {
	h, _ := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	for _, r := range [][2]int{{0, 4}, {4, 6}, {6, 8}} {
		for i, j := r[0], r[1]-1; i < j; i, j = i+1, j-1 {
			h[i], h[j] = h[j], h[i]
		}
	}
	return h
}

func hd(number uint32, start, blocks uint64, id string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, number)
	b = binary.LittleEndian.AppendUint64(b, start)
	b = binary.LittleEndian.AppendUint64(b, blocks)
	return aNode(typeMedia, subHardDrive, join(b, guidBytes(id), []byte{2, signatureGUID}))
}

func macNode(mac byte) []byte {
	return aNode(typeMessaging, subMAC, append([]byte{0x52, 0x54, 0, 0, 0, mac}, make([]byte, 27)...))
}

var (
	pciRoot = aNode(typeACPI, 1, []byte{0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0})
	pci3    = aNode(typeHardware, subPCI, []byte{0, 3})
	ipv4    = aNode(typeMessaging, subIPv4, make([]byte, 23))
)

const espGUID = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

func pxe(mac byte) []byte {
	return option(1, "UEFI PXEv4", join(pciRoot, pci3, macNode(mac), ipv4, endNode), 0x4e, 0xac)
}

func onDisk(id, file string) []byte {
	return option(1, "debian", join(hd(1, 2048, 100000, id), aNode(typeMedia, subFile, utf(file)), endNode))
}

func shell() []byte {
	volume, file := aNode(typeMedia, subFv, make([]byte, 16)), aNode(typeMedia, subFvFile, make([]byte, 16))
	return option(1, "EFI Internal Shell", join(volume, file, endNode))
}

// a folder of efivarfs that is made up
func folder(t testing.TB, vars map[string][]byte) Dir {
	t.Helper()
	dir := t.TempDir()
	for name, value := range vars {
		if !strings.Contains(name, "-") {
			name += "-" + Global
		}
		put(t, Dir(dir), name, value)
	}
	return Dir(dir)
}

func put(t testing.TB, d Dir, file string, value []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(d), file), append([]byte{7, 0, 0, 0}, value...), 0o644); err != nil {
		t.Fatal(err)
	}
}

func order(list ...Number) (b []byte) {
	for _, n := range list {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	return b
}
