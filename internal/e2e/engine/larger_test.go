package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// TestLargerDisk restores disks whose GPT has been through something to larger
// ones, and asks the kernel and libblkid for the partitions: equal bytes would
// prove nothing.
func TestLargerDisk(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "sfdisk", "sgdisk", "losetup", "partx", "blkid")
	const mib = 1 << 20
	const size = 24 * mib
	wipe := func(at, n int64) func(t *testing.T, img string) {
		return func(t *testing.T, img string) {
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, _ := f.Stat()
			f.WriteAt(make([]byte, n), (at+st.Size())%st.Size())
		}
	}
	sgdisk := func(args ...string) func(t *testing.T, img string) {
		return func(t *testing.T, img string) { realfs.Run(t, "sgdisk", append(args, img)...) }
	}
	grow := func(t *testing.T, img string) { os.Truncate(img, size+3*mib) }
	for _, c := range []struct {
		name   string
		sector int
		hurt   []func(t *testing.T, img string)
		says   string
	}{
		{"sound", 512, nil, "backup GPT is moved"},
		{"sound, of 4096", 4096, nil, "backup GPT is moved"},
		{"primary dead", 512, []func(*testing.T, string){wipe(512, 512)}, "primary GPT is damaged"},
		{"primary dead of 4096", 4096, []func(*testing.T, string){wipe(4096, 4096)}, "primary GPT is damaged"},
		{"all of the primary", 512, []func(*testing.T, string){wipe(512, 33*512)}, "primary GPT is damaged"},
		{"entries of the primary", 512, []func(*testing.T, string){wipe(1024, 100)}, "primary GPT is damaged"},
		{"backup dead", 512, []func(*testing.T, string){wipe(-512, 512)}, "backup GPT is damaged"},
		{"grown before", 512, []func(*testing.T, string){grow}, "backup GPT is moved"},
		{"256 entries, primary dead", 512, []func(*testing.T, string){sgdisk("-S", "256"), wipe(512, 512)}, "primary GPT is damaged"},
		{"entries elsewhere", 512, []func(*testing.T, string){sgdisk("-j", "1000")}, "backup GPT is moved"},
		{"entries far away", 512, []func(*testing.T, string){sgdisk("-j", "3000")}, "backup GPT is moved"},
		{"hybrid", 512, []func(*testing.T, string){sgdisk("-h", "1:2")}, "backup GPT is moved"},
		{"hybrid, primary dead", 512, []func(*testing.T, string){sgdisk("-h", "1"), wipe(512, 512)}, "primary GPT is damaged"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel() // sgdisk sleeps
			b := newBench(t)
			img := realfs.File(t, size)
			table := filepath.Join(t.TempDir(), "table")
			text := "label: gpt\nstart=4MiB, size=5MiB\nsize=6MiB, type=S\n"
			if c.sector != 512 {
				text = "label: gpt\nsector-size: 4096\nstart=1024, size=1280\nsize=1536, type=S\n"
			}
			if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			attached(t, img, c.sector, func(dev string) { realfs.Run(t, "sh", "-c", "sfdisk -q "+dev+" <"+table) })
			want, known := byLibblkid(t, img, c.sector), byKernel(t, img, c.sector)
			if strings.Count(want, "\n") != 1 || known != "" && known != want {
				t.Fatalf("before: the kernel finds %q, libblkid %q", known, want)
			}
			for _, hurt := range c.hurt {
				hurt(t, img)
			}
			b.run("image", "create", "--sector-size", fmt.Sprint(c.sector), "box", "sda="+img)
			target := realfs.File(t, size+40*mib)
			if out := b.run("image", "restore", "--yes", "box", target); !strings.Contains(out, c.says) || strings.Contains(out, "warning") {
				t.Errorf("restore does not say %q:\n%s", c.says, out)
			}
			if got := byKernel(t, target, c.sector); got != known {
				t.Errorf("the kernel finds\n%q, want\n%q", got, known)
			}
			if got := byLibblkid(t, target, c.sector); got != want {
				t.Errorf("libblkid finds\n%q, want\n%q", got, want)
			}
			wiped := realfs.Copy(t, target)
			wipe(-mib, mib)(t, wiped) // the kernel looks for no backup
			if got := byLibblkid(t, wiped, c.sector); got != want {
				t.Errorf("libblkid finds\n%q by the primary alone, want\n%q", got, want)
			}
			wiped = realfs.Copy(t, target)
			wipe(int64(c.sector), int64(c.sector))(t, wiped)
			if got := byLibblkid(t, wiped, c.sector); got != want {
				t.Errorf("libblkid finds\n%q by the backup alone, want\n%q", got, want)
			}
			if c.sector == 512 {
				if out := realfs.Run(t, "sgdisk", "--verify", target); !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk says\n%s", out)
				}
			}
			b.run("image", "verify", "box", target)
		})
	}
}

