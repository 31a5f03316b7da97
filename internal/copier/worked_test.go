package copier

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
)

// TestWorked: the time in which several goroutines are at work counts once, and pauses do
// not count.
func TestWorked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worked
		var all sync.WaitGroup
		for _, c := range [][2]time.Duration{{0, 4}, {1, 2}, {3, 6}, {10, 11}} { // from, to
			all.Go(func() {
				time.Sleep(c[0] * time.Second)
				w.begin()
				time.Sleep((c[1] - c[0]) * time.Second)
				w.end()
			})
		}
		all.Wait()
		if got := w.total(); got != 7*time.Second {
			t.Errorf("%v", got)
		}
	})
}

// lazyDisk takes some time for each read.
type lazyDisk struct {
	*faults.Disk
	pause time.Duration
}

func (d lazyDisk) ReadAt(b []byte, off int64) (int, error) {
	time.Sleep(d.pause)
	return d.Disk.ReadAt(b, off)
}

// TestActive: a stage that reads a disk says in which time the disk was read. What else
// took time does not count.
func TestActive(t *testing.T) {
	disk := conform.Disks(8 * mib)["noise"]
	src := lazyDisk{faults.NewDisk(disk), 20 * time.Millisecond}
	s := saveOf(t, src, nil, SourceOptions{})
	v, err := Verify(t.Context(), storedJob("sda", s.im, src), Options{}, nil)
	must(t, err)
	for _, st := range append(s.Receipt.Stages[:1], v.Stages...) {
		if st.Active < src.pause || st.Active > st.Elapsed {
			t.Errorf("%+v", st)
		}
	}
}
