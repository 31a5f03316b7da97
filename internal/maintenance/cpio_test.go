package maintenance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

func testEntries() []entry {
	return []entry{
		{path: "lib/modules/e1000e.ko", mode: modeFile | 0o644, data: []byte("module")},
		{path: "init", mode: modeFile | 0o755, data: bytes.Repeat([]byte("agent"), 1001)},
		{path: "lib-a", mode: modeFile | 0o600},
		{path: "proc", mode: modeDir | 0o555},
	}
}

func archive(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeCPIO(&b, entries); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The real program reads what we write.
func TestCPIOByCpio(t *testing.T) {
	testenv.Tools(t, "cpio")
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-idmv", "--no-absolute-filenames", "--quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(archive(t, testEntries()))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{"init", "lib", "lib/modules", "lib/modules/e1000e.ko", "lib-a", "proc"}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("archive holds %v, want %v", got, want)
	}
	for _, e := range testEntries() {
		st, err := os.Stat(filepath.Join(dir, e.path))
		if err != nil {
			t.Fatal(err)
		}
		if uint32(st.Mode().Perm()) != e.mode&0o777 || st.IsDir() != (e.mode&modeDir != 0) {
			t.Errorf("%s has mode %v", e.path, st.Mode())
		}
		if data, _ := os.ReadFile(filepath.Join(dir, e.path)); !bytes.Equal(data, e.data) {
			t.Errorf("%s has %d bytes", e.path, len(data))
		}
	}
}

// One entry byte by byte, after the kernel's buffer-format.rst.
func TestCPIOBytes(t *testing.T) {
	got := archive(t, []entry{{path: "dev/console", mode: modeChar | 0o600, rdev: [2]uint32{5, 1}}})
	folder := "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000002" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "dev\x00\x00\x00"
	node := "070701" + "00000002" + "00002180" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000005" + "00000001" + "0000000C" + "00000000" + "dev/console\x00\x00\x00"
	end := "070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\x00\x00\x00\x00"
	if string(got) != folder+node+end {
		t.Errorf("got  %q\nwant %q", got, folder+node+end)
	}
}

func TestCPIOIsReproducible(t *testing.T) {
	entries := testEntries()
	first := archive(t, entries)
	slices.Reverse(entries)
	if !bytes.Equal(first, archive(t, entries)) {
		t.Error("the order of the entries changes the archive")
	}
	if err := writeCPIO(&bytes.Buffer{}, append(entries, entries[0])); err == nil {
		t.Error("a file that stands twice was taken")
	}
}
