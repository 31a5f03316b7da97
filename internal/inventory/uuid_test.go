package inventory

import (
	"testing"
	"testing/fstest"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o444} }

func TestMachineUUID(t *testing.T) {
	const (
		table = "firmware/dmi/tables/DMI"
		entry = "firmware/dmi/tables/smbios_entry_point"
		id    = "class/dmi/id/product_uuid"
	)
	withUUID := func(b []byte) *fstest.MapFile { return file(string(smbios(1, systemArea(b), "Maker"))) }
	all := func(v byte) []byte {
		b := make([]byte, 16)
		for i := range b {
			b[i] = v
		}
		return b
	}
	for _, c := range []struct {
		name string
		sys  fstest.MapFS
		want string
	}{
		{"table", fstest.MapFS{table: withUUID(tableUUID), entry: file("_SM3_\x00\x18\x03\x02\x00")}, "00112233-4455-6677-8899-aabbccddeef0"},
		{"table of an old version", fstest.MapFS{table: withUUID(tableUUID), entry: file("_SM_\x00\x1f\x02\x04")},
			"33221100-5544-7766-8899-aabbccddeef0"},
		{"table before product_uuid", fstest.MapFS{table: withUUID(tableUUID), id: file("4C4C4544-0042-3510-8056-B7C04F4E3732\n")},
			"00112233-4455-6677-8899-aabbccddeef0"},
		{"product_uuid in capitals", fstest.MapFS{id: file("4C4C4544-0042-3510-8056-B7C04F4E3732\n")}, "4c4c4544-0042-3510-8056-b7c04f4e3732"},
		{"table without a system, product_uuid", fstest.MapFS{table: file(string(endMarker)),
			id: file("4c4c4544-0042-3510-8056-b7c04f4e3732\n")}, "4c4c4544-0042-3510-8056-b7c04f4e3732"},
		{"damage behind the system", fstest.MapFS{table: file(string(smbios(1, systemArea(tableUUID), "Maker")) + "\x02\x01\x00\x00")},
			"00112233-4455-6677-8899-aabbccddeef0"},
		{"zeros and a MAC are real", fstest.MapFS{id: file("00000000-0000-0000-0000-ac1f6b123456")}, "00000000-0000-0000-0000-ac1f6b123456"},
		{"nothing", fstest.MapFS{}, ""},
		{"all zeros", fstest.MapFS{table: withUUID(all(0))}, ""},
		{"all ones", fstest.MapFS{table: withUUID(all(0xff))}, ""},
		{"one byte repeated", fstest.MapFS{table: withUUID(all(0x58))}, ""},
		{"filled up with ones", fstest.MapFS{id: file("56F49712-FFFF-FFFF-FFFF-FFFFFFFFFFFF")}, ""},
		{"sample value", fstest.MapFS{id: file("03000200-0400-0500-0006-000700080009")}, ""},
		{"sample value in the other order", fstest.MapFS{id: file("00020003-0004-0005-0006-000700080009")}, ""},
		{"blank service tag", fstest.MapFS{id: file("4c4c4544-0000-2010-8020-80c04f202020")}, ""},
		{"no UUID", fstest.MapFS{id: file("Not Settable")}, ""},
		{"dashes at other places", fstest.MapFS{id: file("4c4c45440-042-3510-8056-b7c04f4e3732")}, ""},
	} {
		uuid, known := MachineUUID(c.sys)
		if uuid != c.want || known != (c.want != "") {
			t.Errorf("%s: UUID %q, known %v; want %q", c.name, uuid, known, c.want)
		}
	}
}

func TestSharedUUIDsAreCanonical(t *testing.T) {
	for _, s := range sharedUUIDs {
		if RealUUID(s) {
			t.Errorf("%s is taken for real", s)
		}
		if last := s[:len(s)-1] + "e"; len(s) != 36 || !RealUUID(last) {
			t.Errorf("%s is not spelled canonically", s)
		}
	}
}
