package efi

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	guidA = "aaaaaaaa-1111-2222-3333-444444444444"
	guidB = "bbbbbbbb-1111-2222-3333-444444444444"
)

// TestPutBack: entries whose partitions were restored come back behind the network, in
// the recorded order. Entries that are there stay as they are.
func TestPutBack(t *testing.T) {
	long := option(1, "long", join(pciRoot, hd(1, 34, 7, guidB), aNode(typeMedia, subFile, utf(`\EFI\b.efi`)), endNode), []byte("data")...)
	recorded := folder(t, map[string][]byte{
		"BootOrder": order(1, 5, 3, 7, 8), "Boot0001": pxe(1), "Boot0003": onDisk(guidA, `\EFI\a.efi`), "Boot0005": long, "Boot0007": shell(),
		"Boot0008": option(1, "whole disk", join(pciRoot, aNode(typeMessaging, subSATA, make([]byte, 6)), endNode)),
		"Boot0009": onDisk(guidA, `\EFI\not in the order.efi`),
	}).State()
	places := map[string]Place{guidA: {2, 4096, 99}, guidB: {1, 40, 1 << 33}}
	for name, c := range map[string]struct {
		vars   map[string][]byte
		places map[string]Place
		want   []Number // the order
		put    []Number
		left   string
	}{
		"both are gone": {vars: map[string][]byte{"BootOrder": order(1, 7), "Boot0001": pxe(1), "Boot0007": shell()},
			places: places, want: []Number{1, 5, 3, 7}, put: []Number{5, 3}},
		"their numbers are taken": {vars: map[string][]byte{"BootOrder": order(5, 3, 0), "Boot0005": pxe(1), "Boot0003": pxe(2),
			"Boot0000": shell()}, places: places, want: []Number{5, 3, 1, 2, 0}, put: []Number{1, 2}},
		"one is there": {vars: map[string][]byte{"BootOrder": order(1, 7, 2), "Boot0001": pxe(1), "Boot0007": shell(),
			"Boot0002": onDisk(guidB, `\efi\B.EFI`)}, places: places, want: []Number{1, 7, 2, 3}, put: []Number{3}},
		"both are there": {vars: map[string][]byte{"BootOrder": order(9, 1), "Boot0001": pxe(1), "Boot0005": long,
			"Boot0003": onDisk(guidA, `\EFI\a.efi`)}, places: places, want: []Number{9, 1, 5, 3}, put: []Number{5, 3}},
		"the firmware does not put the network first": {vars: map[string][]byte{"BootOrder": order(3, 7, 1, 6, 8), "Boot0001": pxe(1),
			"Boot0006": pxe(2), "Boot0007": onDisk(guidB, `\EFI\b.efi`), "Boot0008": shell()}, places: places, want: []Number{3, 7, 1, 6, 0, 8},
			put: []Number{0}},
		"still in the order": {vars: map[string][]byte{"BootOrder": order(1, 7, 3, 5), "Boot0001": pxe(1), "Boot0007": shell()},
			places: places, want: []Number{1, 7, 3, 5}, put: []Number{5, 3}},
		"one disk only": {vars: map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)}, places: map[string]Place{guidA: places[guidA]},
			want: []Number{1, 3}, put: []Number{3}, left: "0005 (long, \\EFI\\b.efi) was not put back: its partition " + guidB},
		"no network": {vars: map[string][]byte{"BootOrder": order(7), "Boot0007": shell()}, places: places,
			want: []Number{5, 3, 7}, put: []Number{5, 3}},
	} {
		d := folder(t, c.vars)
		now := d.State()
		done := d.PutBack(now, recorded, c.places)
		if !slices.Equal(done.Put, c.put) || (c.left == "") != (len(done.Left) == 0) || !strings.Contains(strings.Join(done.Left, " "), c.left) {
			t.Errorf("%s: %+v", name, done)
		}
		after := d.State()
		if !slices.Equal(after.Order, c.want) || !slices.Equal(now.Order, c.want) {
			t.Errorf("%s: the order is %v, and said to be %v", name, after.Order, now.Order)
		}
		for n, b := range c.vars {
			if is, err := d.Read(n, Global); n != "BootOrder" && (err != nil || !bytes.Equal(is, b)) {
				t.Errorf("%s: %s was changed", name, n)
			}
		}
		for _, n := range c.put {
			e := after.Entry(n)
			if was := c.vars["Boot"+n.String()]; was != nil {
				continue // it came back into the order alone
			}
			at := places[e.Partition.GUID]
			if p := e.Partition; p.Number != at.Number || p.Start != at.Start || p.Blocks != at.Blocks || !strings.HasPrefix(e.Path, "HD(") {
				t.Errorf("%s: put back %+v, %+v", name, e, p)
			}
			if e.Partition.GUID == guidB && !bytes.HasSuffix(e.Option, []byte("data")) {
				t.Errorf("%s: the data is lost: %q", name, e.Option)
			}
		}
		if again := d.PutBack(d.State(), recorded, c.places); len(again.Put) > 0 {
			t.Errorf("%s: put back twice: %+v", name, again)
		}
	}
}

