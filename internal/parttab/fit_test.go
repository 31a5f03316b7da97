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
func fitted(t testing.TB, image []byte, sector int, size int64) (disk []byte, f Fitted) {
	t.Helper()
	head, tail := ends(image)
	wasHead, wasTail := slices.Clone(head), slices.Clone(tail)
	f, err := Fit(sector)(head, tail, int64(len(image)), size)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(head, wasHead) || !bytes.Equal(tail, wasTail) {
		t.Fatal("Fit changed what it was given")
	}
	disk = append(slices.Clone(image), bytes.Repeat([]byte{0xDD}, int(size)-len(image))...)
	checkEdits(t, f.Edits, sector, int64(len(head)), int64(len(image)-len(tail)), int64(len(image)), size)
	for _, e := range f.Edits {
		copy(disk[e.Off:], e.Data)
	}
	return disk, f
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
				disk, f := fitted(t, image, tab.sector, int64(len(image))+more*int64(tab.sector))
				if len(f.Edits) == 0 || len(f.Notes) != 1 || len(f.Warnings) != 0 {
					t.Fatalf("%d edits, notes %q %q", len(f.Edits), f.Notes, f.Warnings)
				}
				checkMoved(t, image, disk, tab.sector)
				if got, want := binary.LittleEndian.Uint32(disk[458:]), uint32(len(disk)/tab.sector-1); got != want {
					t.Errorf("the protective entry has %d sectors, want %d", got, want)
				}
			})
		}
	}
}

// A primary may call sectors usable where its backup should be; the new one
// leaves room.
func TestFitLeavesRoom(t *testing.T) {
	image := small().disk()
	h := image[512:1024]
	binary.LittleEndian.PutUint64(h[48:], 8191-5)
	sign(h)
	clear(image[len(image)-512:])
	disk, f := fitted(t, image, 512, 8<<20)
	g, err := disk2(disk).primary()
	b, err2 := disk2(disk).backup(16383)
	if len(f.Edits) == 0 || err != nil || err2 != nil || !g.agrees(b) || g.last != 16383-33 {
		t.Errorf("%v, %v, %+v, %+v", err, err2, g, f)
	}
}

