package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/rawgz"
	"testbox-imaging/internal/testenv"
)

// shell runs commands in this process, in a folder of its own.
type shell struct {
	t   testing.TB
	ctx context.Context
	dir string
}

func newShell(t testing.TB) *shell {
	s := &shell{t, t.Context(), t.TempDir()}
	t.(interface{ Setenv(string, string) }).Setenv("TESTBOX_STORE", s.path("store"))
	return s
}

func (s *shell) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shell) write(name string, b []byte) string {
	s.t.Helper()
	if err := writeFile(s.path(name), string(b)); err != nil {
		s.t.Fatal(err)
	}
	return s.path(name)
}

// run runs a command, which must end with code, and gives what it said.
func (s *shell) run(code int, args ...string) string {
	s.t.Helper()
	return s.cancelled("", code, args...)
}

// cancelled is run of a command that is interrupted once it says word.
func (s *shell) cancelled(word string, code int, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	out := &listener{word: word, heard: cancel}
	if got := run(ctx, newRootCmd(realWorld()), args, out, out); got != code {
		s.t.Fatalf("testbox %s: exit code %d\n%s", strings.Join(args, " "), got, out)
	}
	return out.String()
}

// listener calls heard when a word comes by.
type listener struct {
	bytes.Buffer
	word  string
	heard func()
}

func (l *listener) Write(p []byte) (int, error) {
	if l.word != "" && strings.Contains(string(p), l.word) {
		l.heard()
	}
	return l.Buffer.Write(p)
}

func (s *shell) same(path string, want []byte) {
	s.t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("%s is not what it was (%v)", path, err)
	}
}

// TestInterrupted: what is interrupted leaves nothing that could be taken for
// whole, and the next one is not in its way.
func TestInterrupted(t *testing.T) {
	s := newShell(t)
	disk := conform.Disks(5 << 20)["noise"]
	img := s.write("a.img", disk)
	s.run(0, "store", "init")
	if out := s.cancelled("counts as used", 1, "image", "create", "box", img); !strings.Contains(out, "interrupted") {
		t.Error(out)
	}
	if out := s.run(0, "image", "list"); !strings.Contains(out, "there are no backups") {
		t.Error(out)
	}
	s.run(0, "image", "create", "box", img)

	target := s.path("new.img")
	s.cancelled("differ on the disk", 1, "image", "restore", "--yes", "box", target)
	if _, err := os.Stat(target); err == nil {
		t.Error("a restore that was interrupted before its first write left a file")
	}
	old := conform.Disks(5 << 20)["mixed"]
	s.write("new.img", old)
	s.cancelled("differ on the disk", 1, "image", "restore", "--yes", "box", target)
	s.same(target, old)
	s.run(0, "image", "restore", "--yes", "box", target)
	s.same(target, disk)
	s.run(0, "store", "scrub")
}

// TestRunningMachine: the disk of a virtual machine is not written over, and
// read only if that is meant.
func TestRunningMachine(t *testing.T) {
	s := newShell(t)
	testenv.Tools(t, "qemu-system-x86_64")
	s.run(0, "store", "init")
	disk := conform.Disks(1 << 20)["mixed"]
	img := s.write("vm.img", disk)
	s.run(0, "image", "create", "vm", img)
	sock := s.path("qmp")
	vm := exec.Command("qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-drive", "format=raw,file="+img, "-qmp",
		"unix:"+sock+",server,nowait")
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { vm.Process.Kill(); vm.Wait() }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(sock); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("the machine does not start")
		}
	}
	for _, args := range [][]string{{"create", "vm", img}, {"restore", "--yes", "--full", "vm", img}} {
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // it opens its disk about then
			out := &listener{}
			code := run(s.ctx, newRootCmd(realWorld()), append([]string{"image"}, args...), out, out)
			if code == exitRefused && strings.Contains(out.String(), "running virtual machine") {
				break
			} else if time.Now().After(end) {
				t.Fatalf("%v: exit code %d: %s", args, code, out)
			}
		}
	}
	s.run(exitRefused, "image", "import", "vm", img)
	if out := s.run(0, "image", "create", "--busy", "vm", img); !strings.Contains(out, "is in use") {
		t.Error(out)
	}
	s.run(0, "image", "verify", "vm", img)
	s.same(img, disk)
}

