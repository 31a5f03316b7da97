package ext

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

const mib = 1 << 20

// kinds are file systems as mke2fs makes them. The bench of each: made, aged
// to about a third, mapped, proved.
var kinds = []struct {
	name string
	mb   int64
	args string
	fs   string
}{
	{"default", 96, "", "ext4"},
	{"1k", 64, "-b 1024", "ext4"},
	{"2k", 64, "-b 2048", "ext4"},
	{"no 64bit", 64, "-O ^64bit", "ext4"},
	{"no journal", 64, "-O ^has_journal", "ext4"},
	{"bigalloc", 96, "-O bigalloc -C 65536", "ext4"},
	{"bigalloc 1k", 64, "-b 1024 -O bigalloc -C 16384", "ext4"},
	{"inline data", 64, "-O inline_data -I 256", "ext4"},
	{"no metadata_csum", 64, "-O ^metadata_csum", "ext4"},
	{"uninit_bg", 64, "-b 1024 -O ^metadata_csum,uninit_bg", "ext4"},
	{"uninit_bg no 64bit", 64, "-b 1024 -O ^metadata_csum,uninit_bg,^64bit", "ext4"},
	{"csum seed", 64, "-O metadata_csum_seed", "ext4"},
	{"no flex_bg", 64, "-b 1024 -O ^flex_bg", "ext4"},
	{"flex 4", 96, "-b 1024 -G 4", "ext4"},
	{"meta_bg", 160, "-b 1024 -O meta_bg,^resize_inode", "ext4"},
	{"meta_bg no flex_bg", 320, "-b 1024 -O meta_bg,^resize_inode,^flex_bg,^64bit", "ext4"},
	{"no resize_inode", 64, "-O ^resize_inode", "ext4"},
	{"sparse_super2", 96, "-b 1024 -O sparse_super2,^resize_inode", "ext4"},
	{"sparse_super2 one", 96, "-b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=1", "ext4"},
	{"no sparse_super", 96, "-b 1024 -O ^sparse_super,^resize_inode", "ext4"},
	{"ext2 revision 0", 64, "-t ext2 -r 0 -b 1024", "ext2"},
	{"ext2", 64, "-t ext2", "ext2"},
	{"ext3", 64, "-t ext3", "ext3"},
	{"ext3 1k", 64, "-t ext3 -b 1024 -I 128", "ext3"},
	{"mmp", 64, "-O mmp", "ext4"},
	{"verity", 64, "-O verity", "ext4"},
	{"ea_inode large_dir", 64, "-O ea_inode,large_dir", "ext4"},
	{"orphan_file fast_commit", 64, "-O orphan_file,fast_commit", "ext4"},
	{"stable_inodes", 64, "-O stable_inodes", "ext4"},
	{"few inodes", 64, "-N 800", "ext4"},
	{"many inodes", 64, "-N 60000", "ext4"},
	{"small groups", 96, "-b 4096 -g 1024", "ext4"},
	{"tiny groups", 64, "-b 1024 -g 2048 -N 20000", "ext4"},
	{"no reserve", 64, "-m 0", "ext4"},
	{"partial group", 77, "-b 1024 -m 0", "ext4"},
	{"last group cut", 72, "-b 1024", "ext4"},
	{"packed", 160, "-b 1024 -E packed_meta_blocks=1", "ext4"},
	{"not lazy", 64, "-E lazy_itable_init=0,lazy_journal_init=0,nodiscard", "ext4"},
	{"lazy", 64, "-E lazy_itable_init=1,lazy_journal_init=1", "ext4"},
	{"journal of 2 MiB", 64, "-b 1024 -J size=2", "ext4"},
	{"large inodes", 64, "-I 1024", "ext4"},
	{"resize room", 64, "-b 1024 -E resize=8000000", "ext4"},
	{"stride", 64, "-b 1024 -E stride=16,stripe_width=64", "ext4"},
	{"hurd", 64, "-t ext2 -o hurd -I 128", "ext2"},
	{"large groups of files", 96, "-T largefile4", "ext4"},
}

func TestClean(t *testing.T) {
	testenv.Root(t)
	for _, k := range kinds {
		t.Run(strings.ReplaceAll(k.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			img := realfs.File(t, k.mb*mib+3000) // its size is never a whole number of blocks
			realfs.Ext.Format(t, img, append(strings.Fields(k.args), "-L", "a label")...)
			mustMapAll(t, img)
			realfs.Ext.Fill(t, img, uint64(k.mb), k.mb*mib/3)
			prove(t, img, k.fs)
		})
	}
}