// Other sizes than the disk's stand in protective entries of some tools (all
// ones); they stay.
func TestFitKeepsOddProtectiveSize(t *testing.T) {
	tab := small()
	tab.mbrSectors = 0xFFFFFFFF
	image := tab.disk()
	disk, f := fitted(t, image, 512, 8<<20)
	checkMoved(t, image, disk, 512)
	if f.Edits[0].Off != 512 || !bytes.Equal(disk[:512], image[:512]) {
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

// What is left alone, and said: a warning where there is a GPT. In the cases
// with a sound primary its partitions are found on the larger disk all the same.
func TestFitLeavesAlone(t *testing.T) {
	le := binary.LittleEndian
	header := func(at int, change func(h []byte)) func([]byte) {
		return func(b []byte) {
			h := b[(at+len(b))%len(b):][:512]
			change(h)
			sign(h)
		}
	}
	both := func(changes ...func(b []byte)) func([]byte) {
		return func(b []byte) {
			for _, c := range changes {
				c(b)
			}
		}
	}
	noBackup := func(b []byte) { b[len(b)-512]++ }
	for name, c := range map[string]struct {
		change  func(b []byte)
		say     string
		warning bool
	}{
		"no table":                {func(b []byte) { clear(b[:1024]) }, "there is none", false},
		"boot record only":        {func(b []byte) { b[450] = 0x83; clear(b[512:1024]) }, "it is no GPT", false},
		"boot record, old GPT":    {func(b []byte) { b[450] = 0x83 }, "it is no GPT", false},
		"GPT without protection":  {func(b []byte) { clear(b[446:510]) }, "no boot record that speaks of it", true},
		"GPT without boot record": {func(b []byte) { clear(b[:512]) }, "no boot record that speaks of it", true},
		"two protective":          {func(b []byte) { b[466] = 0xEE }, "two protective", true},
		"protective elsewhere":    {func(b []byte) { b[454] = 2 }, "starts at sector 2", true},
		"status":                  {func(b []byte) { b[446] = 0x12 }, "status 0x12", true},
		"hybrid on the header": {func(b []byte) { b[466] = 7; le.PutUint32(b[470:], 1); le.PutUint32(b[474:], 3) },
			"partition 2 of the boot record lies", true},
		"hybrid on the new backup": {func(b []byte) { b[466] = 7; le.PutUint32(b[470:], 8000); le.PutUint32(b[474:], 9000) },
			"partition 2 of the boot record lies", true},
		"no backup, no header": {both(noBackup, func(b []byte) { b[512] = 'e' }), "neither GPT can be used: it is no GPT", true},
		"no backup, checksum":  {both(noBackup, func(b []byte) { b[512+60]++ }), "checksum of the GPT's header", true},
		"no backup, entries":   {both(noBackup, func(b []byte) { b[1024+60]++ }), "checksum of the GPT's entries", true},
		"no backup, cut image": {both(noBackup, header(512, func(h []byte) { le.PutUint64(h[32:], 8192) })), "outside the disk", true},
		"no backup, too far": {both(noBackup, header(512, func(h []byte) { le.PutUint64(h[72:], 3000); le.PutUint64(h[40:], 4000) })),
			"first MiB", true},
		"backup inside":  {header(512, func(h []byte) { le.PutUint64(h[32:], 8000) }), "among the partitions", true},
		"backup differs": {header(-512, func(h []byte) { h[56]++ }), "differs from its primary", true},
		"another at the end": {both(header(512, func(h []byte) { le.PutUint64(h[32:], 8190) }), header(-512, func(h []byte) { h[56]++ })),
			"another GPT at the image's end", true},
	} {
		t.Run(name, func(t *testing.T) {
			image := small().disk()
			c.change(image)
			_, f := fitted(t, image, 512, 8<<20)
			said, other := f.Notes, f.Warnings
			if c.warning {
				said, other = other, said
			}
			if len(f.Edits) != 0 || len(said) != 1 || len(other) != 0 || !strings.Contains(said[0], c.say) {
				t.Errorf("%d edits, notes %q, warnings %q; want none and %q", len(f.Edits), f.Notes, f.Warnings, c.say)
			}
		})
	}
}

// A damaged primary is made anew from the backup.
func TestFitMakesPrimary(t *testing.T) {
	wide := small()
	wide.parts, wide.count = []span{{300, 400}}, 256
	large := table{sector: 4096, sectors: 1024, count: 128, parts: []span{{6, 900}}}
	for name, change := range map[string]func(b []byte, s int){
		"header gone":     func(b []byte, s int) { clear(b[s : 2*s]) },
		"header noise":    func(b []byte, s int) { copy(b[s:], bytes.Repeat([]byte{0x5A}, s)) },
		"header checksum": func(b []byte, s int) { b[s+90]++ },
		"header length":   func(b []byte, s int) { b[s+12]++ },
		"entries":         func(b []byte, s int) { b[2*s+60]++ },
		"all of it":       func(b []byte, s int) { clear(b[s : 6*s]) },
		"boot code":       func(b []byte, s int) { copy(b, "\xEB\x63 GRUB and so on"); clear(b[s : 2*s]) },
	} {
		for kind, tab := range map[string]table{"usual": small(), "256 entries": wide, "sectors of 4096": large} {
			t.Run(name+" "+kind, func(t *testing.T) {
				sound := tab.disk()
				image := slices.Clone(sound)
				change(image, tab.sector)
				disk, f := fitted(t, image, tab.sector, int64(len(image))+12345*int64(tab.sector))
				if len(f.Edits) != 4 || len(f.Notes) != 1 || len(f.Warnings) != 0 || !strings.Contains(f.Notes[0], "made from the backup") {
					t.Fatalf("%d edits, notes %q, warnings %q", len(f.Edits), f.Notes, f.Warnings)
				}
				checkMoved(t, sound, disk, tab.sector)
				if n := tab.sector; !bytes.Equal(disk[:440], image[:440]) || !bytes.Equal(disk[n+200:n+n], image[len(image)-n+200:]) {
					t.Error("boot code was changed")
				}
			})
		}
	}
}

// Where the primary must stay as it is, the backup is moved all the same, so
// that programs find it that did before.
func TestFitMovesBackupAlone(t *testing.T) {
	le := binary.LittleEndian
	primary := func(change func(h []byte)) func([]byte) {
		return func(b []byte) { change(b[512:]); sign(b[512:1024]) }
	}
	for name, c := range map[string]struct {
		change func(b []byte)
		say    string
	}{
		"revision":              {primary(func(h []byte) { h[10] = 2 }), "checksums are right"},
		"reserved":              {primary(func(h []byte) { h[20] = 1 }), "checksums are right"},
		"other place":           {primary(func(h []byte) { le.PutUint64(h[24:], 2) }), "says that it stands at 2"},
		"cut image":             {primary(func(h []byte) { le.PutUint64(h[32:], 8192) }), "outside the disk"},
		"entry size":            {primary(func(h []byte) { le.PutUint32(h[84:], 129) }), "129 bytes each"},
		"no entries":            {primary(func(h []byte) { le.PutUint32(h[80:], 0) }), "0 entries"},
		"millions of entries":   {primary(func(h []byte) { le.PutUint32(h[80:], 1<<31) }), "2147483648 entries"},
		"entries on header":     {primary(func(h []byte) { le.PutUint64(h[72:], 1) }), "lie on its header"},
		"entries on partitions": {primary(func(h []byte) { le.PutUint64(h[72:], 9) }), "lie on its header or on partitions"},
		"entries beyond":        {primary(func(h []byte) { le.PutUint64(h[72:], 1<<63) }), "outside the disk"},
		"usable turned round":   {primary(func(h []byte) { le.PutUint64(h[40:], 8159) }), "are usable"},
		"far and differs": {primary(func(h []byte) { le.PutUint64(h[72:], 3000); le.PutUint64(h[40:], 4000) }),
			"the backup differs from it"},
		"of another disk": {func(b []byte) { b[512+60]++ }, "another disk"},
		"FAT":             {func(b []byte) { clear(b[512:1024]); copy(b, fatBoot) }, "boot sector of a file system"},
		"two protective":  {func(b []byte) { clear(b[512:1024]); b[466] = 0xEE }, "two protective"},
		"GRUB":            {func(b []byte) { clear(b[512:1024]); b[0x5C] = 1; copy(b[0x180:], "GRUB \x00") }, "starts a boot loader"},
		"GRUB legacy":     {func(b []byte) { clear(b[512:1024]); b[0x44] = 1; copy(b[0x180:], "GRUB \x00") }, "starts a boot loader"},
	} {
		t.Run(name, func(t *testing.T) {
			image := small().disk()
			c.change(image)
			disk, f := fitted(t, image, 512, 8<<20)
			if len(f.Edits) == 0 || len(f.Notes) != 0 || len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], c.say) {
				t.Fatalf("%d edits, notes %q, warnings %q; want %q", len(f.Edits), f.Notes, f.Warnings, c.say)
			}
			if !bytes.Equal(disk[:1<<20], image[:1<<20]) {
				t.Error("the first MiB was changed")
			}
			g, err := parseBackup(disk, 512, 16384)
			was, _ := parseBackup(image, 512, 8192)
			if err != nil || !slices.Equal(g.partitions(), was.partitions()) {
				t.Errorf("the new backup: %v", err)
			}
		})
	}
}

