package ledger_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
)

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs f again and again, and reports its processor time.
func measure(b *testing.B, f func()) {
	begin := processorTime(b)
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(processorTime(b)-begin)/float64(b.N)/1e6, "cpu-ms/op")
}

// BenchmarkCommits has eight writers, each of which makes one durable change
// after the other.
func BenchmarkCommits(b *testing.B) {
	l := open(b, filepath.Join(b.TempDir(), "ledger.db"))
	var n atomic.Int64
	var all sync.WaitGroup
	const writers = 8
	measure(b, func() {
		for range writers {
			all.Go(func() {
				if err := addNumber(l, int(n.Add(1))); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	})
	b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "commits/s")
}

const boxesOfBench, jobsOfBench = 1000, 50

// large makes a ledger of 1000 boxes with 50 jobs each, which are dealt among
// them as time goes by.
func large(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "ledger.db")
	l := open(b, path)
	update := func(f func(tx *ledger.Tx) error) {
		if err := l.Update(ctx, f); err != nil {
			b.Fatal(err)
		}
	}
	update(func(tx *ledger.Tx) error {
		for i := range 10 {
			if err := tx.PutGroup(ledger.Group{Name: fmt.Sprint("rack", i)}); err != nil {
				return err
			}
		}
		for i := range boxesOfBench {
			if err := tx.PutBox(ledger.Box{Address: boxAddr(i + 1), Name: fmt.Sprintf("box-%04d", i),
				UUID:   fmt.Sprintf("564d4a2c-11f5-8e2b-dead-%012d", i),
				MACs:   []string{fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&0xff), fmt.Sprintf("52:54:00:01:%02x:%02x", i>>8, i&0xff)},
				Labels: []string{"gpu", fmt.Sprint("row=", i%7)}, Groups: []string{fmt.Sprint("rack", i%10)}, Health: ledger.Good,
				Settings:  []byte(`{"power":"ipmitool -H 10.0.0.1 power","probe":"tcp:22","retention":{"last":7,"weekly":4}}`),
				FirstSeen: noon, LastSeen: noon}); err != nil {
				return err
			}
		}
		return nil
	})
	doc := fmt.Appendf(nil, `{"options":%q}`, strings.Repeat("what the state machine keeps ", 50))
	for round := range jobsOfBench {
		update(func(tx *ledger.Tx) error {
			for i := range boxesOfBench {
				at := noon.Add(time.Duration(round*boxesOfBench+i) * time.Second)
				if err := tx.AddJob(ledger.Job{ID: fmt.Sprintf("j%d-%d", i, round), Box: boxAddr(i + 1), State: "ended",
					Created: at, Changed: at, Ended: at, By: "eva", Key: fmt.Sprint("night ", round), Doc: doc}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

func BenchmarkLarge(b *testing.B) {
	path := large(b)
	b.Run("open", func(b *testing.B) {
		measure(b, func() {
			l, err := ledger.Open(ctx, path, ledger.Options{})
			if err != nil {
				b.Fatal(err)
			}
			l.Close()
		})
	})
	l := open(b, path)
	read := func(name string, f func(tx *ledger.Tx) error) {
		b.Run(name, func(b *testing.B) {
			measure(b, func() {
				if err := l.View(ctx, f); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
	read("list of 1000 boxes with last job", func(tx *ledger.Tx) error {
		boxes, _, err := tx.Boxes(ledger.BoxFilter{}, ledger.Page{})
		if err != nil || len(boxes) != boxesOfBench || len(boxes[9].Labels) != 2 {
			return fmt.Errorf("%d boxes: %w", len(boxes), err)
		}
		addrs := make([]box.Addr, len(boxes))
		for i := range boxes {
			addrs[i] = boxes[i].Address
		}
		last, err := tx.LastJobs(addrs)
		if err != nil || len(last) != boxesOfBench {
			return fmt.Errorf("%d jobs: %w", len(last), err)
		}
		return nil
	})
	read("history of one box", func(tx *ledger.Tx) error {
		jobs, _, err := tx.Jobs(ledger.JobFilter{Box: boxAddr(500)}, ledger.Page{})
		if err != nil || len(jobs) != jobsOfBench {
			return fmt.Errorf("%d jobs: %w", len(jobs), err)
		}
		return nil
	})
	read("one box by its MAC", func(tx *ledger.Tx) error {
		boxes, _, err := tx.Boxes(ledger.BoxFilter{MAC: "52:54:00:00:01:02"}, ledger.Page{})
		if err != nil || len(boxes) != 1 {
			return fmt.Errorf("%d boxes: %w", len(boxes), err)
		}
		return nil
	})
	read("jobs that are open", func(tx *ledger.Tx) error {
		jobs, _, err := tx.Jobs(ledger.JobFilter{Open: true}, ledger.Page{})
		if err != nil || len(jobs) != 0 {
			return fmt.Errorf("%d jobs: %w", len(jobs), err)
		}
		return nil
	})
	read("jobs of a key", func(tx *ledger.Tx) error {
		jobs, _, err := tx.Jobs(ledger.JobFilter{By: "eva", Key: "night 7"}, ledger.Page{})
		if err != nil || len(jobs) != boxesOfBench {
			return fmt.Errorf("%d jobs: %w", len(jobs), err)
		}
		return nil
	})
	b.Run("copy", func(b *testing.B) {
		measure(b, func() {
			if err := l.CopyTo(ctx, filepath.Join(b.TempDir(), "copy.db")); err != nil {
				b.Fatal(err)
			}
		})
	})
}
