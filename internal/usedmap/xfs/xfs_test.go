package xfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/usedmap/volume"
)

const mib = 1 << 20

// prove proves the map, and that it gives nothing away: it is what xfs_db says,
// and beside the few blocks of the free lists and what lies behind the file
// system, all that partclone takes for unused.
func prove(t *testing.T, k realfs.Kind, img string) *volume.Found {
	t.Helper()
	found, surplus := k.Prove(t, img, Read)
	lists := sameAsDB(t, img, found)
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	if most := lists + st.Size() - found.Size; surplus > most {
		t.Errorf("%d bytes are used here and not for partclone; free lists and tail have %d", surplus, most)
	}
	if id := realfs.Run(t, "blkid", "-p", "-s", "UUID", "-o", "value", img); strings.TrimSpace(id) != found.UUID {
		t.Errorf("the UUID is %s, for blkid %s", found.UUID, id)
	}
	t.Logf("%d bytes are free in %d ranges, %d more used than for partclone", found.Free.Bytes(), len(found.Free.Ranges()), surplus)
	return found
}

// Every kind of file system that mkfs makes and this kernel mounts. Some have
// logs or groups that want more room.
func TestOptions(t *testing.T) {
	for args, size := range map[string]int64{
		"-L twelve_bytes": 64, "-m rmapbt=1 -i nrext64=1": 64, "-m finobt=0,inobtcount=0 -i sparse=0": 64,
		"-m reflink=0,bigtime=0 -i size=2048": 64,
		"-b size=1024":                        64,
		"-b size=2048 -n size=65536":          64, "-b size=16384": 64, "-b size=65536": 160, "-s size=4096": 64,
		"-s size=32768 -b size=32768": 160,
		"-d agcount=1":                64, "-d agcount=9": 160, "-d agsize=5003b": 64, "-d su=64k,sw=3 -l su=256k": 160, "-l agnum=2": 64,
	} {
		t.Run(args, func(t *testing.T) {
			testenv.Root(t)
			k := realfs.XFS
			if args == "-d agcount=1" {
				k.Check = []string{"xfs_repair", "-n", "-o", "force_geometry", "IMG"}
			}
			img := k.Make(t, size*mib, strings.Fields(args)...)
			k.Fill(t, img, 1, 24*mib)
			prove(t, k, img)
		})
	}
}

// holes deletes every second of so many small files: trees of two levels.
func holes(t *testing.T, img string, files int) {
	realfs.XFS.Mounted(t, img, func(dir string) {
		name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("%d/%d", i%7, i)) }
		for i := range 7 {
			os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o755)
		}
		for i := range files {
			if err := os.WriteFile(name(i), bytes.Repeat([]byte{byte(i)}, 900), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		realfs.Run(t, "sync", "-f", dir)
		for i := 0; i < files; i += 2 {
			os.Remove(name(i))
		}
	})
}

func TestTreesOfTwoLevels(t *testing.T) {
	testenv.Root(t)
	img := realfs.XFS.Make(t, 100*mib, "-b", "size=1024", "-d", "agcount=2", "-m", "reflink=0")
	holes(t, img, 14000)
	found := prove(t, realfs.XFS, img)
	if n := len(found.Free.Ranges()); n < 1500 {
		t.Errorf("it is in %d pieces only", n)
	}
	if out := realfs.Run(t, "xfs_db", "-r", "-c", "agf 0", "-c", "p bnolevel", img); !strings.Contains(out, "= 2") {
		t.Errorf("the tree is not of two levels: %s", out)
	}
}

func TestNearlyFull(t *testing.T) {
	testenv.Root(t)
	img := realfs.XFS.Make(t, 64*mib, "-m", "reflink=0")
	realfs.XFS.Mounted(t, img, func(dir string) {
		for i := range 3000 {
			if os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{1, byte(i)}, 20000), 0o644) != nil {
				break
			}
		}
	})
	prove(t, realfs.XFS, img)
}

