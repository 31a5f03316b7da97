package parttab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

// fitted restores an image onto a larger disk, whose own bytes are 0xDD.
func fitted(t testing.TB, image []byte, sector int, size int64) (disk []byte, edits []Edit, notes []string) {
	t.Helper()
	head, tail := ends(image)
	wasHead, wasTail := slices.Clone(head), slices.Clone(tail)
	edits, notes, err := Fit(sector)(head, tail, int64(len(image)), size)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(head, wasHead) || !bytes.Equal(tail, wasTail) {
		t.Fatal("Fit changed what it was given")
	}
	disk = append(slices.Clone(image), bytes.Repeat([]byte{0xDD}, int(size)-len(image))...)
	checkEdits(t, edits, sector, int64(len(head)), int64(len(image)-len(tail)), int64(len(image)), size)
	for _, e := range edits {
		copy(disk[e.Off:], e.Data)
	}
	return disk, edits, notes
}

// checkEdits holds edits to what Fit promises of them.
func checkEdits(t testing.TB, edits []Edit, sector int, head, tail, image, disk int64) {
	t.Helper()
	end := int64(0)
	for _, e := range edits {
		to := e.Off + int64(len(e.Data))
		switch {
		case len(e.Data) == 0 || e.Off%int64(sector) != 0 || len(e.Data)%sector != 0:
			t.Fatalf("an edit of %d bytes at %d is not whole sectors", len(e.Data), e.Off)
		case e.Off < end || to > disk:
			t.Fatalf("an edit of bytes %d to %d is out of order or outside the disk", e.Off, to)
		case to > head && (e.Off < tail || to > image) && e.Off < image:
			t.Fatalf("an edit of bytes %d to %d lies in neither head, tail nor beyond the image", e.Off, to)
		}
		end = to
	}
}

// checkMoved holds a fitted disk to what a moved GPT is.
func checkMoved(t testing.TB, image, disk []byte, sector int) {
	t.Helper()
	old, n := uint64(len(image)/sector), uint64(len(disk)/sector)
	was, err := parsePrimary(image, sector, old)
	if err != nil {
		t.Fatal(err)
	}
	g, err := parsePrimary(disk, sector, n)
	if err != nil {
		t.Fatalf("the new primary: %v", err)
	}
	b, err := parseBackup(disk, sector, n)
	if err != nil {
		t.Fatalf("the new backup: %v", err)
	}
	if g.alternate != n-1 || b.alternate != 1 || g.last != b.last || n-g.last != old-was.last || !bytes.Equal(g.entries, b.entries) {
		t.Fatalf("the new tables are %+v and %+v", g, b)
	}
	if !slices.Equal(g.partitions(), was.partitions()) {
		t.Fatal("the partitions are others")
	}
	for _, p := range was.partitions() {
		from, to := p.first*uint64(sector), (p.last+1)*uint64(sector)
		if !bytes.Equal(image[from:to], disk[from:to]) {
			t.Fatalf("the partition at sector %d was written to", p.first)
		}
	}
}

func TestFitMovesBackup(t *testing.T) {
	wide := small()
	wide.parts, wide.count = []span{{300, 400}}, 1024
	reserved := small()
	reserved.parts, reserved.reserve = nil, 77
	for name, tab := range map[string]table{
		"usual": small(), "many entries": wide, "room before the backup": reserved,
		"sectors of 4096":          {sector: 4096, sectors: 1024, count: 128, parts: []span{{6, 900}}},
		"a tiny disk":              {sector: 512, sectors: 100, count: 128, parts: []span{{40, 60}}},
		"1.01 MiB":                 {sector: 512, sectors: 2068, count: 128, parts: []span{{40, 60}}},
		"one partition to the end": {sector: 512, sectors: 8192, count: 128, parts: []span{{34, 8158}}},
	} {
		for _, more := range []int64{1, 5, 33, 34, 1000, 9000} {
			t.Run(fmt.Sprint(name, " and ", more), func(t *testing.T) {
				image := tab.disk()
				disk, edits, notes := fitted(t, image, tab.sector, int64(len(image))+more*int64(tab.sector))
				if len(edits) == 0 || len(notes) != 1 {
					t.Fatalf("%d edits, notes %q", len(edits), notes)
				}
				checkMoved(t, image, disk, tab.sector)
				if got, want := binary.LittleEndian.Uint32(disk[458:]), uint32(len(disk)/tab.sector-1); got != want {
					t.Errorf("the protective entry has %d sectors, want %d", got, want)
				}
			})
		}
	}
}

