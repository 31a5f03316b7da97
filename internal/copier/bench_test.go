package copier

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// usrDisk is a disk with files of this machine, each at a block.
func usrDisk(b *testing.B, size int) []byte {
	b.Helper()
	disk := make([]byte, 0, size)
	filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(disk) == size {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil {
			disk = append(disk, data[:min(len(data), size-len(disk))]...)
			disk = disk[:min(size, (len(disk)+chunk.BlockSize-1)/chunk.BlockSize*chunk.BlockSize)]
		}
		return nil
	})
	return disk[:size]
}

// memory is a disk that keeps no log.
type memory []byte

func (m memory) Size() int64                             { return int64(len(m)) }
func (m memory) ReadAt(b []byte, off int64) (int, error) { return copy(b, m[off:]), nil }

// BenchmarkSave is a first backup, and one of which the store has everything.
func BenchmarkSave(b *testing.B) {
	src := memory(usrDisk(b, 256<<20))
	for _, all := range []bool{false, true} {
		b.Run(map[bool]string{false: "first", true: "again"}[all], func(b *testing.B) {
			b.SetBytes(256 << 20)
			for b.Loop() {
				saved, err := Save(b.Context(), src, &nothing{all: all, have: map[object.Key]bool{}}, nil, SourceOptions{})
				must(b, err)
				b.ReportMetric(float64(saved.Disk.Stored)/(256<<20)*100, "%size")
			}
		})
	}
}

// memoryTarget is one that can be written.
type memoryTarget struct{ memory }

func (m memoryTarget) WriteAt(b []byte, off int64) (int, error) { return copy(m.memory[off:], b), nil }
func (m memoryTarget) ZeroAt(off, n int64) error                { clear(m.memory[off:][:n]); return nil }
func (m memoryTarget) Sync() error                              { return nil }

// BenchmarkRestore writes everything, a twentieth, and from a file.
func BenchmarkRestore(b *testing.B) {
	const size = 128 << 20
	disk := usrDisk(b, size)
	s := saveOf(b, memory(disk), nil, SourceOptions{})
	f, _, err := backupOf(b, memory(disk), SourceOptions{})
	must(b, err)
	for name, job := range map[string]func(Target) Job{
		"full":  func(t Target) Job { return s.job(b, "sda", t) },
		"delta": func(t Target) Job { return s.job(b, "sda", t) },
		"file":  func(t Target) Job { return f.job("sda", t) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				b.StopTimer()
				target := memoryTarget{make(memory, size)}
				if name == "delta" {
					copy(target.memory, disk)
					clear(target.memory[size/2:][:size/20])
				}
				b.StartTimer()
				_, err := Restore(b.Context(), []Job{job(target)}, RestoreOptions{})
				must(b, err)
			}
		})
	}
}

// turning is a disk with one head. It needs seek to go far, and then transfers
// bytes at rate. It puts what lies near in order by itself, so that costs nothing.
type turning struct {
	memoryTarget
	mu sync.Mutex // guards at
	at int64      // where the head is
}

const (
	seek = 8 * time.Millisecond
	near = 16 << 20
	rate = 150e6 // bytes a second
)

func (d *turning) move(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := time.Duration(float64(n) / rate * float64(time.Second))
	if off-d.at > near || d.at-off > near {
		took += seek
	}
	time.Sleep(took)
	d.at = off + n
}

func (d *turning) ReadAt(b []byte, off int64) (int, error) {
	d.move(off, int64(len(b)))
	return d.memoryTarget.ReadAt(b, off)
}

func (d *turning) WriteAt(b []byte, off int64) (int, error) {
	d.move(off, int64(len(b)))
	return d.memoryTarget.WriteAt(b, off)
}

// BenchmarkTurning restores to a disk that turns, with the read-back beside the
// writing and behind it.
func BenchmarkTurning(b *testing.B) {
	const size = 256 << 20
	s := saveOf(b, memory(usrDisk(b, size)), nil, SourceOptions{})
	for _, rotational := range []bool{false, true} {
		b.Run(map[bool]string{false: "beside", true: "behind"}[rotational], func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				job := s.job(b, "sda", &turning{memoryTarget: memoryTarget{make(memory, size)}})
				job.Rotational = rotational
				_, err := Restore(b.Context(), []Job{job}, RestoreOptions{Full: true})
				must(b, err)
			}
		})
	}
}
