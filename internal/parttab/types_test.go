package parttab

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

func TestCheckType(t *testing.T) {
	all := strings.Fields(linux + " " + fat + " " + windows)
	for _, c := range []struct{ typ, holds string }{
		{"01", fat}, {"04", fat}, {"06", fat}, {"0b", fat}, {"0c", fat}, {"0e", fat}, {"11", fat}, {"14", fat}, {"16", fat}, {"1b", fat},
		{"1c", fat}, {"1e", fat},
		{"07", "ntfs exfat"}, {"17", "ntfs exfat"}, {"27", "ntfs fat32"}, {"82", "swap"}, {"8e", "LVM2_member"}, {"ef", fat},
		{"83", "ext2 ext3 ext4 xfs btrfs swap LVM2_member"}, {"ea", fat + " ext2 ext3 ext4 xfs btrfs"},
		{"a5", ""}, {"a6", ""}, {"a9", ""}, {"bf", ""}, {"be", ""}, {"fd", ""}, {"da", ""}, {"42", ""}, {"39", ""}, {"ee", ""}, {"05", ""},
		{"0f", ""}, {"85", ""},
		{"00", ""}, {"99", ""}, {"", ""}, {"0C", ""}, {"af", ""}, {"fb", ""}, {"63", ""}, {"81", ""},
		{"0FC63DAF-8483-4772-8E79-3D69D8477DE4", linux}, {"EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", strings.Join(all, " ")},
		{"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", fat}, {"BC13C2FF-59E6-4262-A352-B275FD6F7172", fat + " " + unix},
		{"4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", unix}, {"8484680C-9521-48C6-9C11-B0720656F69E", unix},
		{"2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", ""},
		{"0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "swap"}, {"E6D6D379-F507-44C2-A23C-238F2A3DF928", "LVM2_member"},
		{"A19D880F-05FC-4D3B-A006-743F0F84911E", ""},
		{"DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", "ntfs"}, {"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", ""},
		{"21686148-6449-6E6F-744E-656564454649", ""},
		{"516E7CB6-6ECF-11D6-8FF8-00022D09712B", ""}, {"6A898CC3-1DD2-11B2-99A6-080020736631", ""}, {"7C3457EF-0000-11AA-AA11-00306543ECAC", ""},
		{"CA7D7CCB-63ED-4C53-861C-1742536059CC", ""}, {"E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", ""}, {"0fc63daf-8483-4772-8e79-3d69d8477de4", ""},
		{"00000000-0000-0000-0000-000000000000", ""}, {"12345678-8483-4772-8E79-3D69D8477DE4", ""},
	} {
		for _, fs := range append(all, "", "zfs", "ext", "fat") {
			if err := CheckType(c.typ, fs); (err == nil) != slices.Contains(strings.Fields(c.holds), fs) {
				t.Errorf("%s with %q: %v", c.typ, fs, err)
			}
		}
	}
}

// The lists are long and typed by hand: each type must be spelt as Read spells
// it, have a name, and name only file systems that there are.
func TestTypesAreWellFormed(t *testing.T) {
	hex := regexp.MustCompile(`^[0-9a-f]{2}$`)
	uuid := regexp.MustCompile(`^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`)
	known := strings.Fields(linux + " " + fat + " " + windows + " " + raw)
	for i, types := range []map[string]partType{mbrTypes, gptTypes, gptLinuxTypes} {
		for typ, p := range types {
			form := uuid
			if i == 0 {
				form = hex
			}
			if !form.MatchString(typ) || p.name == "" || TypeName(typ) != p.name {
				t.Errorf("%s: %+v", typ, p)
			}
			for _, fs := range strings.Fields(p.fs) {
				if !slices.Contains(known, fs) {
					t.Errorf("%s holds %q", typ, fs)
				}
			}
		}
	}
	for typ := range gptLinuxTypes {
		if _, twice := gptTypes[typ]; twice {
			t.Errorf("%s stands in two lists", typ)
		}
	}
}

// fdisk's own lists are a second opinion: what it has for Linux must be known
// here, and its names must fit what may be in such a partition.
func TestTypesBesideFdisk(t *testing.T) {
	testenv.Tools(t, "sfdisk")
	for _, kind := range []string{"dos", "gpt"} {
		lines := strings.Split(tool(t, "", "sfdisk", "--list-types", "-X", kind), "\n")
		n := 0
		for _, line := range lines {
			typ, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
			if !ok || typ == "Id" || typ == "0" {
				continue
			}
			if kind == "dos" {
				typ = hexType(mustHex(t, typ))
			}
			n++
			checkBesideFdisk(t, strings.ToUpper(typ), strings.TrimSpace(name))
		}
		if n < 90 {
			t.Errorf("sfdisk lists %d types of %s", n, kind)
		}
	}
}

func mustHex(t *testing.T, s string) byte {
	t.Helper()
	n := strings.Index("0123456789abcdef", s[len(s)-1:])
	if len(s) == 2 {
		n += 16 * strings.Index("0123456789abcdef", s[:1])
	}
	if n < 0 || len(s) > 2 {
		t.Fatalf("%q is no type", s)
	}
	return byte(n)
}

func checkBesideFdisk(t *testing.T, typ, name string) {
	t.Helper()
	if len(typ) == 2 {
		typ = strings.ToLower(typ)
	}
	if TypeName(typ) == "" {
		t.Errorf("%s (%s) is not known", typ, name)
	}
	name = strings.ReplaceAll(name, "exFAT", "")
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
	}
	for fs, want := range map[string]bool{
		"ext4": has("Linux", "basic data", "ChromeOS root", "Ceph OSD", "ONIE boot") &&
			!has("verity", "LVM", "RAID", "swap", "reserved", "raid", "plaintext", "extended", "PA-RISC", "old Linux") || has("extended boot"),
		"fat32": has("FAT", "EFI", "basic data", "extended boot", "Dell", "CTOS", "Compaq", "WinRE") && !has("DRDOS"),
		"ntfs":  has("NTFS", "basic data", "recovery env", "Compaq") && !has("volume set"),
	} {
		if err := CheckType(typ, fs); (err == nil) != want {
			t.Errorf("%s (%s) with %s: %v", typ, name, fs, err)
		}
	}
}