// After what tools do to a file system it is understood as before.
func TestTools(t *testing.T) {
	testenv.Root(t)
	made := realfs.XFS.Make(t, 100*mib, "-m", "rmapbt=1")
	realfs.XFS.Fill(t, made, 5, 20*mib)
	for name, change := range map[string]func(t *testing.T, img string) string{
		"a tail behind it": func(t *testing.T, img string) string {
			realfs.Run(t, "truncate", "-s", "130M", img)
			return img
		},
		"xfs_growfs": func(t *testing.T, img string) string {
			realfs.Run(t, "truncate", "-s", "163M", img)
			realfs.XFS.Mounted(t, img, func(dir string) { realfs.Run(t, "xfs_growfs", dir) })
			return img
		},
		"xfs_growfs -D": func(t *testing.T, img string) string { // into the last group only
			realfs.Run(t, "truncate", "-s", "104M", img)
			realfs.XFS.Mounted(t, img, func(dir string) { realfs.Run(t, "xfs_growfs", "-D", "26500", dir) })
			return img
		},
		"xfs_repair": func(t *testing.T, img string) string {
			realfs.Run(t, "xfs_repair", img)
			return img
		},
		"xfs_repair -L": func(t *testing.T, img string) string {
			realfs.Run(t, "xfs_repair", "-L", img)
			return img
		},
		"xfs_repair -L and mounted": func(t *testing.T, img string) string {
			realfs.Run(t, "xfs_repair", "-L", img)
			realfs.XFS.Mounted(t, img, func(dir string) { churn(dir, rand.New(rand.NewPCG(1, 3)), 200) })
			return img
		},
		"xfs_copy": func(t *testing.T, img string) string {
			to := realfs.File(t, 1)
			realfs.Run(t, "xfs_copy", img, to)
			return to
		},
		"xfs_copy -d": func(t *testing.T, img string) string {
			to := realfs.File(t, 1)
			realfs.Run(t, "xfs_copy", "-d", img, to)
			return to
		},
		"xfs_admin -U": func(t *testing.T, img string) string {
			realfs.Run(t, "xfs_admin", "-U", "generate", img)
			return img
		},
		"xfs_admin -U and mounted": func(t *testing.T, img string) string {
			realfs.Run(t, "xfs_admin", "-U", "generate", "-L", "new", img)
			realfs.XFS.Mounted(t, img, func(dir string) { churn(dir, rand.New(rand.NewPCG(1, 1)), 200) })
			return img
		},
		"xfs_admin -O": func(t *testing.T, img string) string {
			plain := realfs.XFS.Make(t, 64*mib, "-m", "inobtcount=0,bigtime=0")
			realfs.XFS.Fill(t, plain, 1, 5*mib)
			realfs.Run(t, "xfs_admin", "-O", "inobtcount=1,bigtime=1", plain)
			return plain
		},
		"mounted read-only": func(t *testing.T, img string) string {
			mounting("ro").Mounted(t, img, func(string) {})
			return img
		},
		"remounted read-only": func(t *testing.T, img string) string { // as at a reboot
			realfs.XFS.Mounted(t, img, func(dir string) {
				churn(dir, rand.New(rand.NewPCG(1, 2)), 200)
				realfs.Run(t, "mount", "-o", "remount,ro", dir)
				to := realfs.Copy(t, img)
				prove(t, mounting("nouuid"), to) // beside the first
			})
			return img
		},
	} {
		t.Run(name, func(t *testing.T) { prove(t, realfs.XFS, change(t, realfs.Copy(t, made))) })
	}
}

// A dump of metadata has the same free space, and nothing in it.
func TestMetadump(t *testing.T) {
	testenv.Root(t)
	img := realfs.XFS.Make(t, 64*mib)
	realfs.XFS.Fill(t, img, 5, 20*mib)
	dump, to := realfs.File(t, 1), realfs.File(t, 1)
	realfs.Run(t, "xfs_metadump", img, dump)
	realfs.Run(t, "xfs_mdrestore", dump, to)
	found, err := realfs.Map(t, to, Read)
	if err != nil {
		t.Fatal(err)
	}
	sameAsDB(t, to, found)
}

func TestNotAlone(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct{ args, want string }{
		{"-l logdev=OTHER,size=10000b", "log is on another device"},
		{"-r rtdev=OTHER", "realtime device"},
	} {
		other := realfs.File(t, 100*mib)
		img := realfs.XFS.Make(t, 64*mib, strings.Fields(strings.Replace(c.args, "OTHER", other, 1))...)
		if found, err := realfs.Map(t, img, Read); err == nil || !strings.Contains(err.Error(), c.want) || found.UUID == "" {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}

// Frozen is not unmounted: its log must be replayed.
func TestFrozenIsDoubt(t *testing.T) {
	testenv.Root(t)
	img := realfs.XFS.Make(t, 64*mib)
	realfs.XFS.Mounted(t, img, func(dir string) {
		churn(dir, rand.New(rand.NewPCG(1, 1)), 200)
		realfs.Run(t, "xfs_freeze", "-f", dir)
		defer realfs.Run(t, "xfs_freeze", "-u", dir)
		if _, err := realfs.Map(t, img, Read); err == nil || logClean(t, img) {
			t.Errorf("%v", err)
		}
	})
}