// A disk that was made larger before the image was taken has its backup
// elsewhere. Entries may lie behind the first MiB.
func TestFitOddPlaces(t *testing.T) {
	grown := append(small().disk(), make([]byte, 3<<20)...)
	bad := slices.Clone(grown)
	clear(bad[8191*512 : 8192*512])
	far := small()
	far.parts = []span{{6000, 7000}}
	away := far.disk()
	h := away[512:1024]
	binary.LittleEndian.PutUint64(h[72:], 4000)
	copy(away[4000*512:], away[1024:1024+32*512])
	clear(away[1024 : 1024+32*512])
	for _, at := range []int{512, len(away) - 512} {
		binary.LittleEndian.PutUint64(away[at+40:], 4032)
		sign(away[at : at+512])
	}
	hybrid := small().disk()
	copy(hybrid[462:], []byte{0, 0, 0, 0, 0x0C, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0}) // sectors 2048 to 4095
	hurt := slices.Clone(hybrid)
	clear(hurt[512:1024])
	for name, image := range map[string][]byte{"grown": grown, "grown, no backup": bad, "entries far away": away, "hybrid": hybrid,
		"hybrid, no primary": hurt} {
		t.Run(name, func(t *testing.T) {
			disk, f := fitted(t, image, 512, int64(len(image))+1<<20)
			if len(f.Edits) == 0 || len(f.Warnings) != 0 {
				t.Fatalf("%+v", f)
			}
			n := uint64(len(disk) / 512)
			g, err := disk2(disk).primary()
			b, err2 := disk2(disk).backup(n - 1)
			if err != nil || err2 != nil || !g.agrees(b) || g.alternate != n-1 || g.last != n-34 {
				t.Fatalf("%v, %v, %+v", err, err2, g)
			}
			if want := small().disk(); name != "entries far away" && !bytes.Equal(g.entries, want[1024:1024+len(g.entries)]) {
				t.Error("the partitions are others")
			}
			if mbr := disk[:512]; strings.Contains(name, "hybrid") && !bytes.Equal(mbr, image[:512]) {
				t.Error("a hybrid boot record was changed")
			}
		})
	}
}

