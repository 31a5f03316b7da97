package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"testbox-imaging/internal/bench/measure"
)

// tool is one way to keep images of disks. All leave their output durable.
type tool struct {
	name string
	// dir is the folder in which it keeps everything.
	dir  string
	init func() error // nil: nothing
	// backup makes an image of a disk, called name; part is its partition.
	backup func(img, part, name string) *exec.Cmd
	// restore writes it to target; nil is not measured.
	restore func(target, part, name string) *exec.Cmd
	keeps   bool // it shares what images have in common
	slow    bool // it makes one backup only, lest all takes hours
	parted  bool // it works on the partition, which is a loop device meanwhile
}

// on calls do with the partition of a disk, or with "" for a tool that works on
// the whole disk. Testbox refuses a disk that a loop device has.
func (t tool) on(img string, do func(part string) error) error {
	if !t.parted {
		return do("")
	}
	return withPart(img, do)
}

// tools are what is measured, in the order of their turns.
func (b *bench) tools() []tool {
	dir := func(name string) string { return filepath.Join(b.dir, "stores", name) }
	stream := func(name, pack, unpack, ending string) tool {
		return tool{
			name: "dd|" + name, dir: dir(name), slow: true,
			backup: func(img, _, id string) *exec.Cmd {
				return measure.Shell("cd %s && dd if=%s bs=256K status=none | %s > %s.%s && sync %s.%s", dir(name), img, pack, id, ending, id, ending)
			},
			restore: func(target, _, id string) *exec.Cmd {
				return measure.Shell("cd %s && %s %s.%s | dd of=%s bs=256K conv=notrunc,fsync status=none", dir(name), unpack, id, ending, target)
			},
		}
	}
	partclone := tool{
		name: "partclone|zstd", dir: dir("partclone"), parted: true,
		backup: func(img, part, id string) *exec.Cmd {
			fs := "ext4"
			if id == "ntfs" {
				fs = "ntfs"
			}
			return measure.Shell("cd %s && partclone.%s -c -s %s -o - -L %s/log 2>/dev/null | zstd -q -1 -T0 > %s.zst && sync %s.zst",
				dir("partclone"), fs, part, b.dir, id, id)
		},
		restore: func(_, part, id string) *exec.Cmd {
			return measure.Shell("cd %s && zstd -q -dc %s.zst | partclone.restore -s - -o %s -L %s/log 2>/dev/null && sync", dir("partclone"), id,
				part, b.dir)
		},
	}
	ours := tool{
		name: "testbox", dir: dir("testbox"), keeps: true,
		init: func() error { return measure.Command(b.testbox, "store", "init", dir("testbox")) },
		backup: func(img, _, id string) *exec.Cmd {
			return exec.Command(b.testbox, "image", "create", "--store", dir("testbox"), "box-"+id, "sda="+img)
		},
		restore: func(target, _, id string) *exec.Cmd {
			return exec.Command(b.testbox, "image", "restore", "--store", dir("testbox"), "--yes", "--full", "--verify=none", "box-"+id,
				"sda="+target)
		},
	}
	all := []tool{
		stream("gzip", "gzip -c", "gunzip -c", "gz"),
		stream("pigz", "pigz -c", "unpigz -c", "gz"),
		partclone, b.restic(dir("restic")), b.borg(dir("borg")), b.casync(dir("casync")), ours,
	}
	return slices.DeleteFunc(all, func(t tool) bool { return slices.Contains(b.without, t.name) })
}

// restic and borg get the disk on standard input, so that a restore can write
// to a disk; both read and cut all of it, whatever is used.
func (b *bench) restic(dir string) tool {
	env := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=bench", "RESTIC_REPOSITORY="+dir,
			"RESTIC_CACHE_DIR="+filepath.Join(b.dir, "restic-cache"))
		return cmd
	}
	return tool{
		name: "restic", dir: dir, keeps: true,
		init: func() error { return env(exec.Command("restic", "-q", "init")).Run() },
		backup: func(img, _, id string) *exec.Cmd {
			return env(measure.Shell("cat %s | restic -q backup --stdin --stdin-filename %s && sync -f %s", img, id, dir))
		},
		restore: func(target, _, id string) *exec.Cmd {
			return env(measure.Shell("restic -q dump --path /%s latest %s | dd of=%s bs=256K conv=notrunc,fsync iflag=fullblock status=none", id,
				id, target))
		},
	}
}

func (b *bench) borg(dir string) tool {
	n := 0
	last := map[string]string{}
	env := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+filepath.Join(b.dir, "borg-base"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
			"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes")
		return cmd
	}
	return tool{
		name: "borg", dir: dir, keeps: true,
		init: func() error { return env(exec.Command("borg", "init", "-e", "none", dir)).Run() },
		backup: func(img, _, id string) *exec.Cmd {
			n++
			last[id] = fmt.Sprint(id, "-", n)
			return env(measure.Shell("cat %s | borg create --compression zstd,1 %s::%s - && sync -f %s", img, dir, last[id], dir))
		},
		restore: func(target, _, id string) *exec.Cmd {
			return env(measure.Shell("borg extract --stdout %s::%s | dd of=%s bs=256K conv=notrunc,fsync iflag=fullblock status=none", dir,
				last[id], target))
		},
	}
}

func (b *bench) casync(dir string) tool {
	return tool{
		name: "casync", dir: dir, keeps: true,
		backup: func(img, _, id string) *exec.Cmd {
			return measure.Shell("cd %s && casync make --compression=zstd --store=%s/store %s.caibx %s >/dev/null && sync -f .", dir, dir, id, img)
		},
		restore: func(target, _, id string) *exec.Cmd {
			return measure.Shell("cd %s && casync extract --seed-output=no --store=%s/store %s.caibx %s && sync %s", dir, dir, id, target, target)
		},
	}
}
