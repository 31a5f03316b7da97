package inventory

import (
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
)

// namespacePage is the answer to Identify Namespace of a disk with these formats.
func namespacePage(inUse byte, formats ...[4]byte) []byte {
	p := make([]byte, nvmeIdentifyLen)
	binary.LittleEndian.PutUint64(p, 1000)
	p[25], p[26] = byte(len(formats)-1), inUse
	for i, f := range formats {
		copy(p[128+4*i:], f[:])
	}
	return p
}

// TestNamespaces: each NVMe disk says which formats it can have and which one it has.
func TestNamespaces(t *testing.T) {
	of := func(name, transport string, id int) disk.Disk {
		return disk.Disk{Name: name, Transport: transport, Identity: image.Identity{Serial: "S-" + name, NamespaceID: id}}
	}
	disks := []disk.Disk{of("sda", "ata", 0), of("nvme0n1", "nvme", 1), of("nvme1n2", "nvme", 2), of("nvme2n1", "nvme", 1),
		of("nvme3n1", "nvme", 1)}
	list, problems := namespaces(context.Background(), limits{disk: time.Hour}, disks, func(d disk.Disk, what, nsid uint32) ([]byte, error) {
		switch {
		case d.Name == "nvme2n1":
			return nil, errors.New("broken")
		case d.Name == "nvme3n1":
			return namespacePage(7, [4]byte{0, 0, 9, 0}), nil
		case what == nvmeIdentifyActive && d.Name == "nvme0n1":
			return nil, errors.New("too old")
		case what == nvmeIdentifyActive:
			p := make([]byte, nvmeIdentifyLen)
			p[0], p[4] = 1, 2
			return p, nil
		case nsid == 1:
			return namespacePage(0, [4]byte{0, 0, 9, 2}), nil
		}
		return namespacePage(0x21, append(make([][4]byte, 17), [4]byte{8, 0, 12, 1})...), nil
	})
	want := []efi.Namespace{
		{Disk: "nvme0n1", Serial: "S-nvme0n1", ID: 1, Blocks: 1000, Formats: []efi.LBAFormat{{Block: 512, Performance: 2}}},
		{Disk: "nvme1n2", Serial: "S-nvme1n2", ID: 2, Active: []uint32{1, 2}, Blocks: 1000, Format: 17,
			Formats: append(make([]efi.LBAFormat, 17), efi.LBAFormat{Block: 4096, Metadata: 8, Performance: 1})},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("%+v\nwant %+v", list, want)
	}
	if len(problems) != 3 {
		t.Errorf("problems are %v", problems)
	}
	s := &efi.State{Kind: efi.BIOS, NVMe: list}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	inv := &Inventory{Firmware: Firmware{State: s}}
	for _, line := range []string{"NVMe nvme0n1: namespace 1, formats 512+0 (in use)", "namespace 2 of 1 2, formats 4096+8 (in use)"} {
		if text := string(inv.Text()); !strings.Contains(text, line) {
			t.Errorf("the text has no %q:\n%s", line, text)
		}
	}
	if _, problems := Namespaces(context.Background(), t.TempDir(), disks[:2]); len(problems) != 1 {
		t.Errorf("a disk without a node: %v", problems)
	}
}

func FuzzNamespace(f *testing.F) {
	f.Add(namespacePage(0, [4]byte{0, 0, 9, 0}, [4]byte{0, 0, 12, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := efi.Namespace{Disk: "nvme0n1", ID: 1}
		if parseNamespace(b, &n) != nil {
			return
		}
		if s := (&efi.State{Kind: efi.BIOS, NVMe: []efi.Namespace{n}}); s.Check() != nil {
			t.Fatalf("%+v: %v", n, s.Check())
		}
	})
}