// TestLargerDiskWarns: what cannot be fitted is said, and what was seen by the
// backup is seen by it.
func TestLargerDiskWarns(t *testing.T) {
	testenv.Tools(t, "sfdisk", "partx")
	b := newBench(t)
	img := realfs.File(t, 24<<20)
	realfs.Run(t, "sh", "-c", "printf 'label: gpt\n2048,4096\n' | sfdisk -q "+img)
	want := byLibblkid(t, img, 512)
	write := func(text string, off int64) {
		f, err := os.OpenFile(img, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // a file that is open for writing counts as in use
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	write("GRUB ", 0x180) // whose boot record starts what lies at sector 1
	write("\x01", 0x5C)
	write(strings.Repeat("\x00", 512), 512)
	b.run("image", "create", "box", "sda="+img)
	target := realfs.File(t, 40<<20)
	if out := b.run("image", "restore", "--yes", "box", target); !strings.Contains(out,
		"testbox: warning: sda: the image's primary GPT is damaged") {
		t.Error(out)
	}
	if got := byLibblkid(t, target, 512); got != want {
		t.Errorf("libblkid finds %q, want %q", got, want)
	}
	write(strings.Repeat("\x00", 512), 24<<20-512)
	b.run("image", "create", "box", "sda="+img)
	if out := b.run("image", "restore", "--yes", "box", target); !strings.Contains(out, "testbox: warning: sda: the disk is larger") {
		t.Error(out)
	}
}

// attached attaches a file to a loop device while do works.
func attached(t *testing.T, img string, sector int, do func(dev string)) {
	t.Helper()
	dev := strings.TrimSpace(realfs.Run(t, "losetup", "--find", "--show", "--partscan", "--sector-size", fmt.Sprint(sector), img))
	defer realfs.Run(t, "losetup", "-d", dev)
	do(dev)
}

// byKernel are the partitions that the kernel finds, a line each: number, begin
// and length in sectors of 512 bytes. Some kernels read no GPT.
func byKernel(t *testing.T, img string, sector int) string {
	t.Helper()
	var parts []string
	attached(t, img, sector, func(dev string) {
		name := filepath.Base(dev)
		for n := range 9 {
			dir := fmt.Sprintf("/sys/block/%s/%sp%d/", name, name, n)
			begin, err := os.ReadFile(dir + "start")
			length, _ := os.ReadFile(dir + "size")
			if err == nil {
				parts = append(parts, fmt.Sprintf("%d %s %s", n, strings.TrimSpace(string(begin)), strings.TrimSpace(string(length))))
			}
		}
	})
	return strings.Join(parts, "\n")
}

// byLibblkid is what libblkid finds, in the same form.
func byLibblkid(t *testing.T, img string, sector int) string {
	t.Helper()
	out := realfs.Run(t, "sh", "-c", fmt.Sprintf("partx -S %d -g -o NR,START,SECTORS %s || true", sector, img))
	var lines []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) == 3 {
			lines = append(lines, strings.Join(fields, " "))
		}
	}
	return strings.Join(lines, "\n")
}

// TestSmallerDisk restores to smaller disks, and asks libblkid for the partitions.
// What may be needed is refused, and the disk stays as it was.
func TestSmallerDisk(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "sfdisk", "sgdisk", "losetup", "partx", "blkid")
	const mib = 1 << 20
	for _, c := range []struct {
		name   string
		sector int
		text   string
	}{
		{"gpt", 512, "label: gpt\nstart=4MiB, size=5MiB\nsize=6MiB, type=S\n"},
		{"gpt-of-4096", 4096, "label: gpt\nsector-size: 4096\nstart=1024, size=1280\nsize=1536, type=S\n"},
		{"mbr", 512, "label: dos\nstart=4MiB, size=5MiB\nsize=6MiB, type=82\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			img := realfs.File(t, 24*mib)
			table := filepath.Join(t.TempDir(), "table")
			if err := os.WriteFile(table, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			attached(t, img, c.sector, func(dev string) { realfs.Run(t, "sh", "-c", "sfdisk -q "+dev+" <"+table) })
			want, known := byLibblkid(t, img, c.sector), byKernel(t, img, c.sector)
			b.run("image", "create", "--sector-size", fmt.Sprint(c.sector), "box", "sda="+img)
			refuses := func(target, says string, flags ...string) {
				t.Helper()
				before := sum(t, target)
				out, code := b.exit(append([]string{"image", "restore", "--yes", "box", target}, flags...)...)
				if code != 3 || !strings.Contains(out, says) || sum(t, target) != before {
					t.Errorf("exit code %d, want %q:\n%s", code, says, out)
				}
			}
			refuses(noise(t, 16*mib), "at least as large")
			refuses(noise(t, 15*mib-4096), "partition 2 ends at byte 15728640, which is", "--shrink-table")
			target := noise(t, 15*mib+256<<10)
			out := b.run("image", "restore", "--yes", "--shrink-table", "box", target)
			if !strings.Contains(out, "the disk is smaller than the image: its last") || !strings.Contains(out, "were left out") {
				t.Errorf("restore says\n%s", out)
			}
			if got := byKernel(t, target, c.sector); got != known {
				t.Errorf("the kernel finds\n%q, want\n%q", got, known)
			}
			if got := byLibblkid(t, target, c.sector); got != want {
				t.Errorf("libblkid finds\n%q, want\n%q", got, want)
			}
			if c.name == "gpt" {
				if out := realfs.Run(t, "sgdisk", "--verify", target); !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk says\n%s", out)
				}
			}
			b.run("image", "verify", "--shrink-table", "box", target)
			if out, code := b.exit("image", "verify", "box", target); code == 0 {
				t.Errorf("a verify that knows nothing of it:\n%s", out)
			}
		})
	}
}