// prove proves the map of an aged file system. A file system that was cleanly
// unmounted has no surplus but its tail.
func prove(t *testing.T, img, fs string) {
	t.Helper()
	kind := realfs.Ext
	about := realfs.Run(t, "dumpe2fs", "-h", img)
	if strings.Contains(about, "bigalloc") {
		kind.Partclone = "" // it cannot
	}
	found, surplus := kind.Prove(t, img, Read)
	st, _ := os.Stat(img)
	if found.FS != fs || found.Label != "a label" || len(found.UUID) != 36 || found.Size > st.Size() || found.Size < st.Size()-32*mib {
		t.Errorf("%+v of %d bytes", found, st.Size())
	}
	tail := st.Size() - found.Size
	if kind.Partclone != "" && surplus != tail {
		t.Errorf("%d bytes are used for nothing", surplus-tail)
	}
	var blocks, size int64
	for line := range strings.Lines(about) {
		fmt.Sscanf(line, "Free blocks: %d", &blocks)
		fmt.Sscanf(line, "Block size: %d", &size)
	}
	if found.Free.Bytes() != blocks*size {
		t.Errorf("%d bytes are free, the superblock says %d blocks of %d", found.Free.Bytes(), blocks, size)
	}
	if found.Free.Bytes() < found.Size/20 {
		t.Errorf("only %d of %d bytes are free", found.Free.Bytes(), found.Size)
	}
}

// mustMapAll wants a map of a file system just made.
func mustMapAll(t *testing.T, img string) {
	t.Helper()
	found, err := realfs.Map(t, img, Read)
	if err != nil || found.Free.Bytes() < found.Size/4 {
		t.Fatalf("just made: %v", err)
	}
}

// File systems that tools changed after they were made.
func TestChanged(t *testing.T) {
	testenv.Root(t)
	aged := func(t *testing.T, mb int64, args string) string {
		img := realfs.File(t, mb*mib)
		realfs.Ext.Format(t, img, append(strings.Fields(args), "-L", "a label")...)
		realfs.Ext.Fill(t, img, 3, mb*mib/3)
		return img
	}
	// Exit code 1 is that something was put right, as directories are that
	// have no room for the checksums that tune2fs gives them.
	fsck := func(t *testing.T, img string) { realfs.Run(t, "sh", "-c", "e2fsck -fp "+img+" || [ $? = 1 ]") }
	for _, c := range []struct {
		name, args, fs string
		mb             int64
		change         func(t *testing.T, img string)
	}{
		{"grown", "-b 1024", "ext4", 64, func(t *testing.T, img string) {
			os.Truncate(img, 300*mib)
			fsck(t, img)
			realfs.Run(t, "resize2fs", img)
		}},
		{"grown much", "-b 1024 -O ^resize_inode -g 1024", "ext4", 32, func(t *testing.T, img string) {
			os.Truncate(img, 300*mib)
			fsck(t, img)
			realfs.Run(t, "resize2fs", img)
		}},
		{"shrunk", "", "ext4", 128, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "resize2fs", img, "113M")
		}},
		{"shrunk to the least", "-b 1024", "ext4", 128, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "resize2fs", "-M", img)
			os.Truncate(img, 128*mib-32*mib)
			fsck(t, img)
			realfs.Run(t, "resize2fs", img)
		}},
		{"journal added and taken", "-t ext2", "ext2", 64, func(t *testing.T, img string) {
			realfs.Run(t, "tune2fs", "-j", img)
			if found, err := realfs.Map(t, img, Read); err != nil || found.FS != "ext3" {
				t.Fatal(found, err)
			}
			realfs.Run(t, "tune2fs", "-O", "^has_journal", img)
		}},
		{"ext3 made ext4", "-t ext3", "ext4", 64, func(t *testing.T, img string) {
			realfs.Run(t, "tune2fs", "-O", "extents,uninit_bg,dir_index", img)
			fsck(t, img)
			realfs.Ext.Edit(t, img, func(tr realfs.Tree) { tr.Write("new", make([]byte, 3*mib)) })
		}},
		{"checksums taken", "", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "tune2fs", "-O", "^metadata_csum", img)
			fsck(t, img)
		}},
		{"checksums given", "-O ^metadata_csum", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "tune2fs", "-O", "metadata_csum", img)
			fsck(t, img)
		}},
		{"64bit taken", "", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "resize2fs", "-s", img)
		}},
		{"64bit given", "-O ^64bit", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "resize2fs", "-b", img)
		}},
		{"larger inodes", "-I 128 -O ^metadata_csum,^flex_bg", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "tune2fs", "-I", "256", img)
		}},
		{"new UUID", "", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "tune2fs", "-U", "random", img)
		}},
		{"new UUID uninit_bg", "-O ^metadata_csum,uninit_bg", "ext4", 64, func(t *testing.T, img string) {
			fsck(t, img)
			realfs.Run(t, "tune2fs", "-U", "random", img)
		}},
		{"folders packed", "", "ext4", 64, func(t *testing.T, img string) { realfs.Run(t, "e2fsck", "-fpD", img) }},
		{"volume larger", "", "ext4", 64, func(t *testing.T, img string) { os.Truncate(img, 80*mib) }},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			img := aged(t, c.mb, c.args)
			c.change(t, img)
			prove(t, img, c.fs)
		})
	}
}

