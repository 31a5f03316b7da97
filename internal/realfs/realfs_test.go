package realfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// Every kind can be made, aged, checked and read; the same seed gives the same
// files; and the proof can fail: with the second half of what is used called
// free, it does.
func TestKinds(t *testing.T) {
	for _, k := range []Kind{Ext, XFS, Btrfs, NTFS, ExFAT, FAT} {
		t.Run(k.Name, func(t *testing.T) {
			testenv.Root(t)
			var files []Files
			var img string
			for range 2 {
				// There is room for what btrfs keeps of removed files until its
				// next commit. Without space left, chance decides what is written.
				img = k.Make(t, 384<<20)
				k.Fill(t, img, 1, 40<<20)
				k.MustCheck(t, img)
				files = append(files, k.Files(t, Copy(t, img)))
			}
			if diff := files[0].Diff(files[1]); diff != "" || len(files[0]) < 50 {
				t.Fatalf("%d files, and from the same seed:\n%s", len(files[0]), diff)
			}
			used := k.PartcloneUsed(t, img)
			if k.Surplus(t, img, nil) < 60<<20 {
				t.Error("partclone takes all for used")
			}
			if !fails(t, func(t testing.TB) { k.MustSurvive(t, img, used[len(used)/2:]) }) {
				t.Error("the proof passes although files were lost")
			}
			if !fails(t, func(t testing.TB) { k.Surplus(t, img, used[len(used)-1:]) }) {
				t.Error("the oracle passes what partclone takes for used")
			}
		})
	}
}

// A namespace that another test made while the file system was mounted does not
// keep it mounted.
func TestMountedElsewhere(t *testing.T) {
	for _, k := range []Kind{Ext, XFS, Btrfs, NTFS, ExFAT} {
		t.Run(k.Name, func(t *testing.T) {
			testenv.Root(t)
			testenv.Tools(t, "unshare", "nsenter")
			img := k.Make(t, 384<<20)
			other := exec.Command("unshare", "--mount", "--propagation", "private", "cat")
			hold, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var mount string
			k.Mounted(t, img, func(dir string) {
				mount = dir
				if err := other.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { hold.Close(); other.Wait() })
				for len(tasksWithMount(t, dir)) < 2 || !hasMount(other.Process.Pid, dir) {
					time.Sleep(10 * time.Millisecond)
				}
				Age(tree{t, dir}, 1, 40<<20)
			})
			if hasMount(other.Process.Pid, mount) {
				t.Error("the file system is still mounted in the other namespace")
			}
			if said := Run(t, "losetup", "--associated", img); said != "" {
				t.Errorf("the image is still in use: %s", said)
			}
			k.MustCheck(t, img)
		})
	}
}

func hasMount(pid int, dir string) bool {
	info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	return strings.Contains(string(info), " "+dir+" ")
}

// failing is a test that notes its failure instead of telling it.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) Fatalf(string, ...any) { f.failed = true; runtime.Goexit() }
func (f *failing) Fatal(...any)          { f.failed = true; runtime.Goexit() }

// fails reports whether a test fails.
func fails(t testing.TB, test func(testing.TB)) bool {
	f := &failing{TB: t}
	done := make(chan bool)
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	return f.failed
}

func TestPack(t *testing.T) {
	img := File(t, 1<<20)
	want := make([]byte, 1<<20)
	copy(want[700:], "some bytes")
	copy(want[1<<20-3:], "end")
	os.WriteFile(img, want, 0o600)
	p := Unpack(Pack(t, img), 1<<30)
	got := make([]byte, 1<<20)
	if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) || len(p.Sectors) != 2 {
		t.Fatal(err, len(p.Sectors))
	}
	p.WriteAt([]byte("other"), 1022)
	p.ReadAt(got[:5], 1022)
	if string(got[:5]) != "other" {
		t.Fatalf("%q", got[:5])
	}
	if n, err := p.ReadAt(got, 1<<20-3); n != 3 || err == nil {
		t.Fatal(n, err)
	}
}