// Other sizes than the disk's stand in protective entries of some tools (all
// ones); they stay.
func TestFitKeepsOddProtectiveSize(t *testing.T) {
	tab := small()
	tab.mbrSectors = 0xFFFFFFFF
	image := tab.disk()
	disk, edits, _ := fitted(t, image, 512, 8<<20)
	checkMoved(t, image, disk, 512)
	if edits[0].Off != 512 || !bytes.Equal(disk[:512], image[:512]) {
		t.Error("the boot record was changed")
	}
}

func TestProtectiveSectorsOfLargeDisks(t *testing.T) {
	for disk, want := range map[uint64]uint32{2: 1, 1 << 20: 1<<20 - 1, 1 << 32: 0xFFFFFFFF, 1<<32 + 1: 0xFFFFFFFF, 1 << 40: 0xFFFFFFFF} {
		if got := protectiveSectors(disk); got != want {
			t.Errorf("%d sectors: %#x, want %#x", disk, got, want)
		}
	}
}

func TestFitLeavesAlone(t *testing.T) {
	le := binary.LittleEndian
	primary := func(change func(h []byte)) func([]byte) {
		return func(b []byte) { change(b[512:]); sign(b[512:1024]) }
	}
	for name, c := range map[string]struct {
		change func(b []byte)
		note   string
	}{
		"no table":               {func(b []byte) { clear(b[:1024]) }, "there is none"},
		"boot record only":       {func(b []byte) { b[450] = 0x83 }, "it is no GPT"},
		"GPT without protection": {func(b []byte) { clear(b[446:510]) }, "it is no GPT"},
		"hybrid":                 {func(b []byte) { b[466] = 0x07 }, "hybrid"},
		"two protective":         {func(b []byte) { b[466] = 0xEE }, "two protective"},
		"protective elsewhere":   {func(b []byte) { b[454] = 2 }, "starts at sector 2"},
		"status":                 {func(b []byte) { b[446] = 0x12 }, "status 0x12"},
		"no header":              {func(b []byte) { b[512] = 'e' }, "it is no GPT"},
		"revision":               {primary(func(h []byte) { h[10] = 2 }), "revision"},
		"header length":          {primary(func(h []byte) { le.PutUint32(h[12:], 513) }), "513 bytes"},
		"header short":           {primary(func(h []byte) { le.PutUint32(h[12:], 91) }), "91 bytes"},
		"header checksum":        {func(b []byte) { b[512+60]++ }, "checksum of the GPT's header"},
		"reserved":               {primary(func(h []byte) { h[20] = 1 }), "reserved"},
		"other place":            {primary(func(h []byte) { le.PutUint64(h[24:], 2) }), "says that it stands at 2"},
		"cut image":              {primary(func(h []byte) { le.PutUint64(h[32:], 8192) }), "outside the disk"},
		"backup not at the end":  {primary(func(h []byte) { le.PutUint64(h[32:], 8190) }), "not at the image's last, 8191"},
		"entry size":             {primary(func(h []byte) { le.PutUint32(h[84:], 129) }), "129 bytes each"},
		"no entries":             {primary(func(h []byte) { le.PutUint32(h[80:], 0) }), "0 entries"},
		"millions of entries":    {primary(func(h []byte) { le.PutUint32(h[80:], 1<<31) }), "2147483648 entries"},
		"entries on header":      {primary(func(h []byte) { le.PutUint64(h[72:], 1) }), "lie on its header"},
		"entries on partitions":  {primary(func(h []byte) { le.PutUint64(h[72:], 9) }), "lie on its header or on partitions"},
		"entries beyond":         {primary(func(h []byte) { le.PutUint64(h[72:], 1<<63) }), "outside the disk"},
		"entries too far":        {primary(func(h []byte) { le.PutUint64(h[72:], 3000); le.PutUint64(h[40:], 4000) }), "first MiB"},
		"usable turned round":    {primary(func(h []byte) { le.PutUint64(h[40:], 8159) }), "are usable"},
		"usable beyond":          {primary(func(h []byte) { le.PutUint64(h[48:], 8192) }), "are usable"},
		"no room for backup":     {primary(func(h []byte) { le.PutUint64(h[48:], 8159) }), "no room"},
		"entries checksum":       {func(b []byte) { b[1024+60]++ }, "checksum of the GPT's entries"},
		"backup differs": {func(b []byte) {
			h := b[len(b)-512:]
			h[56]++
			sign(h)
		}, "differs from its primary"},
	} {
		t.Run(name, func(t *testing.T) {
			image := small().disk()
			c.change(image)
			_, edits, notes := fitted(t, image, 512, 8<<20)
			if len(edits) != 0 || len(notes) != 1 || !strings.Contains(notes[0], c.note) {
				t.Errorf("%d edits, notes %q; want none and %q", len(edits), notes, c.note)
			}
		})
	}
}