// A file system that is nearly full, one made from a folder, and block sizes
// that this kernel cannot mount.
func TestOdd(t *testing.T) {
	testenv.Root(t)
	t.Run("full", func(t *testing.T) {
		img := realfs.Ext.Make(t, 64*mib, "-m", "0", "-b", "1024")
		realfs.Ext.Edit(t, img, func(tr realfs.Tree) {
			for i := 0; tr.Write(fmt.Sprint("f", i), make([]byte, 3*mib)); i++ {
			}
			tr.Remove("f1")
		})
		found, surplus := realfs.Ext.Prove(t, img, Read)
		if found.Free.Bytes() > 8*mib || surplus > 128<<10 {
			t.Errorf("%d bytes are free, %d used for nothing", found.Free.Bytes(), surplus)
		}
	})
	for _, args := range []string{"-b 1024", "-b 4096", "-b 16384", "-b 65536", "-O encrypt", "-O casefold",
		"-O quota,project -E quotatype=usrquota:grpquota:prjquota", "-b 65536 -O bigalloc -C 1048576", "-b 8192 -t ext2",
		"-b 1024 -O bigalloc -C 4096"} {
		t.Run("from a folder "+args, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i := range 40 {
				os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 1+i*i*300), 0o600)
			}
			img := realfs.Ext.Make(t, 128*mib, append(strings.Fields(args), "-d", dir)...)
			if strings.Contains(args, "quota") { // which mkfs does not count
				exec.Command("/usr/sbin/e2fsck", "-fy", img).Run()
			}
			found, err := realfs.Map(t, img, Read)
			if err != nil {
				t.Fatal(err)
			}
			noised := realfs.Copy(t, img)
			realfs.Noise(t, noised, found.Free.Ranges())
			realfs.Ext.MustCheck(t, noised)
			if found.Free.Bytes() < 50*mib {
				t.Errorf("%d bytes are free", found.Free.Bytes())
			}
			out := t.TempDir()
			realfs.Run(t, "debugfs", "-R", "rdump / "+out, noised)
			realfs.Run(t, "diff", "-r", "-x", "lost+found", dir, out)
		})
	}
}

// Copied while it is mounted read-only, as the root file system is at the end
// of a shutdown, or frozen, as for a snapshot, a file system is clean.
func TestQuiet(t *testing.T) {
	testenv.Root(t)
	for _, how := range []string{"mount -o remount,ro", "fsfreeze -f"} {
		for _, args := range []string{"", "-t ext3", "-O ^has_journal", "-O bigalloc"} {
			t.Run(how+" "+args, func(t *testing.T) {
				img := realfs.Ext.Make(t, 64*mib, strings.Fields(args)...)
				quiet := img + ".quiet"
				realfs.Ext.Mounted(t, img, func(dir string) {
					stop := keepBusy(dir, 2)
					time.Sleep(300 * time.Millisecond)
					stop()
					words := append(strings.Fields(how), dir)
					realfs.Run(t, words[0], words[1:]...)
					realfs.Run(t, "cp", "--sparse=always", img, quiet)
					if words[0] == "fsfreeze" {
						realfs.Run(t, "fsfreeze", "-u", dir)
					}
				})
				found, err := realfs.Map(t, quiet, Read)
				if strings.Contains(how+args, "fsfreeze -f-O ^has") {
					// Only a mount sets the valid bit then.
					if err == nil || !strings.Contains(err.Error(), "not cleanly") {
						t.Error(err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(found.Notes) > 0 {
					t.Error(found.Notes)
				}
				realfs.Ext.MustSurvive(t, quiet, found.Free.Ranges())
			})
		}
	}
}