// sharedDisk writes an image of share mode, with its sidecar.
func (s *shell) sharedDisk(box, name string, disk []byte, bad ...image.Range) {
	s.t.Helper()
	var b bytes.Buffer
	w := rawgz.NewWriter(&b)
	for off := 0; off < len(disk); off += image.PieceSize {
		piece := disk[off:min(off+image.PieceSize, len(disk))]
		enc, err := w.Encode(nil, piece)
		if err == nil {
			err = w.Append(piece, enc)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	sums, err := w.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	f := image.Facts{
		Format: image.FactsFormat, Name: name, Kernel: name, Disk: image.Identity{Size: int64(len(disk)), SectorSize: 512, Serial: "S-" + name},
		Box: box, Host: "web", Arming: "20261120-101112-0011aabb", Time: time.Date(2026, 11, 20, 10, 11, 12, 0, time.UTC),
		BLAKE3: sums.BLAKE3, SHA256: sums.SHA256, FileSize: sums.FileSize, Bad: bad,
		Firmware: &efi.State{Kind: efi.UEFI, Version: "7.8.9"},
	}
	s.write(box+"/"+name+".raw.gz", b.Bytes())
	s.write(box+"/"+name+".json", f.Marshal())
}

// TestImportFolder: a backup of share mode keeps its time and what is known of
// its disks; half of one is none.
func TestImportFolder(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	a, b := conform.Disks(3<<20 + 512)["mixed"], conform.Disks(1 << 20)["text"]
	s.sharedDisk("10.40.41.42", "sda", a)
	s.sharedDisk("10.40.41.42", "sdb", b, image.Range{Off: 512, Len: 1024})
	folder := s.path("10.40.41.42")
	if out := s.run(exitBadSectors, "image", "import", folder); !strings.Contains(out, "sdb: bytes 512 to 1535 cannot be read") {
		t.Error(out)
	}
	out := s.run(0, "image", "show", "10.40.41.42@2026-11-20")
	for _, want := range []string{"backup 20261120-101112 of 10.40.41.42, 2026-11-20T10:11:12Z", "host: web", "S-sda", "7.8.9",
		"bytes 512 to 1535 could not be read"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	s.run(exitBadSectors, "image", "restore", "--yes", "10.40.41.42", "sda="+s.path("x"), "sdb="+s.path("y"))
	s.same(s.path("x"), a)
	s.same(s.path("y"), b)
	for _, to := range []string{"-", s.path("z.qcow2")} {
		if out := s.run(exitBadSectors, "image", "export", "10.40.41.42:sdb", to); !strings.Contains(out,
			"sdb: bytes 512 to 1535 cannot be read") {
			t.Errorf("an export to %s says %q", to, out[max(0, len(out)-300):])
		}
	}
	// A mount fails here, where it would come after the warning.
	if out := s.run(exitWrong, "image", "mount", "--foreground", "10.40.41.42:sdb", folder); !strings.Contains(out,
		"sdb: bytes 512 to 1535 cannot be read") {
		t.Error(out)
	}
	if out := s.run(0, "image", "import", folder); !strings.Contains(out, "backup 20261120-101112 of 10.40.41.42 was there already") {
		t.Error(out)
	}

	// One that is damaged there is no reason to pass over a good one.
	packs, _ := filepath.Glob(s.path("store/packs/data-*"))
	flipByte(t, packs[0], 2000)
	s.run(1, "image", "verify", "10.40.41.42")
	if out := s.run(exitBadSectors, "image", "import", folder); !strings.Contains(out, "is damaged in the store, and is imported again") {
		t.Error(out)
	}
	s.run(exitBadSectors, "image", "verify", "10.40.41.42@latest~1")
	s.run(0, "image", "delete", "--yes", "10.40.41.42@latest")
	if out := s.run(0, "image", "import", folder); !strings.Contains(out, "was there already") {
		t.Error(out)
	}

	spoiled := map[string]func(string){
		"an image is missing":      func(dir string) { os.Remove(dir + "/sdb.raw.gz") },
		"not in place":             func(dir string) { os.WriteFile(dir+"/commit.json", []byte("{}"), 0o600) },
		"two images":               func(dir string) { os.WriteFile(dir+"/sda.gz", []byte("x"), 0o600) },
		"sidecar is not readable":  func(dir string) { os.WriteFile(dir+"/sda.json", []byte("{"), 0o600) },
		"the file itself":          func(dir string) { flipByte(t, dir+"/sda.raw.gz", 1000) },
		"sidecar of another image": func(dir string) { os.Rename(dir+"/sdb.json", dir+"/sda.json"); os.Remove(dir + "/sdb.raw.gz") },
	}
	empty := s.path("empty") // what a store has already is not looked at again
	s.run(0, "store", "init", empty)
	for what, spoil := range spoiled {
		dir := filepath.Join(t.TempDir(), "10.40.41.42")
		if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		spoil(dir)
		out := &listener{}
		if code := run(t.Context(), newRootCmd(realWorld()), []string{"image", "import", "--store", empty, dir}, out, out); code == exitDone ||
			code == exitBadSectors {
			t.Errorf("%s: taken:\n%s", what, out)
		}
	}
	other := s.path("elsewhere")
	if err := os.CopyFS(other, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	s.run(exitRefused, "image", "import", other)
	if out := s.run(0, "store", "stats"); !strings.HasPrefix(out, "1 backup of 1 box:") {
		t.Error(out)
	}
}

// dated writes a backup of share mode with a time; sdb has bad sectors in these
// places.
func (s *shell) dated(at string, disk []byte, bad ...image.Range) string {
	s.t.Helper()
	s.sharedDisk("web-1", "sda", disk)
	s.sharedDisk("web-1", "sdb", disk, bad...)
	for _, name := range []string{"sda", "sdb"} {
		path := s.path("web-1/" + name + ".json")
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		dated := strings.NewReplacer("2026-11-20T10:11:12Z", at, "20261120-101112-0011aabb", "of "+at) // each backup has an arming of its own
		s.write("web-1/"+name+".json", []byte(dated.Replace(string(text))))
	}
	return s.path("web-1")
}

// shows wants texts in a command's output, and others not, which begin with !.
func (s *shell) shows(out string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		not, unwanted := strings.CutPrefix(text, "!")
		if strings.Contains(out, not) == unwanted {
			s.t.Errorf("wanted: %q, in\n%s", text, out)
		}
	}
}

// TestBadSectorsStay: a backup with bad sectors is never taken for a whole one.
func TestBadSectorsStay(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	disk := conform.Disks(1 << 20)["mixed"]
	s.run(0, "image", "import", s.dated("2026-11-20T10:11:12Z", disk))
	bad := image.Range{Off: 65536, Len: 1024}
	s.run(exitBadSectors, "image", "import", s.dated("2026-11-21T10:11:12Z", disk, bad))
	bad.Off = 512
	s.run(exitBadSectors, "image", "import", s.dated("2026-11-22T10:11:12Z", disk, bad))
	s.shows(s.run(0, "image", "list"), " !\n", "web-1@20261121-101112: sdb: 1024 bytes could not be read when it was backed up, and are "+
		"zeros, at 65536+1024")
	s.shows(s.run(exitBadSectors, "image", "verify", "web-1"), "sdb: bytes 512 to 1535 cannot be read", "but for sectors")
	s.run(0, "image", "verify", "web-1:sda")
	s.run(0, "image", "verify", "web-1@2026-11-20")
	x, y := "sda="+s.path("x"), "sdb="+s.path("y")
	s.shows(s.run(exitBadSectors, "image", "restore", "--yes", "web-1", x, y),
		"sdb of backup 20261122-101112 is damaged; its last whole image is in web-1@20261120-101112", "bytes 512 to 1535",
		"is restored, and read back")
	s.shows(s.run(exitBadSectors, "image", "verify", "web-1", x, y), "the disks hold backup")
	s.shows(s.run(exitBadSectors, "image", "export", "web-1:sdb", s.path("sdb.raw")), "bytes 512 to 1535")
	s.run(0, "image", "restore", "--yes", "web-1:sda", s.path("z"))
	for _, flags := range [][]string{{"--keep-last", "1"}, {"--keep-daily", "1"}, {"--keep-last", "2", "--keep-monthly", "1"}} {
		s.shows(s.run(0, append([]string{"image", "delete"}, flags...)...), "web-1 20261120-101112: keep (last whole sdb)",
			"!delete backup 20261120")
	}
	s.shows(s.run(0, "image", "delete", "--keep-last", "1", "--yes"), "delete backup 20261121")
	s.shows(s.run(exitRefused, "image", "delete", "web-1@20261120-101112", "--yes"), "of sdb of web-1 only damaged images would be left",
		"--last-whole")
	s.run(0, "image", "show", "web-1@20261120-101112")
	s.shows(s.run(0, "image", "delete", "web-1@latest", "web-1@latest~1"), "after that, web-1 has no backup")
	s.run(0, "image", "delete", "web-1@20261120-101112", "--yes", "--last-whole")
	s.run(exitWrong, "image", "show", "web-1@20261120-101112")
}

// TestWrongClock: a backup of 2037 is not the latest, takes no place in
// retention, is said, and is put right.
func TestWrongClock(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	disk := conform.Disks(1 << 20)["mixed"]
	s.run(0, "image", "import", s.dated("2026-11-20T10:11:12Z", disk))
	s.shows(s.run(0, "image", "import", s.dated("2037-01-01T00:00:00Z", disk)), "is dated in the future: it is not web-1@latest")
	s.shows(s.run(0, "image", "import", s.dated("1970-01-01T00:10:00Z", disk)), "is dated before there was this program")
	s.shows(s.run(0, "image", "show", "web-1"), "backup 20261120-101112",
		"backup 20370101-000000 of web-1 is dated in the future, and is not taken for the latest")
	s.shows(s.run(0, "image", "show", "web-1@2037"), "time: dated in the future, which cannot be")
	s.shows(s.run(0, "image", "show", "--json", "web-1@2037"), `"misdated": "dated in the future"`)
	out := s.run(0, "image", "create", "web-1", "sda="+s.write("a.img", disk), "sdb="+s.write("b.img", disk))
	s.shows(out, "backup 20370101-000000 of web-1 is dated later than the clock",
		"backup 20370101-000000 was there already and is dated later")
	out = s.run(0, "image", "list")
	s.shows(out, " T\n", "web-1@latest is "+time.Now().UTC().Format("20060102-"))
	s.shows(s.run(0, "image", "show", "web-1@latest"), "after 20370101-000000")
	s.shows(s.run(0, "image", "show", "web-1@latest~1"), "backup 20261120-101112")
	s.shows(s.run(0, "image", "delete", "--keep-last", "1"), "20370101-000000: keep (dated in the future)",
		"19700101-001000: keep (dated before there was this program)", "delete backup 20261120", "keep (last)")

	s.run(exitWrong, "image", "date", "web-1@2037", "2037-02-01T00:00:00Z")
	s.run(exitWrong, "image", "date", "web-1@2037", "yesterday")
	s.run(exitWrong, "image", "date", "web-1", "2026-11-21T10:00")
	s.run(0, "image", "pin", "web-1@2037")
	s.shows(s.run(0, "image", "date", "web-1@2037", "2026-11-21T10:00"), "backup 20370101-000000 of web-1 is 20261121-100000 now", "pinned")
	s.run(exitWrong, "image", "show", "web-1@20370101-000000")
	s.run(0, "image", "verify", "web-1@20261121-100000")
	s.run(0, "image", "date", "web-1@1970", "2026-11-21T10:00")
	s.run(0, "image", "show", "web-1@20261121-100000-2")
	s.shows(s.run(0, "image", "list"), "! T\n")
	s.run(0, "store", "scrub")
}

func flipByte(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		b[at] ^= 1
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestImportForms: the same disk in any form is the same image.
func TestImportForms(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	disk := conform.Disks(2<<20 + 512)["mixed"]
	raw := s.write("raw", disk)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zst := s.write("zst", enc.EncodeAll(disk, nil))
	s.run(0, "image", "create", "box", raw)
	for _, path := range []string{raw, zst} {
		s.run(0, "image", "import", "box", path)
		if out := s.run(0, "image", "diff", "box@latest~1", "box"); out != "sda: the same\n" {
			t.Errorf("%s: %s", path, out)
		}
	}
	cut := s.write("cut", enc.EncodeAll(disk, nil)[:500<<10])
	s.run(1, "image", "import", "box", cut)
	s.run(exitWrong, "image", "import", raw)
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "testbox-import-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestStoreInS3 keeps the backups in object storage; another machine needs
// nothing but an empty folder to read them.
func TestStoreInS3(t *testing.T) {
	testenv.Long(t, "9 seconds")
	s := newShell(t)
	server := testenv.StartS3(t)
	url := server.URL(server.Addr, "lab")
	disk := conform.Disks(3 << 20)["mixed"]
	img := s.write("a.img", disk)
	s.run(0, "store", "init", "--s3", url)
	s.run(exitRefused, "store", "init", "--s3", url)
	s.run(0, "image", "create", "box", img)
	s.run(0, "image", "verify", "box")
	s.run(0, "store", "scrub")
	if out := s.run(0, "store", "init", "--s3", url, s.path("second")); !strings.Contains(out, "there is a store at") {
		t.Error(out)
	}
	if out := s.run(exitRefused, "store", "copy", s.path("second")); !strings.Contains(out, "both are the same store") {
		t.Error(out)
	}
	s.run(0, "image", "restore", "--yes", "--store", s.path("second"), "box", s.path("new.img"))
	s.same(s.path("new.img"), disk)
	s.run(0, "image", "delete", "box@latest", "--yes")
	s.run(0, "store", "gc", "--yes")
	s.run(exitWrong, "image", "restore", "--yes", "--store", s.path("second"), "box", s.path("x.img"))
	s.run(exitWrong, "store", "init", "--s3", "http://no/bucket", s.path("third"))
	server.Kill()
	if out := s.run(1, "image", "list"); strings.Contains(out, "no backups") {
		t.Error("a server that is gone is taken for a store without backups")
	}
}

// sharedArea makes a backup area: a box with a backup and an older one, one
// with two disks, one with images made by hand, and one with damage.
func (s *shell) sharedArea() string {
	s.t.Helper()
	disks := conform.Disks(1 << 20)
	s.sharedDisk("10.40.41.42", "sda", disks["mixed"])
	for _, ext := range []string{".raw.gz", ".json"} {
		if err := os.Rename(s.path("10.40.41.42/sda"+ext), s.path("10.40.41.42/sda"+ext+".old")); err != nil {
			s.t.Fatal(err)
		}
	}
	s.edit("10.40.41.42/sda.json.old", "20261120-101112-0011aabb", "20261101-101112-0011aabb", "2026-11-20", "2026-11-01")
	s.sharedDisk("10.40.41.42", "sda", disks["text"])
	s.sharedDisk("10.40.41.44", "sda", disks["mixed"])
	s.sharedDisk("10.40.41.44", "sdb", disks["text"])
	s.write("10.40.41.45/sda.gz", s.gzip(disks["mixed"]))
	s.write("10.40.41.45/sda.gz.old", s.gzip(disks["noise"]))
	s.sharedDisk("10.40.41.46", "sda", disks["mixed"])
	if err := os.Chtimes(s.path("10.40.41.45/sda.gz"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		s.t.Fatal(err)
	}
	s.write("10.40.41.46/sda.json", []byte("{"))
	s.write("10.40.41.47/testbox-info.txt", []byte("no image yet"))
	s.write("testbox-backup", nil)
	return s.path("")
}

func (s *shell) gzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// edit replaces texts in a file.
func (s *shell) edit(name string, pairs ...string) {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err == nil {
		err = os.WriteFile(s.path(name), []byte(strings.NewReplacer(pairs...).Replace(string(b))), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestImportArea: a whole backup area comes into the store in one go, each
// backup once, however often it is run; what is damaged holds up nothing else.
func TestImportArea(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	area := s.sharedArea()
	s.cancelled("is in the store", exitFailed, "image", "import", area)
	out := s.run(exitFailed, "image", "import", area)
	for _, want := range []string{"4 backups imported, 1 was there already, 1 failed", "10.40.41.46/sda.json: sidecar is not readable"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	s.run(0, "image", "verify", "10.40.41.42@latest")
	if out := s.run(0, "image", "show", "10.40.41.42@latest~1"); !strings.Contains(out, "2026-11-01T10:11:12Z") {
		t.Error(out)
	}
	s.run(0, "image", "restore", "--yes", "10.40.41.45", s.path("hand"))
	s.same(s.path("hand"), conform.Disks(1 << 20)["mixed"])

	// What is missing comes, and no more.
	s.run(0, "image", "delete", "--yes", "10.40.41.44@latest")
	s.sharedDisk("10.40.41.46", "sda", conform.Disks(1 << 20)["mixed"])
	for _, want := range []string{"2 backups imported, 4 were there already, 0 failed", "0 backups imported, 6 were there already, 0 failed"} {
		if out := s.run(0, "image", "import", area); !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if out := s.run(0, "image", "import", s.path("10.40.41.42")); !strings.Contains(out,
		"backup 20261101-101112 of 10.40.41.42 was there already") {
		t.Error(out)
	}
	if out := s.run(0, "store", "stats"); !strings.HasPrefix(out, "6 backups") {
		t.Error(out)
	}
}

// TestImportOtherBox: a folder that was copied for another box becomes that
// box's, with a word; images that are not of one backup, or of a partition, are
// none of a box.
func TestImportOtherBox(t *testing.T) {
	s := newShell(t)
	s.run(0, "store", "init")
	disk := conform.Disks(1 << 20)["mixed"]
	s.sharedDisk("10.40.41.42", "sda", disk)
	if err := os.CopyFS(s.path("10.40.41.43"), os.DirFS(s.path("10.40.41.42"))); err != nil {
		t.Fatal(err)
	}
	out := s.run(0, "image", "import", s.path("10.40.41.43"))
	if !strings.Contains(out, "were made of box 10.40.41.42 (web); they become a backup of 10.40.41.43") {
		t.Error(out)
	}
	s.run(0, "image", "restore", "--yes", "10.40.41.43", s.path("new"))
	s.same(s.path("new"), disk)

	s.write("10.40.41.42/sdb.raw.gz", s.gzip(disk))
	if out := s.run(exitRefused, "image", "import", s.path("10.40.41.42")); !strings.Contains(out, "are not of one backup") {
		t.Error(out)
	}
	for i, name := range []string{"sda1.raw.gz", "nvme0n1p1.gz", "sda-part1.gz", "mmcblk0p2.raw.gz.old"} {
		box := fmt.Sprintf("10.40.42.%d", i)
		s.write(box+"/"+name, s.gzip(disk))
		if out := s.run(exitWrong, "image", "import", s.path(box)); !strings.Contains(out, name+" has the name of a partition") {
			t.Error(out)
		}
	}
	for name, b := range map[string][]byte{"sda.raw.gz": disk, "sda.gz": s.gzip([]byte("not found\n")), "sda.gz.old": []byte("not found\n")} {
		box := "10.40.43." + fmt.Sprint(len(name))
		s.write(box+"/"+name, b)
		s.run(exitWrong, "image", "import", s.path(box))
	}
	s.run(exitWrong, "image", "import", s.path("store"))
	if out := s.run(0, "store", "stats"); !strings.HasPrefix(out, "1 backup") {
		t.Error(out)
	}
}
