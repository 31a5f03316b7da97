package boxapi_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/blob/dir"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/image"
)

const benchSize = 128 * mib

// usrDisk is a disk with files of this machine, each at a block.
func usrDisk(b *testing.B) memoryDisk {
	b.Helper()
	disk := make([]byte, 0, benchSize)
	filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(disk) == benchSize {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil {
			disk = append(disk, data[:min(len(data), benchSize-len(disk))]...)
			disk = disk[:min(benchSize, (len(disk)+chunk.BlockSize-1)/chunk.BlockSize*chunk.BlockSize)]
		}
		return nil
	})
	return disk[:benchSize]
}

type memoryDisk []byte

func (m memoryDisk) Size() int64                              { return int64(len(m)) }
func (m memoryDisk) ReadAt(b []byte, off int64) (int, error)  { return copy(b, m[off:]), nil }
func (m memoryDisk) WriteAt(b []byte, off int64) (int, error) { return copy(m[off:], b), nil }
func (m memoryDisk) ZeroAt(off, n int64) error                { clear(m[off:][:n]); return nil }
func (m memoryDisk) Sync() error                              { return nil }

// network says for both ways what begins a backup, and what opens an image.
type network struct {
	name  string
	begin func() chunk.Session
	chunk.Images
}

// networks returns a new store, without a network and over HTTPS on this machine.
func networks(b *testing.B) (ways []network) {
	for _, over := range []string{"direct", "https"} {
		blobs, err := dir.New(durable.OS{}, b.TempDir())
		must(b, err)
		r := newRig(b, blobs, nil)
		if over == "direct" {
			begin := func() chunk.Session { s := r.store.Begin(); s.Trusted = true; return s }
			ways = append(ways, network{over, begin, r.store})
			continue
		}
		c := r.client(all)
		ways = append(ways, network{over, func() chunk.Session { return c.Begin() }, c})
	}
	return ways
}

func (n *network) save(b *testing.B, disk memoryDisk) *image.Record {
	b.Helper()
	s, r := n.begin(), newRecord()
	d := backup.Disk{Name: "sda", Source: disk, Identity: image.Identity{Size: disk.Size(), SectorSize: 512}}
	_, err := backup.Make(b.Context(), s, r, []backup.Disk{d}, backup.Options{})
	must(b, err)
	must(b, s.Close())
	return r
}

// BenchmarkBackup is a first backup, and one of which the store has everything.
func BenchmarkBackup(b *testing.B) {
	disk := usrDisk(b)
	for _, again := range []bool{false, true} {
		for _, way := range []int{0, 1} {
			b.Run(map[bool]string{false: "first/", true: "again/"}[again]+[]string{"direct", "https"}[way], func(b *testing.B) {
				b.SetBytes(benchSize)
				n := networks(b)[way]
				if again {
					n.save(b, disk)
				}
				for b.Loop() {
					if !again {
						b.StopTimer()
						n = networks(b)[way]
						b.StartTimer()
					}
					n.save(b, disk)
				}
			})
		}
	}
}

// BenchmarkRestore writes everything, and a twentieth.
func BenchmarkRestore(b *testing.B) {
	disk := usrDisk(b)
	for _, n := range networks(b) {
		r := n.save(b, disk)
		for _, delta := range []bool{false, true} {
			b.Run(map[bool]string{false: "full/", true: "delta/"}[delta]+n.name, func(b *testing.B) {
				b.SetBytes(benchSize)
				for b.Loop() {
					b.StopTimer()
					target := make(memoryDisk, benchSize)
					if delta {
						copy(target, disk)
						clear(target[benchSize/2:][:benchSize/20])
					}
					b.StartTimer()
					im, err := n.OpenImage(b.Context(), r, "sda")
					must(b, err)
					job := copier.Job{Name: "sda", Image: copier.StoredImage{Image: im}, Target: target, SectorSize: 512}
					_, err = copier.Restore(b.Context(), []copier.Job{job}, copier.RestoreOptions{})
					must(b, err)
					must(b, im.Close())
				}
			})
		}
	}
}
