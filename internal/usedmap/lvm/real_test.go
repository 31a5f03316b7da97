package lvm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

// real is a disk with which the real LVM works: a file behind a loop device.
// LVM is kept to that device, and from the device mapper, which it needs to
// activate volumes and not for their metadata.
type real struct {
	testing.TB
	img, dev, vg string
	label        string // for pvck, of a label that is not in sector 1
}

func newReal(t testing.TB, size int64, losetup ...string) *real {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "lvm", "losetup")
	r := &real{TB: t, img: realfs.File(t, size)}
	r.dev = strings.TrimSpace(realfs.Run(t, "losetup", append(losetup, "--find", "--show", r.img)...))
	t.Cleanup(func() { realfs.Run(t, "losetup", "-d", r.dev) })
	r.vg = "vg" + filepath.Base(r.dev)
	r.configure(r.dev)
	return r
}

// configure lets LVM see these devices and no others.
func (r *real) configure(devs ...string) {
	r.Helper()
	dir, filter := r.TempDir(), ""
	for _, d := range devs {
		filter += fmt.Sprintf("%q, ", "a|^"+d+"$|")
	}
	filter += `"r|.*|"`
	conf := `config { checks = 0 }
devices {
	scan_lvs = 0
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	md_component_detection = 0
	multipath_component_detection = 0
	hints = "none"
	filter = [ ` + filter + ` ]
	global_filter = [ ` + filter + ` ]
}
global { activation = 0 system_id_source = "lvmlocal" use_lvmlockd = 0 use_lvmpolld = 0 event_activation = 0 locking_dir = "` + dir + `" }
local { system_id = "box-7" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 backup_dir = "` + dir + `" archive_dir = "` + dir + `" }
`
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(conf), 0o600); err != nil {
		r.Fatal(err)
	}
	r.TB.(*testing.T).Setenv("LVM_SYSTEM_DIR", dir)
	r.TB.(*testing.T).Setenv("LVM_SUPPRESS_FD_WARNINGS", "1")
}

// lvm runs commands, a line each; VG and DEV stand for the names.
func (r *real) lvm(commands string) (out string) {
	r.Helper()
	for _, line := range strings.Split(commands, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		for i, w := range words {
			words[i] = strings.NewReplacer("VG", r.vg, "DEV", r.dev).Replace(w)
		}
		if words[0] == "lvcreate" {
			words = append(words, "-an", "-Zn", "-Wn")
		}
		out += realfs.Run(r, words[0], words[1:]...)
	}
	return out
}

func (r *real) read() (*PV, error) {
	r.Helper()
	f, err := os.Open(r.img)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { f.Close() })
	return Read(r.volume(f))
}

func (r *real) volume(f *os.File) *volume.Volume {
	st, err := f.Stat()
	if err != nil {
		r.Fatal(err)
	}
	return volume.New(context.Background(), f, st.Size(), 512, nil)
}

// must reads the disk and compares with LVM itself; it proves that what is
// free is free.
func (r *real) must() *PV {
	r.Helper()
	pv, err := r.read()
	if err != nil {
		r.Fatal(err)
	}
	r.oracle(pv)
	r.survives(pv)
	return pv
}

