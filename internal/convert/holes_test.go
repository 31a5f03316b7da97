package convert

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// TestQcow2NextData: clusters that are not there, and those that are marked as
// zero, are told without reading them; all others are told.
func TestQcow2NextData(t *testing.T) {
	testenv.Tools(t, "qemu-img", "qemu-io")
	for _, opt := range []string{"cluster_size=64k", "cluster_size=512", "cluster_size=2M", "cluster_size=64k,compat=0.10"} {
		path := filepath.Join(t.TempDir(), "d.qcow2")
		realfs.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", opt, path, "3000M")
		realfs.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 5M 1k", "-c", "write -P 2 1100M 4M", "-c", "write -z 2000M 4M", "-c",
			"write -P 3 2999M 1M", path)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, _ := f.Stat()
		q, err := OpenQcow2(f, st.Size())
		if err != nil {
			t.Fatal(err)
		}
		said, calls := map[int64]bool{}, 0 // MiB in which there may be something
		for at := int64(0); at < q.Size(); calls++ {
			from, to := q.NextData(at)
			if from < at || to < from || to == from && from < q.Size() || to > q.Size() {
				t.Fatalf("%s: the run %d to %d behind %d", opt, from, to, at)
			}
			for m := from >> 20; m<<20 < to; m++ {
				said[m] = true
			}
			if at = to; from == q.Size() {
				break
			}
		}
		for _, m := range []int64{5, 1100, 1103, 2999} {
			if !said[m] {
				t.Errorf("%s: MiB %d is told as zero", opt, m)
			}
		}
		if len(said) > 12 || calls > 200 {
			t.Errorf("%s: %d MiB in %d runs may have something: %s", opt, len(said), calls, fmt.Sprint(said))
		}
	}
}
