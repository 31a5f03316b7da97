package usedmap

import (
	"io"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// The bench of these tests, in one file:
//
//	table | gap | partition: a file system, aged | gap | partition ... | table
//
// Noise over all that is free, then each partition is cut out again, checked
// and compared, and the table must be what it was.

// content is what a partition of a test's disk holds.
type content struct {
	number int
	kind   realfs.Kind
	args   []string
	whole  bool // false: the map must be in doubt
}

// layout is a disk of a test.
type layout struct {
	name   string
	size   int64
	sector int
	script string // of sfdisk
	holds  []content
	free   int64 // at least so many bytes are free
}

var layouts = []layout{
	{
		"gpt as an installer makes it", 1 << 30, 512,
		"label: gpt\nsize=64M, type=uefi\nsize=400M, type=linux, name=root\nsize=64M, type=swap\ntype=linux\n",
		[]content{{1, realfs.FAT, []string{"-F", "32"}, true}, {2, realfs.Ext, nil, true}, {4, realfs.XFS, nil, true}}, 600 << 20,
	},
	{
		"mbr with logical partitions", 1 << 30, 512,
		"label: dos\n,200M,83,*\n,,E\n,200M,07\n,200M,07\n,64M,82\n,150M,83\n",
		[]content{{1, realfs.Ext, []string{"-b", "1024"}, true}, {5, realfs.NTFS, nil, true}, {6, realfs.ExFAT, nil, true},
			{8, realfs.Btrfs, []string{"--mixed"}, true}}, 500 << 20,
	},
	{
		"types that contradict", 512 << 20, 512,
		"label: gpt\nsize=200M, type=uefi\nsize=200M, type=swap\n",
		[]content{{1, realfs.Ext, nil, false}, {2, realfs.NTFS, nil, false}}, 0,
	},
}

func TestDisks(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			testenv.Root(t)
			img, before := l.make(t)
			m := mapFile(t, img, l.sector)
			if m.Doubt != "" || m.FreeBytes() < l.free {
				t.Fatalf("%d bytes are free; doubt: %s", m.FreeBytes(), m.Doubt)
			}
			table := realfs.Run(t, "sfdisk", "-d", img)
			realfs.Noise(t, img, m.Free)
			if now := realfs.Run(t, "sfdisk", "-d", img); now != table {
				t.Errorf("the table became\n%s", now)
			}
			for i, c := range l.holds {
				p := partition(t, m, c.number)
				if (p.Doubt == "") != c.whole {
					t.Errorf("partition %d: %+v", c.number, p)
				}
				part := cut(t, img, p.Ranges[0])
				c.kind.MustCheck(t, part)
				if diff := before[i].Diff(c.kind.Files(t, part)); diff != "" {
					t.Errorf("partition %d lost\n%s", c.number, diff)
				}
			}
		})
	}
}

// make makes the disk, and gives what the partitions' files are.
func (l layout) make(t *testing.T) (img string, files []realfs.Files) {
	t.Helper()
	img = realfs.File(t, l.size)
	script := realfs.File(t, 0)
	if err := os.WriteFile(script, []byte(l.script), 0o600); err != nil {
		t.Fatal(err)
	}
	realfs.Run(t, "sh", "-c", "sfdisk -q "+img+" <"+script)
	empty := mapFile(t, img, l.sector)
	for _, p := range empty.Parts {
		if p.Kind == Partition && strings.Contains(strings.ToLower(p.Type), swapType(empty.Table)) && !l.has(p.Number) {
			part := realfs.File(t, p.Len())
			realfs.Run(t, "mkswap", "-q", part)
			paste(t, img, part, p.Off())
		}
	}
	for i, c := range l.holds {
		p := partition(t, empty, c.number)
		part := c.kind.Make(t, p.Len(), c.args...)
		c.kind.Fill(t, part, uint64(i), 40<<20)
		paste(t, img, part, p.Off())
		files = append(files, c.kind.Files(t, realfs.Copy(t, part)))
	}
	return img, files
}

func (l layout) has(number int) bool {
	for _, c := range l.holds {
		if c.number == number {
			return true
		}
	}
	return false
}

func swapType(table string) string {
	if table == "gpt" {
		return "0657fd6d"
	}
	return "82"
}

func partition(t *testing.T, m *Map, number int) *Part {
	t.Helper()
	for i := range m.Parts {
		if m.Parts[i].Number == number && m.Parts[i].Kind == Partition {
			return &m.Parts[i]
		}
	}
	t.Fatalf("there is no partition %d: %+v", number, m)
	return nil
}

// paste writes the file part into img at a byte, but for its holes.
func paste(t *testing.T, img, part string, off int64) {
	t.Helper()
	copyInto(t, img, off, part, 0, -1)
}

// cut is a range of img as a file of its own.
func cut(t *testing.T, img string, r image.Range) string {
	t.Helper()
	part := realfs.File(t, r.Len)
	copyInto(t, part, 0, img, r.Off, r.Len)
	return part
}

// copyInto copies n bytes (-1: all) from one file into another. Zeros are left
// out.
func copyInto(t *testing.T, to string, toOff int64, from string, fromOff, n int64) {
	t.Helper()
	w, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n < 0 {
		st, _ := r.Stat()
		n = st.Size()
	}
	b := make([]byte, 1<<20)
	for at := int64(0); at < n; at += int64(len(b)) {
		b = b[:min(int64(len(b)), n-at)]
		if _, err := io.ReadFull(io.NewSectionReader(r, fromOff+at, int64(len(b))), b); err != nil {
			t.Fatal(err)
		}
		if image.IsZero(b) {
			continue
		}
		if _, err := w.WriteAt(b, toOff+at); err != nil {
			t.Fatal(err)
		}
	}
}