func TestFitPartitionsMustBeSane(t *testing.T) {
	for name, parts := range map[string][]span{
		"overlapping": {{100, 200}, {200, 300}}, "turned round": {{200, 100}}, "on the entries": {{33, 100}}, "on the backup": {{100, 8159}},
	} {
		tab := small()
		tab.parts = parts
		if _, edits, notes := fitted(t, tab.disk(), 512, 8<<20); len(edits) != 0 || len(notes) != 1 {
			t.Errorf("%s: %d edits, notes %q", name, len(edits), notes)
		}
	}
}

func TestFitRepairsBackup(t *testing.T) {
	image := small().disk()
	image[len(image)-512]++
	disk, edits, notes := fitted(t, image, 512, 8<<20)
	if len(edits) == 0 || len(notes) != 2 || !strings.Contains(notes[0], "damaged") {
		t.Fatalf("%d edits, notes %q", len(edits), notes)
	}
	checkMoved(t, image, disk, 512)
}

func TestFitSameSize(t *testing.T) {
	image := small().disk()
	if _, edits, notes := fitted(t, image, 512, int64(len(image))); edits != nil || notes != nil {
		t.Errorf("%d edits, notes %q", len(edits), notes)
	}
}

func TestFitRefusesMistakes(t *testing.T) {
	image := small().disk()
	head, tail := ends(image)
	n := int64(len(image))
	for _, c := range []struct {
		sector    int
		image, to int64
	}{{512, n, n - 512}, {512, 0, n}, {512, n, n + 1}, {511, n, n + 512}, {0, n, n}, {512, 512, n}, {1 << 17, n, 2 * n}} {
		if edits, _, err := Fit(c.sector)(head, tail, c.image, c.to); err == nil {
			t.Errorf("%+v: no error, %d edits", c, len(edits))
		}
	}
}

// The programs that administrators use must find nothing to say of a moved
// table, list the same partitions as before, and find the new backup.
func TestFitBesideRealTools(t *testing.T) {
	testenv.Tools(t, "sfdisk", "sgdisk")
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	mustWrite(t, path, make([]byte, 16<<20))
	tool(t, "label: gpt\nsize=1M,type=U\nsize=8M,type=S\ntype=L\n", "sfdisk", "-q", path)
	bySfdisk := mustRead(t, path)
	mustWrite(t, path, make([]byte, 16<<20))
	tool(t, "", "sgdisk", "-n", "1:0:+2M", "-n", "2:0:0", path)
	for name, image := range map[string][]byte{"sfdisk": bySfdisk, "sgdisk": mustRead(t, path)} {
		for _, more := range []int64{512, 16 << 10, 40 << 20} {
			mustWrite(t, path, image)
			before := tool(t, "", "sfdisk", "-d", path)
			disk, edits, notes := fitted(t, image, 512, int64(len(image))+more)
			if len(edits) == 0 {
				t.Fatalf("by %s, %d bytes more: no edits, %q", name, more, notes)
			}
			checkMoved(t, image, disk, 512)
			mustWrite(t, path, disk)
			if out := tool(t, "", "sgdisk", "--verify", path); !strings.Contains(out, "No problems found") {
				t.Errorf("by %s, %d bytes more: sgdisk --verify says\n%s", name, more, out)
			}
			if out := tool(t, "", "sfdisk", "--verify", path); strings.Contains(out, "corrupt") || strings.Contains(out, "not") {
				t.Errorf("by %s, %d bytes more: sfdisk --verify says\n%s", name, more, out)
			}
			if after := tool(t, "", "sfdisk", "-d", path); withoutLast(after) != withoutLast(before) {
				t.Errorf("by %s, %d bytes more: sfdisk lists\n%s\nbefore, and\n%s\nnow", name, more, before, after)
			}
			clear(disk[512:1024]) // with the primary gone, the backup must be found
			mustWrite(t, path, disk)
			if out := tool(t, "", "sfdisk", "-d", path); !strings.Contains(out, "backup") || strings.Count(out, "start=") != strings.Count(before, "start=") {
				t.Errorf("by %s, %d bytes more: without the primary sfdisk says\n%s", name, more, out)
			}
		}
	}
}

// withoutLast drops the line of a dump that must differ.
func withoutLast(dump string) string {
	lines := strings.Split(dump, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "last-lba:") }), "\n")
}

func mustWrite(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tool(t testing.TB, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	if p, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		cmd.Path, cmd.Err = p, nil
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
