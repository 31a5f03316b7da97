package lvm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
)

// Physical volumes and groups by all options that change where things are.
func TestReal(t *testing.T) {
	for _, c := range []struct{ pv, vg, losetup string }{
		{},
		{vg: "-s 1k"},
		{vg: "-s 4k"},
		{vg: "-s 128k"},
		{vg: "-s 384k"}, // no power of 2
		{vg: "-s 8m"},
		{losetup: "--sector-size 4096"},
		{pv: "--labelsector 0"},
		{pv: "--labelsector 3"},
		{pv: "--bootloaderareasize 2m"},
		{pv: "--bootloaderareasize 100k --dataalignment 512k"},
		{pv: "--dataalignment 4m --dataalignmentoffset 7s"},
		{pv: "--dataalignment 64k --metadatasize 128k"},
		{pv: "--metadatasize 9m"},
		{pv: "--metadatacopies 2"},
		{pv: "--metadatacopies 2 --metadatasize 3m --bootloaderareasize 1m", vg: "-s 1m"},
		{pv: "--setphysicalvolumesize 60m --yes"},
		{vg: "--systemid box-7 --addtag production --addtag a/b=c --maxlogicalvolumes 50 --maxphysicalvolumes 3 --alloc cling"},
		{vg: "--metadatacopies all --autobackup n --setautoactivation n"},
		{vg: "--vgmetadatacopies 2"},
	} {
		t.Run(strings.TrimSpace(c.pv+" "+c.vg+" "+c.losetup), func(t *testing.T) {
			r := newReal(t, 76<<20+5*4096, strings.Fields(c.losetup)...)
			if sector, ok := strings.CutPrefix(c.pv, "--labelsector "); ok {
				r.label = "--labelsector " + sector
			}
			r.lvm("pvcreate " + c.pv + " DEV\nvgcreate " + c.vg + " VG DEV\nlvcreate -n root -L 8m VG\nlvcreate -n gone -L 8m VG\n" +
				"lvextend -l +3 VG/root\nlvcreate -n home -l 1 VG\nlvremove -f VG/gone")
			pv := r.must()
			for _, lv := range pv.LVs {
				if lv.Why != "" {
					t.Errorf("%s is not looked at: %s", lv.Name, lv.Why)
				}
			}
		})
	}
}

// A group through its life.
func TestRealChanges(t *testing.T) {
	r := newReal(t, 100<<20)
	r.lvm("pvcreate --metadatacopies 2 DEV")
	if pv, err := r.read(); err == nil || pv.Free != nil || pv.UUID == "" {
		t.Error("a volume of no group is no doubt: ", err)
	}
	r.lvm("vgcreate -s 1m VG DEV")
	if pv := r.must(); len(pv.LVs) != 0 {
		t.Error(pv.LVs)
	}
	for _, commands := range []string{
		"lvcreate -n a -l 20 VG\nlvcreate -n b -l 20 VG",
		"lvreduce -f -l 5 VG/a\nlvcreate -n c -l 40 --addtag x VG",
		"lvrename VG a a-new.name+1\nlvchange --permission r VG/b\nlvchange --setactivationskip y VG/c\nlvchange --setautoactivation n VG/c",
		"lvchange -My --major 253 --minor 77 VG/b\nlvchange --readahead 256 VG/b\nlvchange --alloc contiguous VG/c\nlvchange --addtag " +
			"a-new.name+1 VG/b",
		"vgchange --addtag b VG\npvchange --addtag c DEV\npvchange -xn DEV\nvgchange -u VG\npvchange -u DEV",
		"pvchange -xy DEV\nlvcreate -n pv0 -l 3 VG\nlvcreate -n striped -l 2 VG\nlvremove -f VG/b",
		"vgchange --alloc anywhere VG\nlvcreate --type striped --alloc anywhere -n s -i 2 -l 10 VG",
		"vgchange -s 512k VG",
	} {
		r.lvm(commands)
		pv := r.must()
		for _, lv := range pv.LVs {
			if (lv.Why != "") != (lv.Name == "s") {
				t.Errorf("after %q: %s: %q", commands, lv.Name, lv.Why)
			}
		}
	}
	r.lvm("lvremove -f VG/s\nvgexport VG")
	if pv, err := r.read(); err != nil || len(pv.Notes) != 1 || pv.LVs[0].Why != "" {
		t.Error(err, pv)
	}
	r.lvm("vgimport VG\nvgrename VG VGx")
	r.vg += "x"
	r.must()
	// The disk grows, the volume does not until it is told to.
	if err := os.Truncate(r.img, 150<<20); err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "losetup", "-c", r.dev)
	r.must()
	r.lvm("lvremove -f VG\nvgremove VG")
	if pv, err := r.read(); err == nil || pv.Free != nil {
		t.Error("a group that is gone is no doubt: ", err)
	}
}

