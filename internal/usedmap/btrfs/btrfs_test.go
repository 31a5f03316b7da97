package btrfs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// kind is a Btrfs that is mounted with these options.
func kind(options string) realfs.Kind {
	k := realfs.Btrfs
	k.Partclone = ""
	k.Mount = []string{"mount", "-o", strings.TrimSuffix("loop,"+options, ","), "IMG", "DIR"}
	return k
}

// in runs a command in the shell with its folder at dir, which must succeed.
func in(t testing.TB, dir, script string) string {
	t.Helper()
	return realfs.Run(t, "sh", "-ec", "cd '"+dir+"'; PATH=$PATH:/usr/sbin; "+script)
}

// shows fails the test unless a tree has the words: that the test did what it
// was meant to do.
func shows(t testing.TB, img, tree, words string) {
	t.Helper()
	if !strings.Contains(dumpTree(t, img, tree), words) {
		t.Fatalf("the %s tree has no %q", tree, words)
	}
}

// prove proves the map of an image: noise over what is free harms nothing, and
// the map is exactly what btrfs-progs reads of the same trees.
//
// partclone.btrfs 0.3.23 is no oracle: it takes the logical addresses of file
// extents for places of the device, and keeps one copy of two.
func prove(t testing.TB, k realfs.Kind, img string) {
	t.Helper()
	found, _ := k.Prove(t, img, Read)
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB of %d are used", (st.Size()-found.Free.Bytes())>>10, st.Size()>>10)
	if uuid := strings.TrimSpace(realfs.Run(t, "blkid", "-p", "-o", "value", "-s", "UUID", img)); found.UUID != uuid || found.FS != "btrfs" {
		t.Errorf("it is %s %s, blkid says %s", found.FS, found.UUID, uuid)
	}
	keep := ""
	if len(found.Notes) > 0 {
		t.Log(found.Notes)
		keep = "METADATA"
	}
	if want := oracle(t, img, keep); !slices.Equal(found.Free.Ranges(), want) {
		t.Errorf("free is\n%v\nbtrfs-progs says\n%v", found.Free.Ranges(), want)
	}
}

// Every way to make one, aged.
func TestMkfs(t *testing.T) {
	for _, c := range []struct {
		mkfs, mount string
		size        int64
	}{
		{"", "", 300 << 20},
		{"-d dup -m single -n 4096 --csum xxhash", "compress=zstd", 300 << 20},
		{"-M -n 4096 --csum sha256 -L a-label", "compress-force=lzo", 200 << 20},
		{"-M -n 4096", "nodatacow", 17 << 20},
		{"-m dup -n 65536 --csum blake2 -O ^no-holes,^skinny-metadata,^extref,raid56 -R ^free-space-tree", "space_cache=v1", 300 << 20},
		{"-n 8192 -O ^skinny-metadata -R quota -U 01234567-89ab-cdef-0123-456789abcdef", "discard=sync,commit=1", 257<<20 + 12345},
		{"-n 32768 -b 250M", "ssd,autodefrag", 300 << 20},
		{"-m single", "nodatasum", 1 << 40},
	} {
		t.Run(c.mkfs+" "+c.mount, func(t *testing.T) {
			testenv.Root(t)
			k := kind(c.mount)
			img := k.Make(t, c.size, strings.Fields(c.mkfs)...)
			k.Fill(t, img, 1, min(c.size/5, 40<<20))
			prove(t, k, img)
			if strings.Contains(c.mkfs, "dup") {
				scrub(t, k, img)
			}
		})
	}
}

// scrub lets Linux read all copies of everything, with noise over what is free.
func scrub(t testing.TB, k realfs.Kind, img string) {
	t.Helper()
	found, err := realfs.Map(t, img, Read)
	if err != nil {
		t.Fatal(err)
	}
	noised := realfs.Copy(t, img)
	realfs.Noise(t, noised, found.Free.Ranges())
	k.Mounted(t, noised, func(dir string) {
		if out := in(t, dir, "btrfs scrub start -B ."); !strings.Contains(out, "no errors found") {
			t.Error(out)
		}
	})
}

// A file system made by mkfs alone, with files.
func TestRootdir(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	in(t, dir, `mkdir -p a/b; head -c 3000000 /dev/urandom >a/f; head -c 900 /dev/urandom >a/b/small; for i in $(seq 300); do echo $i >a/b/$i; done`)
	k := kind("")
	for _, shrink := range []string{"-q", "--shrink"} {
		img := realfs.File(t, 300<<20)
		k.Format(t, img, "--rootdir", dir, shrink)
		prove(t, k, img)
	}
}

