package progress

import (
	"fmt"
	"testing"
	"time"
)

func mb(n int64) string { return fmt.Sprintf("%d MB", n/1e6) }

// TestLine follows a restore of two disks.
func TestLine(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(func() time.Time { return now },
		Work{"sda", "check", 1000e6}, Work{"sda", "write", 1000e6}, Work{"sda", "verify", 1000e6}, Work{"sdb", "write", 500e6},
		Work{"sdb", "verify", 500e6})
	for _, c := range []struct {
		after       time.Duration
		disk, pass  string
		done, total int64
		want        string
	}{
		{0, "sda", "check", 0, 0, "sda, disk 1 of 2: check 0 MB, then writing and reading back"},
		{10 * time.Second, "sda", "check", 250e6, 0, "sda, disk 1 of 2: check 250 MB, 25 MB/s, all in 2:00, then writing and reading back"},
		{time.Second, "sda", "write", 0, 1000e6, "sda, disk 1 of 2: write 0 %, then reading back"},
		{10 * time.Second, "sda", "write", 500e6, 1000e6, "sda, disk 1 of 2: write 50 %, 50 MB/s, 0:10 left, all in 0:50, then reading back"},
		{10 * time.Second, "sda", "verify", 0, 1000e6, "sda, disk 1 of 2: read back 0 %"},
		{5 * time.Second, "sda", "verify", 500e6, 1000e6, "sda, disk 1 of 2: read back 50 %, 100 MB/s, 0:05 left, all in 0:20"},
		{5 * time.Second, "sdb", "write", 0, 500e6, "sdb, disk 2 of 2: write 0 %, then reading back"},
		{5 * time.Second, "sdb", "verify", 100e6, 500e6, "sdb, disk 2 of 2: read back 20 %"},
		{10 * time.Second, "sdb", "verify", 200e6, 500e6, "sdb, disk 2 of 2: read back 40 %, 10 MB/s, 0:30 left"},
		{time.Second, "", "copy", 7e6, 0, "copy 7 MB"},
		{time.Second, "", "copy", 9e6, 0, "copy 9 MB, 2 MB/s"},
		{time.Hour, "sdc", "read", 0, 100, "sdc: read 0 %"},
	} {
		now = now.Add(c.after)
		m.Tell(c.disk, c.pass, c.done, c.total)
		if got := m.Line(mb); got != c.want {
			t.Errorf("%s %s %d: %q\nwant %q", c.disk, c.pass, c.done, got, c.want)
		}
	}
}

// TestLeft: how long all will take is said when a rate is known, and not of a pass that nobody has planned.
func TestLeft(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(func() time.Time { return now }, Work{"sda", "write", 1000e6}, Work{"sda", "verify", 1000e6})
	left := func(after time.Duration, pass string, done int64) time.Duration {
		now = now.Add(after)
		m.Tell("sda", pass, done, 1000e6)
		return m.Left()
	}
	for _, c := range []struct {
		got, want time.Duration
	}{
		{left(0, "write", 0), 0}, {left(10*time.Second, "write", 500e6), 30 * time.Second}, {left(10*time.Second, "verify", 0), 0},
		{left(5*time.Second, "verify", 500e6), 5 * time.Second}, {left(0, "copy", 0), 0}, {left(time.Second, "copy", 1e6), 0},
	} {
		if c.got != c.want {
			t.Errorf("%v is left, want %v", c.got, c.want)
		}
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0:00", 41 * time.Second: "0:41", 200 * time.Second: "3:20",
		3800 * time.Second: "1:03:20", 59999 * time.Millisecond: "1:00"} {
		if got := Clock(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