// The metadata go round their ring many times, larger each time.
func TestRealRing(t *testing.T) {
	r := newReal(t, 64<<20)
	r.lvm("pvcreate --dataalignment 64k --metadatasize 60k DEV\nvgcreate -s 64k VG DEV")
	wrapped := false
	for i := range 40 {
		r.lvm(fmt.Sprintf("lvcreate -n lv%d -l %d VG", i, 1+i%5))
		pv, err := r.read()
		if err != nil || len(pv.LVs) != i+1 {
			t.Fatal(err)
		}
		wrapped = wrapped || strings.Contains(wrap(t, r.img), "wraps")
	}
	r.must()
	if !wrapped {
		t.Error("the text never went over the end of its area: this proves nothing")
	}
}

// wrap says whether the first text goes over its area's end.
func wrap(t *testing.T, img string) string {
	f, _ := realfs.Open(t, img)
	h := make([]byte, 512)
	f.ReadAt(h, 4096)
	le := func(at int) (n uint64) {
		for i := range 8 {
			n |= uint64(h[at+i]) << (8 * i)
		}
		return n
	}
	if le(40)+le(48) > le(32) {
		return "wraps"
	}
	return ""
}

// Groups of several disks, and a disk whose metadata are on others.
func TestRealSeveralDisks(t *testing.T) {
	r, other := newReal(t, 64<<20), newReal(t, 64<<20)
	r.configure(r.dev, other.dev)
	r.lvm("vgcreate VG DEV " + other.dev + "\nlvcreate -n a -L 60m VG")
	for _, disk := range []*real{r, other} {
		if pv, err := disk.read(); err == nil || !strings.Contains(err.Error(), "one of the 2 disks") || pv.VG != r.vg {
			t.Error(err)
		}
	}
	r.lvm("lvreduce -f -L 20m VG/a\nvgreduce VG " + other.dev)
	r.must()
	if _, err := other.read(); err == nil {
		t.Error("a volume of no group is no doubt")
	}
	r.lvm("pvremove " + other.dev + "\npvcreate --metadatacopies 0 " + other.dev + "\nvgextend VG " + other.dev)
	if _, err := other.read(); err == nil || !strings.Contains(err.Error(), "no LVM metadata") {
		t.Error(err)
	}
}

// File systems inside of volumes in pieces: what a volume shows is the file
// system, and it keeps all its files when what is free is noise.
func TestRealFileSystems(t *testing.T) {
	r := newReal(t, 400<<20)
	r.lvm("pvcreate --dataalignmentoffset 3s DEV\nvgcreate -s 4m VG DEV\nlvcreate -n a -l 10 VG\nlvcreate -n b -l 10 VG\nlvcreate -n " +
		"gone -l 7 VG\nlvextend -l +9 VG/a\n" +
		"lvremove -f VG/gone\nlvextend -l +20 VG/b\nlvextend -l +1 VG/a\nlvextend -l +2 VG/b")
	pv := r.must()
	kinds, want := map[string]realfs.Kind{"a": realfs.Ext, "b": realfs.XFS}, map[string]realfs.Files{}
	for name, k := range kinds {
		lv := pv.lv(t, name)
		if len(lv.Extents) < 3 {
			t.Errorf("%s lies in %d pieces: this proves little", name, len(lv.Extents))
		}
		fs := k.Make(t, lv.Size)
		k.Fill(t, fs, 5, lv.Size/3)
		copyTo(t, r.img, fs, lv.Place(0, lv.Size))
		want[name] = k.Files(t, fs)
	}
	realfs.Noise(t, r.img, pv.Free.Ranges())
	again := r.must()
	for name, k := range kinds {
		shown := r.shown(again.lv(t, name))
		k.MustCheck(t, shown)
		if diff := want[name].Diff(k.Files(t, shown)); diff != "" || len(want[name]) < 50 {
			t.Errorf("%s has %d files:\n%s", name, len(want[name]), diff)
		}
	}
}

// shown is a file of what a volume shows.
func (r *real) shown(lv *LV) string {
	r.Helper()
	f, err := os.Open(r.img)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	to := realfs.File(r, lv.Size)
	w, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer w.Close()
	v := lv.Volume(r.volume(f))
	for at := int64(0); at < lv.Size; at += 1 << 20 {
		b, err := v.Bytes(at, 1<<20)
		if err != nil {
			r.Fatal(err)
		}
		if _, err := w.WriteAt(b, at); err != nil {
			r.Fatal(err)
		}
	}
	return to
}

// copyTo copies a file to places of another.
func copyTo(t *testing.T, img, from string, to []image.Range) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range to {
		if _, err := f.WriteAt(data[:r.Len], r.Off); err != nil {
			t.Fatal(err)
		}
		data = data[r.Len:]
	}
	if len(data) != 0 {
		t.Fatalf("%d bytes are left", len(data))
	}
}