// TestPutBackOften: however many images a box gets, and whatever their records say, the memory of the
// firmware is not filled.
func TestPutBackOften(t *testing.T) {
	d := folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)})
	size := func() (n int) {
		s := d.State()
		return s.optionBytes()
	}
	full := false
	for i := range 500 {
		id := fmt.Sprintf("aaaaaaaa-1111-2222-3333-%012x", i)
		recorded := folder(t, map[string][]byte{"BootOrder": order(3), "Boot0003": onDisk(id, `\EFI\debian\shimx64.efi`)}).State()
		done := d.PutBack(d.State(), recorded, map[string]Place{id: {1, 2, 3}})
		if full = len(done.Left) == 1 && strings.Contains(done.Left[0], "efibootmgr"); full {
			break
		}
	}
	if n := size(); !full || n > maxOptions || n < maxOptions/2 {
		t.Errorf("the entries have %d bytes", n)
	}
	// A record that names another partition, or another file, than the bytes of its entry.
	long := join(aNode(typeMedia, subFile, utf(`\x`)), hd(1, 34, 7, guidB), aNode(typeMedia, subFile, utf(`\EFI\b.efi`)), endNode)
	d = folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)})
	recorded := folder(t, map[string][]byte{"BootOrder": order(3, 5), "Boot0003": onDisk(guidA, `\a`), "Boot0005": option(1, "y", long)}).State()
	recorded.Entry(3).Partition.GUID = guidB
	for range 3 {
		done := d.PutBack(d.State(), recorded, map[string]Place{guidA: {}, guidB: {}})
		if s := d.State(); len(s.Entries) != 1 || len(done.Left) != 2 || len(done.Put) > 0 {
			t.Fatalf("%+v, %+v", done, s.Entries)
		}
	}
}

// TestPutBackDamaged: what cannot be put back is told of.
func TestPutBackDamaged(t *testing.T) {
	vars := map[string][]byte{"BootOrder": order(3), "Boot0003": onDisk(guidA, `\a`)}
	places := map[string]Place{guidA: {}}
	for name, c := range map[string]struct {
		spoil func(*Entry)
		want  string
	}{
		"no bytes":     {func(e *Entry) { e.Option = nil }, "not in the backup"},
		"few bytes":    {func(e *Entry) { e.Option = []byte{1} }, "too few"},
		"no name":      {func(e *Entry) { e.Option = bytes.Repeat([]byte{1}, 20) }, "name"},
		"no partition": {func(e *Entry) { e.Option = shell() }, "names no partition"},
		"short partition": {func(e *Entry) { e.Option = option(1, "x", join(aNode(typeMedia, 1, []byte{1}), endNode)) },
			"that cannot be"},
	} {
		recorded := folder(t, vars).State()
		c.spoil(&recorded.Entries[0])
		d := folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)})
		done := d.PutBack(d.State(), recorded, places)
		if len(done.Put) > 0 || len(done.Left) != 1 || !strings.Contains(done.Left[0], c.want) {
			t.Errorf("%s: %+v", name, done)
		}
	}
	recorded := folder(t, vars).State()
	d := folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)})
	now := d.State()
	os.RemoveAll(string(d))
	if done := d.PutBack(now, recorded, places); len(done.Put) > 0 || len(done.Left) != 1 {
		t.Errorf("%+v", done)
	}
	d = folder(t, map[string][]byte{"BootOrder": order(1), "Boot0001": pxe(1)})
	now = d.State()
	path := filepath.Join(string(d), "BootOrder-"+Global)
	os.Remove(path)
	os.Mkdir(path, 0o755)
	done := d.PutBack(now, recorded, places)
	if len(done.Put) != 1 || len(done.Left) != 1 || !strings.Contains(done.Left[0], "not in the boot order") {
		t.Errorf("%+v", done)
	}
}

// TestImmutable: the flag that efivarfs sets on its files is lifted for a write, and set
// again after it.
func TestImmutable(t *testing.T) {
	d := folder(t, map[string][]byte{"BootOrder": order(3, 1), "BootCurrent": order(1), "Boot0001": pxe(1), "Boot0003": onDisk(guidA, `\a`)})
	path := d.path("BootOrder", Global)
	was, err := flags(path)
	if err != nil {
		t.Skipf("the file system has no flags: %v", err)
	}
	if err := setFlags(path, was|immutable); err != nil {
		t.Skipf("the immutable flag cannot be set: %v", err)
	}
	defer setFlags(path, was)
	if n := d.PutNetworkFirst(d.State(), "", nil); n.Result != OrderRepaired {
		t.Errorf("%+v", n)
	}
	if is, err := flags(path); err != nil || is&immutable == 0 {
		t.Errorf("the flags are %x, %v", is, err)
	}
}

func FuzzRelocate(f *testing.F) {
	f.Add(onDisk(guidA, `\a`))
	f.Add(shell())
	f.Fuzz(func(t *testing.T, b []byte) {
		moved, err := relocate(b, Place{3, 4, 5})
		if err != nil {
			return
		}
		was, _ := parseOption(1, b)
		is, _ := parseOption(1, moved)
		if len(moved) > len(b) || is.Partition == nil || is.Name != was.Name {
			t.Fatalf("%+v became %+v", was, is)
		}
	})
}