func disk2(b []byte) disk { return newDisk(bytes.NewReader(b), int64(len(b)), 512) }

// The source has partitions by its backup, and the target would have none.
func TestFitNotPossible(t *testing.T) {
	tab := table{sector: 512, sectors: 16384, count: 128, parts: []span{{100, 200}}, reserve: 4000}
	image := tab.disk()
	clear(image[512:1024])
	h := image[len(image)-512:]
	at := le64(h, 72)
	copy(image[(at-3000)*512:], image[at*512:(at+32)*512])
	binary.LittleEndian.PutUint64(h[72:], at-3000)
	sign(h)
	if got, err := Read(bytes.NewReader(image), int64(len(image)), 512); err != nil || len(got.Parts) != 1 {
		t.Fatal(err)
	}
	head, tail := ends(image)
	f, err := Fit(512)(head, tail, int64(len(image)), 16<<20)
	if err == nil || !strings.Contains(err.Error(), "exactly 8388608 bytes") || len(f.Edits) > 0 {
		t.Errorf("%v, %+v", err, f)
	}
}

func TestFitPartitionsMustBeSane(t *testing.T) {
	for name, parts := range map[string][]span{
		"overlapping": {{100, 200}, {200, 300}}, "turned round": {{200, 100}}, "on the entries": {{33, 100}}, "on the backup": {{100, 8159}},
	} {
		tab := small()
		tab.parts = parts
		if _, f := fitted(t, tab.disk(), 512, 8<<20); len(f.Edits) != 0 || len(f.Warnings) != 1 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestFitRepairsBackup(t *testing.T) {
	image := small().disk()
	image[len(image)-512]++
	disk, f := fitted(t, image, 512, 8<<20)
	if len(f.Edits) == 0 || len(f.Notes) != 2 || !strings.Contains(f.Notes[0], "damaged") || len(f.Warnings) != 0 {
		t.Fatalf("%d edits, notes %q %q", len(f.Edits), f.Notes, f.Warnings)
	}
	checkMoved(t, image, disk, 512)
}

func TestFitSameSize(t *testing.T) {
	image := small().disk()
	if _, f := fitted(t, image, 512, int64(len(image))); f.Edits != nil || f.Notes != nil || f.Warnings != nil {
		t.Errorf("%+v", f)
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
		if f, err := Fit(c.sector)(head, tail, c.image, c.to); err == nil {
			t.Errorf("%+v: no error, %d edits", c, len(f.Edits))
		}
	}
}

// The programs that administrators use must find nothing to say of a moved
// table, list the same partitions as before, and find the new backup.
func TestFitBesideRealTools(t *testing.T) {
	testenv.Tools(t, "sfdisk", "sgdisk")
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	mustWrite(t, path, make([]byte, 6<<20))
	tool(t, "label: gpt\nsize=1M,type=U\nsize=2M,type=S\ntype=L\n", "sfdisk", "-q", path)
	bySfdisk := mustRead(t, path)
	mustWrite(t, path, make([]byte, 6<<20))
	tool(t, "", "sgdisk", "-n", "1:0:+2M", "-n", "2:0:0", path)
	for name, image := range map[string][]byte{"sfdisk": bySfdisk, "sgdisk": mustRead(t, path)} {
		for _, more := range []int64{512, 16 << 10, 5 << 20} {
			mustWrite(t, path, image)
			before := tool(t, "", "sfdisk", "-d", path)
			disk, f := fitted(t, image, 512, int64(len(image))+more)
			if len(f.Edits) == 0 {
				t.Fatalf("by %s, %d bytes more: no edits, %+v", name, more, f)
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
			if out := tool(t, "", "sfdisk", "-d", path); !strings.Contains(out, "backup") ||
				strings.Count(out, "start=") != strings.Count(before, "start=") {
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