// oracle asks LVM for every extent of the disk.
func (r *real) oracle(pv *PV) {
	r.Helper()
	field := func(of string) int64 {
		n, err := strconv.ParseInt(of, 10, 64)
		if err != nil {
			r.Fatal(err)
		}
		return n
	}
	line := strings.Fields(out(r, "pvs", "--noheadings", "--units", "b", "--nosuffix", "-o",
		"pe_start,vg_extent_size,pv_pe_count,pv_uuid,vg_name", r.dev))
	start, size := field(line[0]), field(line[1])
	if pv.UUID != line[3] || pv.VG != line[4] || pv.Size != start+size*field(line[2]) {
		r.Errorf("LVM says %v, here is %+v", line, pv)
	}
	free, extents := &volume.Free{}, map[string][]image.Range{}
	for _, l := range strings.Split(strings.TrimSpace(out(r, "pvs", "--segments", "--noheadings", "--separator", ":",
		"-o", "pvseg_start,pvseg_size,lv_name,seg_start_pe,segtype", r.dev)), "\n") {
		f := strings.Split(strings.TrimSpace(l), ":")
		at := image.Range{Off: start + field(f[0])*size, Len: field(f[1]) * size}
		if f[4] == "free" {
			free.Add(at.Off, at.Len)
			continue
		}
		name := strings.Trim(f[2], "[]")
		extents[name] = append(extents[name], at)
		lv := pv.lv(r, name)
		if lv.Why == "" { // the place of each of its extents, from its own address
			if p := lv.Place(field(f[3])*size, at.Len); len(p) != 1 || p[0] != at {
				r.Errorf("LVM has %s from extent %s on at %v, here it is at %v", name, f[3], at, p)
			}
		}
	}
	if got := pv.Free.Ranges(); !slices.Equal(got, free.Ranges()) {
		r.Errorf("free are %v, for LVM %v", got, free.Ranges())
	}
	for _, lv := range pv.LVs {
		if got := joined(lv.Extents); !slices.Equal(got, joined(extents[lv.Name])) {
			r.Errorf("%s has %v, for LVM %v", lv.Name, got, joined(extents[lv.Name]))
		}
	}
	r.list(pv)
}

// list compares the volumes with those that LVM lists: names, UUIDs and sizes.
func (r *real) list(pv *PV) {
	r.Helper()
	var want, got []string
	for _, l := range strings.Split(out(r, "lvs", "-a", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_name,lv_uuid,lv_size", r.vg),
		"\n") {
		if f := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(l)); len(f) > 0 {
			want = append(want, strings.Join(f, " "))
		}
	}
	for _, lv := range pv.LVs {
		if !strings.HasPrefix(lv.Name, "snapshot") { // LVM shows the cow store by its name
			got = append(got, fmt.Sprintf("%s %s %d", lv.Name, lv.UUID, lv.Size))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		r.Errorf("LVM lists %q, here are %q", want, got)
	}
}

func joined(ranges []image.Range) []image.Range {
	var f volume.Free
	for _, r := range ranges {
		f.Add(r.Off, r.Len)
	}
	return f.Ranges()
}

// out runs a program and gives its lines without LVM's warnings.
func out(t testing.TB, name string, args ...string) string {
	t.Helper()
	var lines []string
	for _, l := range strings.Split(realfs.Run(t, name, args...), "\n") {
		if !strings.Contains(l, "WARNING:") {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n")
}

func (pv *PV) lv(t testing.TB, name string) *LV {
	t.Helper()
	for i := range pv.LVs {
		if pv.LVs[i].Name == name {
			return &pv.LVs[i]
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}

// survives puts noise over all that is free: LVM must find all as it was, and
// every volume keep its bytes.
func (r *real) survives(pv *PV) {
	r.Helper()
	if pv.Free.Bytes() == 0 {
		r.Fatal("nothing is free: this proves nothing")
	}
	pvck := "pvck " + r.label + " DEV --dump "
	before, text := r.content(pv), r.lvm(pvck+"metadata")
	realfs.Noise(r, r.img, pv.Free.Ranges())
	if after := r.content(pv); !slices.EqualFunc(before, after, bytes.Equal) {
		r.Error("a volume has other bytes")
	}
	r.lvm("vgck VG")
	if after := r.lvm(pvck + "metadata"); after != text {
		r.Errorf("LVM says\n%s\nand before\n%s", after, text)
	}
	if s := r.lvm(pvck + "headers"); strings.Contains(s, "CHECK") {
		r.Errorf("pvck is not content:\n%s", s)
	}
}

func (r *real) content(pv *PV) (all [][]byte) {
	r.Helper()
	f, err := os.Open(r.img)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	for _, lv := range pv.LVs {
		for _, x := range lv.Extents {
			b := make([]byte, x.Len)
			if _, err := f.ReadAt(b, x.Off); err != nil {
				r.Fatal(err)
			}
			all = append(all, b)
		}
	}
	return all
}
