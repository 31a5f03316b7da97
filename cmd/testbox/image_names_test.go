package main

import (
	"fmt"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
)

// TestNames has a case for each way in which a device is known again, or not.
// A disk is written as KERNEL:SERIAL:PATH:GIB, and with :old if only a backup
// before the last has it.
func TestNames(t *testing.T) {
	for _, c := range []struct{ what, was, is, want string }{
		{"the kernel's names are swapped", "sda:A::1 sdb:B::1", "sda:B::1 sdb:A::1", "sdb sda"},
		{"another machine's names", "sda:A::1 sdb:B::1", "sdx:B::1 sdy:A::1", "sdb sda"},
		{"without serials, by path", "sda::p1:1 sdb::p2:1", "sda::p2:1 sdb::p1:1", "sdb sda"},
		{"one was replaced", "sda:A::1 sdb:B::1", "sda:C::1 sdb:B::1", "sda sdb"},
		{"both were replaced", "sda:A::1 sdb:B::1", "sda:C::1 sdb:D::1", "sda sdb"},
		{"one is new", "sda:A::1", "sdb:A::1 sda:B::2", "sda sdb"},
		{"one is not given", "sda:A::1 sdb:B::1", "sda:B::1", "sdb"},
		{"serials that two disks have", "sda:X::1 sdb:X::2", "sda:X::2 sdb:X::1", "sdb sda"},
		{"nothing but the kernel's names", "sda:::1 sdb:::1", "sda:::1 sdb:::1", "sda sdb"},
		{"nothing but a size", "sda:::1 sdb:::2", "sdc:::2 sdd:::1", "sdb sda"},
		{"nothing at all", "sda:::1 sdb:::1", "sdc:::1 sdd:::1", "refused"},
		{"a serial that came later", "sda:::1", "sdb:A::1", "sda"},
		{"another disk of one box", "sda:A::1", "sdb:B::1", "sdb"},
		{"one is new, and has the name of one that is long gone", "sda:A::1:old sdb:B::1", "sdb:B::1 sda:C::1", "sdb sdc"},
		{"one comes back", "sda:A::1:old sdb:B::1", "sda:B::1 sdb:A::1", "sdb sda"},
	} {
		n := &naming{last: &image.Record{ID: "1", Box: "box"}}
		for f := range strings.FieldsSeq(c.was) {
			kernel, id := parseDisk(t, f)
			d := image.RecordedDisk{Name: kernel, Kernel: kernel, Disk: id}
			last := !strings.HasSuffix(f, ":old")
			if last {
				n.last.Disks = append(n.last.Disks, d)
			}
			n.was = append(n.was, knownDisk{RecordedDisk: &d, traits: traits{file: kernel}, last: last, now: -1})
		}
		for f := range strings.FieldsSeq(c.is) {
			kernel, id := parseDisk(t, f)
			n.disks = append(n.disks, namedDisk{localDisk: &localDisk{path: "/dev/" + kernel, kernel: kernel, identity: id}})
			n.is, n.from, n.why = append(n.is, traits{}), append(n.from, -1), append(n.why, "")
		}
		got := "refused"
		if err := n.settle(); err == nil {
			var names []string
			for _, d := range n.disks {
				names = append(names, d.name)
			}
			got = strings.Join(names, " ")
		}
		if got != c.want {
			t.Errorf("%s: %s, then %s: %s, want %s", c.what, c.was, c.is, got, c.want)
		}
	}
}

func parseDisk(t *testing.T, text string) (kernel string, id image.Identity) {
	t.Helper()
	f := strings.Split(text, ":")
	if _, err := fmt.Sscan(f[3], &id.Size); err != nil {
		t.Fatal(err)
	}
	id.Size, id.SectorSize, id.Serial, id.Path = id.Size<<30, 512, f[1], f[2]
	return f[0], id
}
