package agent

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sharedir"
)

// bench is a box made of folders and files: no root, no devices.
type bench struct {
	t       *testing.T
	dir     string
	addr    box.Addr
	console bytes.Buffer
	mend    func(*Config) // last changes before a run
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir()}
	b.addr, _ = box.ParseAddr("10.88.0.11")
	b.write("tftp/pxelinux.0", "loader")
	b.write("tftp/pxelinux.cfg/default", string(bootcfg.DefaultConfig()))
	b.write("backup/"+sharedir.Marker, "")
	b.mkdir("tftp/pxelinux.cfg", "dev", "sys/block", "proc")
	return b
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

func (b *bench) mkdir(names ...string) {
	for _, n := range names {
		if err := os.MkdirAll(b.path(n), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	b.mkdir(filepath.Dir(name))
	if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// disk makes a disk of data and zeros, whose length is no multiple of a piece.
func (b *bench) disk(name, serial string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 5<<20+7*512)
	for i := range data {
		if i/70000%3 != 0 {
			data[i] = byte(rnd.Uint32())
		}
	}
	b.write("dev/"+name, string(data))
	sys := "sys/block/" + name + "/"
	b.write(sys+"size", fmt.Sprintln(len(data)/512))
	b.write(sys+"removable", "0\n")
	b.write(sys+"queue/logical_block_size", "512\n")
	b.write(sys+"serial", serial)
}

// arm writes the boot file and gives the command line that goes with it.
func (b *bench) arm(action box.Action, change func(*bootcfg.Cmdline)) string {
	b.t.Helper()
	area := func(p string) bootcfg.NFSPath {
		n, err := bootcfg.ParseNFSPath("10.88.0.1:" + p)
		if err != nil {
			b.t.Fatal(err)
		}
		return n
	}
	cmd := bootcfg.Cmdline{Action: action, Arming: box.NewArming(), Address: b.addr, Host: "box11", TFTP: area("/t"), Backup: area("/b")}
	if change != nil {
		change(&cmd)
	}
	file, err := bootcfg.Generate(bootcfg.BootFile{Cmdline: cmd, Kernel: "maintenance-boot/v/vmlinuz",
		Initrd: "maintenance-boot/v/initrd.img"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("tftp/pxelinux.cfg/"+b.addr.Hex(), string(file))
	return cmd.Words()
}

func (b *bench) config(cmdline string) Config {
	cfg := Config{
		Cmdline: cmdline, Sys: os.DirFS(b.path("sys")), Proc: os.DirFS(b.path("proc")), Dev: b.path("dev"),
		TFTP: b.path("tftp"), Backup: b.path("backup"), Address: b.addr, Console: &b.console,
	}
	if b.mend != nil {
		b.mend(&cfg)
	}
	return cfg
}

func (b *bench) run(cmdline string) box.Outcome {
	b.t.Helper()
	return Run(context.Background(), b.config(cmdline))
}

// do arms and runs, and wants an outcome.
func (b *bench) do(action box.Action, want box.Outcome) {
	b.t.Helper()
	b.want(b.run(b.arm(action, nil)), want)
}

func (b *bench) want(got, want box.Outcome) {
	b.t.Helper()
	if got != want {
		b.t.Fatalf("outcome is %q, not %q:\n%s", got, want, b.console.String())
	}
	armed := b.exists("tftp/pxelinux.cfg/" + b.addr.Hex())
	if still := want == box.Refused || want == box.Failed || want == box.Rescuing; armed != still {
		b.t.Fatalf("after %q the box is armed: %v", got, armed)
	}
}

func (b *bench) exists(name string) bool {
	_, err := os.Stat(b.path(name))
	return err == nil
}

const folder = "backup/10.88.0.11/"

func TestBackupWreckRestore(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.disk("vdb", "S2", 2)
	a0, b0 := b.read("dev/vda"), b.read("dev/vdb")
	b.do(box.Backup, box.Done)
	b.write("dev/vda", strings.Repeat("x", len(a0)))
	b.write("dev/vdb", b0[:100]+strings.Repeat("\x00", len(b0)-100))
	b.do(box.Verify, box.Differs)
	b.do(box.Restore, box.Done)
	if b.read("dev/vda") != a0 || b.read("dev/vdb") != b0 {
		t.Fatal("a disk is not what it was")
	}
	b.do(box.Verify, box.Done)
	for _, want := range []string{"hello from box11", "restore: done"} {
		if log := b.read("backup/maintenance.log"); !strings.Contains(log, want) {
			t.Errorf("the global log has no %q:\n%s", want, log)
		}
	}
	for _, name := range []string{"box11", "0A58000B", "testbox-info.txt", "testbox-info.json", "testbox-info.zip", "maintenance.log",
		"vda.json"} {
		if !b.exists(folder + name) {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestSecondBackupRefused(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	before, first := b.read(folder+"vda.raw.gz"), b.read("dev/vda")
	b.wreck("vda")
	b.do(box.Backup, box.Refused)
	if b.read(folder+"vda.raw.gz") != before {
		t.Fatal("a refused backup changed the image")
	}
	b.do(box.BackupAgain, box.Done)
	if b.read(folder+"vda.raw.gz.old") != before {
		t.Fatal("backup-again did not keep the old image")
	}
	b.want(b.run(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.OldImages = true })), box.Done)
	if b.read("dev/vda") != first {
		t.Fatal("what was restored is not the old image")
	}
}

func TestRefreshInfoTouchesNoDisk(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.RefreshInfo, box.Done)
	if b.exists(folder + "vda.raw.gz") {
		t.Error("refresh-info made an image")
	}
	os.RemoveAll(b.path(folder, "testbox-info.zip"))
	b.mkdir(folder + "testbox-info.zip/in-the-way")
	b.want(b.run(b.arm(box.RefreshInfo, nil)), box.Failed)
	if info := b.read(folder + "testbox-info.txt"); !strings.Contains(info, "0A58000B") || !strings.Contains(info, "vda") {
		t.Errorf("the inventory lacks the box or its disk:\n%s", info)
	}
}

func TestRefusals(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, cmdline *string){
		"no image":               func(b *bench, _ *string) { os.RemoveAll(b.path(folder)) },
		"no boot file":           func(b *bench, _ *string) { os.Remove(b.path("tftp/pxelinux.cfg", b.addr.Hex())) },
		"boot file of another":   func(b *bench, _ *string) { b.arm(box.Restore, nil) },
		"no command line of us":  func(_ *bench, c *string) { *c = "quiet splash" },
		"no marker":              func(b *bench, _ *string) { os.Remove(b.path("backup", sharedir.Marker)) },
		"no pxelinux.0":          func(b *bench, _ *string) { os.Remove(b.path("tftp/pxelinux.0")) },
		"other address":          func(b *bench, _ *string) { b.mend = func(c *Config) { c.Address, _ = box.ParseAddr("10.88.0.12") } },
		"armed address not here": func(b *bench, _ *string) { b.mend = func(c *Config) { c.Address = box.Addr{} } },
		"no such disk": func(b *bench, c *string) {
			*c = b.arm(box.BackupAgain, func(l *bootcfg.Cmdline) { l.Disks = []string{"sdz"} })
		},
		"rescue": func(b *bench, c *string) { *c = b.arm(box.Rescue, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			b.do(box.Backup, box.Done)
			b.wreck("vda") // a restore would be done
			before := b.read("dev/vda")
			cmdline := b.arm(box.Restore, nil)
			spoil(b, &cmdline)
			if got := b.run(cmdline); got != box.Refused {
				t.Fatalf("outcome is %q:\n%s", got, b.console.String())
			}
			if b.read("dev/vda") != before || b.exists(folder+"vda.raw.gz.old") {
				t.Fatal("something was changed")
			}
		})
	}
}

func TestExpired(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	b.write("dev/vda", strings.Repeat("x", len(b.read("dev/vda"))))
	before := b.read("dev/vda")
	cmdline := b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.Expires = time.Now().Add(-time.Hour).UTC().Truncate(time.Second) })
	b.want(b.run(cmdline), box.Expired)
	if b.read("dev/vda") != before {
		t.Fatal("an expired restore wrote to the disk")
	}
}

// TestOnce loses power after the action and before disarming.
func TestOnce(t *testing.T) {
	for _, action := range []box.Action{box.Backup, box.BackupAgain, box.Restore} {
		t.Run(string(action), func(t *testing.T) {
			b := newBench(t)
			b.disk("vda", "S1", 1)
			if action != box.Backup {
				b.do(box.Backup, box.Done)
			}
			cmdline := b.arm(action, nil)
			boot := b.read("tftp/pxelinux.cfg/" + b.addr.Hex())
			b.want(b.run(cmdline), box.Done)
			image := b.read(folder + "vda.json")
			b.write("tftp/pxelinux.cfg/"+b.addr.Hex(), boot)
			b.write("dev/vda", strings.Repeat("y", len(b.read("dev/vda"))))
			after := b.read("dev/vda")
			b.want(b.run(cmdline), box.Done)
			if b.read("dev/vda") != after || b.read(folder+"vda.json") != image {
				t.Fatal("the second start did more than disarm")
			}
			if action != box.Restore {
				os.Remove(b.path(folder, "last-action.json")) // power lost even earlier
				b.write("tftp/pxelinux.cfg/"+b.addr.Hex(), boot)
				b.want(b.run(cmdline), box.Done)
				if b.read(folder+"vda.json") != image {
					t.Fatal("without the record, the second start made another image")
				}
			}
		})
	}
}

// TestArmedMeanwhile arms anew while the agent works: that arming must stay.
func TestArmedMeanwhile(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	cmdline := b.arm(box.Backup, nil)
	rearmed := false
	b.mend = func(c *Config) {
		c.Alive = func() {
			if b.exists(folder+"testbox-info.txt") && !rearmed {
				rearmed = true
				b.arm(box.RefreshInfo, nil)
			}
		}
	}
	if got := b.run(cmdline); got != box.Done || !rearmed {
		t.Fatalf("outcome is %q, rearmed %v:\n%s", got, rearmed, b.console.String())
	}
	if file := b.read("tftp/pxelinux.cfg/" + b.addr.Hex()); !strings.Contains(file, "testbox-action-refresh-info") {
		t.Fatalf("the new arming is gone:\n%s", file)
	}
}

func TestOtherMachine(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	id := "sys/class/dmi/id/product_uuid"
	b.write(id, "11112222-3333-4444-8555-666677778888\n")
	b.do(box.Backup, box.Done)
	b.write(id, "99992222-3333-4444-8555-666677778888\n")
	b.do(box.Restore, box.Refused)
	b.want(b.run(b.arm(box.Restore, func(c *bootcfg.Cmdline) { c.AcceptMachine = true })), box.Done)
}

func TestDamagedImageRefused(t *testing.T) {
	b := newBench(t)
	b.disk("vda", "S1", 1)
	b.do(box.Backup, box.Done)
	whole := b.read(folder + "vda.raw.gz")
	b.write("dev/vda", strings.Repeat("x", len(b.read("dev/vda"))))
	before := b.read("dev/vda")
	for _, pos := range []int{0, 5, len(whole) / 2, len(whole) - 1} {
		flipped := []byte(whole)
		flipped[pos] ^= 4
		b.write(folder+"vda.raw.gz", string(flipped))
		b.do(box.Restore, box.Refused)
		b.write(folder+"vda.raw.gz", whole[:pos])
		b.do(box.Restore, box.Refused)
	}
	if b.read("dev/vda") != before {
		t.Fatal("a damaged image changed the disk")
	}
}

func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	s := newSession(Config{Console: &out})
	p := s.progress("sda")
	p.now = func() time.Time { return now }
	p.tell("read", 0, 1000e6)
	now = now.Add(time.Second)
	p.tell("read", 10e6, 1000e6)
	if out.Len() != 0 {
		t.Errorf("told too soon: %q", out.String())
	}
	now = now.Add(9 * time.Second)
	p.tell("read", 250e6, 1000e6)
	if want := "sda: read 25 %, 25 MB/s, 0:30 left\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