// Sectors larger than a page of this machine, which Linux does not mount here.
// Small files would be in line, where btrfs restore 6.2 aborts.
func TestSectors(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	in(t, dir, `head -c 3000000 /dev/urandom >f; for i in $(seq 100); do head -c $((70000+i*99)) /dev/urandom >$i; done`)
	for _, options := range []string{"-s 16384", "-s 65536 -n 65536 -d dup"} {
		k := kind("")
		img := realfs.File(t, 300<<20)
		k.Format(t, img, append([]string{"--rootdir", dir}, strings.Fields(options)...)...)
		found, err := realfs.Map(t, img, Read)
		if err != nil {
			t.Fatal(err)
		}
		if want := oracle(t, img, ""); !slices.Equal(found.Free.Ranges(), want) {
			t.Errorf("free is\n%v\nbtrfs-progs says\n%v", found.Free.Ranges(), want)
		}
		realfs.Noise(t, img, found.Free.Ranges())
		k.MustCheck(t, img)
		restored := t.TempDir()
		realfs.Run(t, "btrfs", "restore", img, restored)
		realfs.Run(t, "diff", "-r", dir, restored)
	}
}

// An ext4 that was converted; its image is a file, and what was free in it has
// no extent.
func TestConverted(t *testing.T) {
	testenv.Root(t)
	for _, options := range []string{"", "-N 4096"} {
		img := realfs.Ext.Make(t, 300<<20, "-b", "4096")
		realfs.Ext.Fill(t, img, 3, 30<<20)
		want := realfs.Ext.Files(t, realfs.Copy(t, img))
		realfs.Run(t, "btrfs-convert", append(strings.Fields(options), img)...)
		prove(t, kind(""), img)
		found, err := realfs.Map(t, img, Read)
		if err != nil {
			t.Fatal(err)
		}
		// It can still go back.
		realfs.Noise(t, img, found.Free.Ranges())
		realfs.Run(t, "btrfs-convert", "-r", img)
		realfs.Ext.MustCheck(t, img)
		if diff := want.Diff(realfs.Ext.Files(t, img)); diff != "" {
			t.Error("what was converted back differs:\n" + diff)
		}
	}
}

// What is not one whole file system makes doubt.
func TestNotOne(t *testing.T) {
	testenv.Root(t)
	doubt := func(img, want string) {
		t.Helper()
		found, err := realfs.Map(t, img, Read)
		if err == nil || !strings.Contains(err.Error(), want) || found == nil || found.Free != nil || found.UUID == "" {
			t.Errorf("%+v, %v; %q is in doubt", found, err, want)
		}
	}
	for _, options := range []string{"-d raid0 -m raid1", "-d single -m dup"} {
		a, b := realfs.File(t, 300<<20), realfs.File(t, 300<<20)
		words := append([]string{"-q", "-f"}, append(strings.Fields(options), a, b)...)
		realfs.Run(t, "mkfs.btrfs", words...)
		doubt(a, "one of 2 devices")
		doubt(b, "one of 2 devices")
	}
	img := kind("").Make(t, 200<<20)
	dump, restored := filepath.Join(t.TempDir(), "dump"), realfs.File(t, 200<<20)
	realfs.Run(t, "btrfs-image", img, dump)
	realfs.Run(t, "btrfs-image", "-r", dump, restored)
	doubt(restored, "a copy of the metadata alone")
	realfs.Run(t, "btrfstune", "-S", "1", img)
	doubt(img, "seed")
}

// A large disk takes no longer than its metadata.
func TestHuge(t *testing.T) {
	testenv.Root(t)
	k := kind("commit=300")
	img := k.Make(t, 15<<40, "-m", "single")
	k.Mounted(t, img, func(dir string) {
		f, err := os.Create(filepath.Join(dir, "many"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i := range int64(5000) {
			if err := unix.Fallocate(int(f.Fd()), 0, i*8192, 4096); err != nil {
				t.Fatal(err)
			}
		}
	})
	start := time.Now()
	found, err := realfs.Map(t, img, Read)
	if took := time.Since(start); err != nil || took > time.Minute || len(found.Notes) > 0 {
		t.Fatal(took, err, found.Notes)
	}
	if used := found.Size - found.Free.Bytes(); used < 20<<20 || used > 40<<20 {
		t.Errorf("%d bytes are used", used)
	}
	if want := oracle(t, img, ""); !slices.Equal(found.Free.Ranges(), want) {
		t.Errorf("free is\n%v\nbtrfs-progs says\n%v", found.Free.Ranges(), want)
	}
}
