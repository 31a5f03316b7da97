package imagefs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/imagefs"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// shownOf are the files of a disk that is in a file.
func shownOf(t *testing.T, path string) ([]imagefs.Shown, []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return imagefs.Show(t.Context(), []imagefs.Disk{{File: imagefs.File{Name: "sda", Size: st.Size(), ReaderAt: f}, SectorSize: 512}})
}

func namesOf(shown []imagefs.Shown) (names []string) {
	for _, f := range shown {
		names = append(names, f.Name)
	}
	return names
}

// TestParts mounts a partition and a logical volume of two pieces right from
// the folder, as a person would.
func TestParts(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "losetup", "mount", "umount", "cmp", "sfdisk", "mkfs.ext4", "pvcreate")
	disk, content := ext4(t)
	img := realfs.File(t, 200<<20)
	realfs.Run(t, "sh", "-c", "printf 'label: gpt\\nstart=2048,size=100M,type=lvm\\nsize=40M\\n' | sfdisk -q "+img)
	loop := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--offset", fmt.Sprint(1<<20), "--sizelimit", fmt.Sprint(100<<20),
		img))
	t.Cleanup(func() { realfs.Run(t, "losetup", "-d", loop) })
	vg := "g-1" + filepath.Base(loop)
	config := fmt.Sprintf(`devices { scan_lvs=0 use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" hints="none" global_filter=["a|^%s$|","r|.*|"] } `+
		`global { activation=0 event_activation=0 locking_dir=%q } activation { udev_sync=0 monitoring=0 } backup { backup=0 archive=0 }`, loop,
		t.TempDir())
	for _, line := range []string{"pvcreate LOOP", "vgcreate VG LOOP", "lvcreate -n root -L 16M VG", "lvcreate -n swap -L 8M VG",
		"lvextend -L 32M VG/root"} {
		words := strings.Fields(strings.NewReplacer("LOOP", loop, "VG", vg).Replace(line))
		realfs.Run(t, words[0], append(words[1:], "--config", config)...)
	}
	part := filepath.Join(t.TempDir(), "ext4")
	if err := os.WriteFile(part, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(at, from, n int64) {
		realfs.Run(t, "dd", "of="+img, "if="+part, "status=none", "conv=notrunc", "bs=1M", "seek="+fmt.Sprint(at), "skip="+fmt.Sprint(from),
			"count="+fmt.Sprint(n))
	}
	// The first extent lies 1 MiB into the physical volume, which is 1 MiB into the disk.
	put(2, 0, 16)
	put(2+16+8, 16, 16)
	put(101, 0, 32) // the second partition

	shown, notes := shownOf(t, img)
	want := []string{"sda", "sda-part1", "sda-" + vg + "-root", "sda-" + vg + "-swap", "sda-part2"}
	if got := namesOf(shown); !slices.Equal(got, want) || len(notes) > 0 {
		t.Fatalf("shown are %q, %q; want %q", got, notes, want)
	}
	var files []imagefs.File
	for _, f := range shown {
		files = append(files, f.File)
	}
	m := start(t, t.TempDir(), files...)
	realfs.Run(t, "cmp", part, m.path(want[2]))
	for _, name := range []string{want[2], want[4]} {
		at := t.TempDir()
		realfs.Run(t, "mount", "-o", "loop,ro", m.path(name), at)
		got, err := os.ReadFile(filepath.Join(at, "noise"))
		realfs.Run(t, "umount", at)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("in the file system of %s are %d other bytes, %v", name, len(got), err)
		}
	}
	readAnywhere(t, io.NewSectionReader(shown[2].File, 0, shown[2].Size), disk, 7)
}

// TestNoParts: what has no table, or one that contradicts itself, is shown alone.
func TestNoParts(t *testing.T) {
	testenv.Tools(t, "sfdisk")
	img := realfs.File(t, 64<<20)
	if shown, notes := shownOf(t, img); len(shown) != 1 || len(notes) > 0 {
		t.Errorf("an empty disk shows %q, %q", namesOf(shown), notes)
	}
	realfs.Run(t, "sh", "-c", "printf 'label: gpt\\n2048,8192\\n' | sfdisk -q "+img)
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{512 + 24, 64<<20 - 512 + 24} { // both headers lie about themselves
		if _, err := f.WriteAt([]byte{0x55}, at); err != nil {
			t.Fatal(err)
		}
	}
	if shown, notes := shownOf(t, img); len(shown) != 1 || len(notes) != 1 || !strings.Contains(notes[0], "partitions are not shown") {
		t.Errorf("a broken table shows %q, %q", namesOf(shown), notes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	disk := imagefs.Disk{File: imagefs.File{Name: "sda", Size: 64 << 20, ReaderAt: f}, SectorSize: 512}
	if shown, _ := imagefs.Show(ctx, []imagefs.Disk{disk}); len(shown) != 1 {
		t.Errorf("after an interruption %q are shown", namesOf(shown))
	}
}
