package inventory

import (
	"context"
	"encoding/hex"
	"io/fs"
	"slices"
	"strings"
)

// MachineUUID returns the UUID by which a restore recognizes the machine that
// was backed up. It is that of SMBIOS type 1, in canonical spelling and lower
// case. known is false if there is none, or if many machines are known to share
// it.
func MachineUUID(sys fs.FS) (uuid string, known bool) {
	g := &guard{ctx: context.Background(), limit: defaultLimits.file}
	return machineUUID(tree{sys, "/sys", g})
}

// machineUUID prefers the table itself to product_uuid, because kernels have
// changed the spelling of product_uuid (capitals, byte order).
func machineUUID(sys tree) (string, bool) {
	dmi, _ := readDMI(sys) // if the table is damaged, the part before that counts
	uuid := dmi.System.UUID
	if uuid == "" {
		uuid = strings.ToLower(sys.attr("class/dmi/id/product_uuid"))
	}
	if !RealUUID(uuid) {
		return "", false
	}
	return uuid, true
}

// sharedUUIDs were seen on many different machines, as management products
// report. They are of boards that left the factory with the sample value, in
// both byte orders, and of Dell boards whose service tag was never set.
var sharedUUIDs = []string{
	"00020003-0004-0005-0006-000700080009",
	"03000200-0400-0500-0006-000700080009",
	"07090201-0103-0301-0807-060504030201",
	"01020304-0506-0708-090a-0b0c0d0e0f10",
	"00010203-0405-0607-0809-0a0b0c0d0e0f",
	"12345678-1234-5678-90ab-cddeefaabbcc",
	"12345678-1234-1234-1234-123456789abc",
	"00112233-4455-6677-8899-aabbccddeeff",
	"11111111-2222-3333-4444-555555555555",
	"4c4c4544-0000-2010-8020-80c04f202020",
	"dc698397-fa54-4cf2-82c8-b1b5307a6a7f",
	"8e275844-178f-44a8-aceb-a7d7e5178c63",
	"890e2d14-cacd-45d1-ae66-bc80e8bfeb0f",
}

// RealUUID reports whether s is the spelling of a UUID that can tell machines
// apart. All zeros means not present, and all ones not set (DSP0134). A value
// is only a filler if it repeats one byte, or has nothing but ones behind its
// first six bytes.
func RealUUID(s string) bool {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || s != formatUUID(b, false) {
		return false
	}
	uniform := func(b []byte) bool { return strings.Count(string(b), string(b[:1])) == len(b) }
	if uniform(b) || b[15] == 0xff && uniform(b[6:]) {
		return false
	}
	return !slices.Contains(sharedUUIDs, s)
}
