package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/e2e/contents"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/testenv"
)

// debianTime is how long a box may take, by emulation, to boot the form debian
// and do an action: a minute and a half where nothing else runs.
const debianTime = 20 * time.Minute

// TestDebianForm is one walk, as TestVirtualBoxes is: two boxes at once on one
// root by NFS, all five actions in order, and a rescue by ssh.
func TestDebianForm(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	testenv.Tools(t, "mmdebstrap", "ssh", "ssh-keygen")
	d := &debian{bench: b, key: sshKey(t)}
	agents, err := builtPrograms()
	must(t, err)
	first := d.build(t, agents.agent)
	x := b.newBox(t, lab.Spec{Cards: []string{"e1000e"}}, lab.AHCI)
	x.addWild(t)
	y := b.newBox(t, lab.Spec{Number: 1, Cards: []string{"virtio-net-pci", "e1000e"}}, lab.Virtio, lab.NVMe)
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"backup of two boxes at once, while another version is built", func(t *testing.T) { d.twoBackups(t, first, agents.faults, x, y) }},
		{"backup-again", func(t *testing.T) { d.again(t, x) }},
		{"restore", func(t *testing.T) { d.restore(t, x) }},
		{"refresh-info, from a server without portmapper and NFS version 3", func(t *testing.T) { d.refresh(t, x) }},
		{"rescue", func(t *testing.T) { d.rescue(t, x) }},
	} {
		if !t.Run(c.name, c.run) {
			t.FailNow()
		}
	}
}

// debian is the bench with what its form needs.
type debian struct {
	*bench
	key string // private key that may log in to boxes
}

func sshKey(t *testing.T) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return key
}

// build builds the form debian with this agent, as an admin would, and
// returns its version.
func (d *debian) build(t *testing.T, agent string, args ...string) string {
	t.Helper()
	// The build keeps all others from the downloads for minutes. So what they need is made before it.
	_, err := faultsRAM()
	must(t, errors.Join(sharedParts(), err))
	out, err := d.lab.BuildMaintenance(t.Context(), "debian", append([]string{"--agent", agent, "--ssh-key", d.key + ".pub"}, args...)...)
	must(t, err)
	version := regexp.MustCompile(`debian-\S+`).FindString(out)
	if version == "" {
		t.Fatalf("the build does not say which version it made:\n%s", out)
	}
	d.step(t, "built %s", version)
	return version
}

// addWild gives the box a second disk with everything that Linux likes to
// write to, named so that Linux would: a RAID member, a volume group, a
// suspended system and a root whose journal has to be replayed.
func (x *vbox) addWild(t *testing.T) {
	t.Helper()
	const part = 16 << 20
	d := lab.Disk{Path: filepath.Join(x.bench.lab.Dir, "wild-disk"), Bus: lab.AHCI, Serial: "TB-WILD"}
	must(t, os.WriteFile(d.Path, nil, 0o644))
	must(t, os.Truncate(d.Path, 5*part))
	table := "label: gpt\n"
	for _, kind := range []string{
		"A19D880F-05FC-4D3B-A006-743F0F84911E", // RAID
		"E6D6D379-F507-44C2-A23C-238F2A3DF928", // LVM
		"0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", // swap
		"4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", // root of x86-64
	} {
		table += fmt.Sprintf("size=%dMiB, type=%s\n", part>>20, kind)
	}
	contents.Run(t, table, "sfdisk", "-q", d.Path)
	for i, fill := range []func(testing.TB, string){contents.MDHalf, contents.LVMPV, contents.HibernatedSwap, contents.DirtyExt4} {
		name := filepath.Join(t.TempDir(), "part")
		must(t, os.WriteFile(name, nil, 0o644))
		must(t, os.Truncate(name, part))
		fill(t, name)
		data, err := os.ReadFile(name)
		must(t, err)
		contents.WriteAt(t, d.Path, 1<<20+int64(i)*part, data)
	}
	x.disks = append(x.disks, d)
	x.hashes = append(x.hashes, hash(t, d.Path))
	var err error
	x.Machine, err = x.bench.lab.Machine(lab.Spec{Disks: x.disks, Cards: []string{"e1000e"}})
	must(t, err)
}

// doneDebian is done with this form's time.
func (x *vbox) doneDebian(t *testing.T, log *lab.Watch, action box.Action) {
	t.Helper()
	x.doneWithin(t, log, action, debianTime)
}

func (d *debian) twoBackups(t *testing.T, first, otherAgent string, boxes ...*vbox) {
	logs := make([]*lab.Watch, len(boxes))
	for i, x := range boxes {
		x.armAsAdmin(t, box.Backup)
		logs[i] = x.Log()
		must(t, x.PowerOn())
	}
	// While they boot: a build that fails half-way, and one that does not.
	before := d.tree(t, first)
	if out, err := d.lab.BuildMaintenance(t.Context(), "debian", "--ssh-key", d.key+".pub", "--packages",
		"no-such-package-of-debian"); err == nil {
		t.Errorf("a package that is nowhere was built in:\n%s", out)
	}
	if got := d.versions(t); len(got) != 1 || got[0] != first {
		t.Errorf("after a build that failed there are the versions %q", got)
	}
	second := d.build(t, otherAgent)
	if second == first || d.packages(t, second) != d.packages(t, first) {
		t.Errorf("the second build, %s, has other packages than %s", second, first)
	}
	for i, x := range boxes {
		x.doneDebian(t, logs[i], box.Backup)
	}
	for _, x := range boxes {
		x.backHome(t)
		x.sameImages(t, ".raw.gz")
	}
	if d.tree(t, first) != before {
		t.Errorf("something of %s was changed while boxes ran it", first)
	}
}

// versions are the maintenance systems that boxes can be armed with.
func (d *debian) versions(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.lab.TFTP(), bootcfg.MaintDir))
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var packageList = regexp.MustCompile(`(?s)"packages": \[.*?\n  \]`)

// packages is the list of packages of a version, as its manifest has it.
func (d *debian) packages(t *testing.T, version string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.lab.TFTP(), bootcfg.MaintDir, version, "manifest.json"))
	must(t, err)
	list := packageList.FindString(string(data))
	if !strings.Contains(list, `"gddrescue"`) {
		t.Fatalf("no packages in the manifest of %s:\n%.500s", version, data)
	}
	return list
}

// tree describes every file of a version's root and boot files.
func (d *debian) tree(t *testing.T, version string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{filepath.Join(d.lab.NFSRoot(), version), filepath.Join(d.lab.TFTP(), bootcfg.MaintDir, version)} {
		must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			fmt.Fprintln(&all, name, info.Mode(), info.Size(), info.ModTime().UnixNano())
			return err
		}))
	}
	return all.String()
}

func (d *debian) again(t *testing.T, x *vbox) {
	x.armAsAdmin(t, box.BackupAgain)
	log := x.Log()
	must(t, x.PowerOn())
	x.doneDebian(t, log, box.BackupAgain)
	x.off(t)
	x.sameImages(t, ".raw.gz")
	x.sameImages(t, ".raw.gz.old")
}

func (d *debian) restore(t *testing.T, x *vbox) {
	for _, disk := range x.disks {
		must(t, lab.Wreck(disk.Path))
	}
	x.armAsAdmin(t, box.Restore)
	log := x.Log()
	must(t, x.PowerOn())
	x.doneDebian(t, log, box.Restore)
	x.backHome(t)
}

func (d *debian) refresh(t *testing.T, x *vbox) {
	d.lab.StopNFS()
	d.lab.StopPortmapper()
	d.lab.OnlyNFS4 = true
	must(t, d.lab.StartNFS(t.Context()))
	x.armAsAdmin(t, box.RefreshInfo)
	log := x.Log()
	must(t, x.PowerOn())
	x.doneDebian(t, log, box.RefreshInfo)
	x.off(t)
}

var inRescue = regexp.MustCompile(`: info: rescue: .*testbox-maintenance finish.* ends it`)

// rescue: the box stays up; an admin logs in, looks, writes where allowed,
// and ends it.
func (d *debian) rescue(t *testing.T, x *vbox) {
	x.armAsAdmin(t, box.Rescue)
	log := x.Log()
	must(t, x.PowerOn())
	line, err := log.Wait(t.Context(), inRescue, debianTime)
	must(t, err)
	d.step(t, "%s", line)

	ssh := func(user, command string) string {
		t.Helper()
		out, err := x.SSH(t.Context(), user, d.key, command)
		if err != nil {
			t.Errorf("%v", err)
		}
		d.step(t, "%s$ %s: %s", user, command, out)
		return out
	}
	says := func(user, command, want string) {
		t.Helper()
		if got := ssh(user, command); got != want {
			t.Errorf("%s$ %s\nsays %q, not %q", user, command, got, want)
		}
	}
	fails := func(command string) {
		t.Helper()
		out, err := x.SSH(t.Context(), "root", d.key, command)
		if err == nil || lab.Disconnected(err) {
			t.Errorf("%s did not fail by itself: %s, %v", command, out, err)
		}
	}
	says("testbox", "id -un; sudo -n id -un", "testbox\nroot") // set-uid by NFS
	fails("touch /media/root-ro/etc/was-here")
	looks := [][2]string{
		{"id -un", "root"},
		{"stat -f -c %T /", "overlayfs"},
		{"stat -f -c %T /media/root-ro /media/root-rw", "nfs\ntmpfs"},
		{"touch /etc/was-here && ls /media/root-rw/*/etc/was-here | wc -l", "1"},
		{"systemctl is-active testbox-maintenance.service", "active"},
		{"systemctl --failed --no-legend --plain", ""},
		{"swapon --noheadings; cat /proc/mdstat 2>/dev/null | grep -c ^md; dmsetup ls 2>/dev/null | grep -cv 'No devices'; true", "0\n0"},
		{"ls /var/log/journal 2>/dev/null | wc -l", "0"}, // the journal is in memory
	}
	for _, area := range []string{"/mnt/testbox-tftp/pxelinux.cfg", "/mnt/testbox-backup"} {
		looks = append(looks, [2]string{fmt.Sprintf("touch %[1]s/owner && stat -c %%u %[1]s/owner && rm %[1]s/owner", area), "65534"})
	}
	// By emulation a connection takes two seconds, so all is asked in one.
	var script strings.Builder
	for i, l := range looks {
		fmt.Fprintf(&script, "(%s)\necho \"[%d] exit $?\"\n", l[0], i)
	}
	text := ssh("root", script.String())
	for i, l := range looks {
		answer, rest, _ := strings.Cut(text, fmt.Sprintf("[%d] exit 0", i))
		if answer = strings.TrimSpace(answer); answer != l[1] {
			t.Errorf("root$ %s\nsays %q, not %q", l[0], answer, l[1])
		}
		text = rest
	}
	if _, err := os.Stat(filepath.Join(d.lab.NFSRoot(), d.newest(t), "etc/was-here")); err == nil {
		t.Error("a box wrote to the root that all share")
	}
	print := strings.Fields(ssh("root", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"))
	if len(print) < 2 {
		t.Fatal("no host key")
	}
	contains(t, x.logText(t), print[1])

	// Disks can be written to only after the admin says so. Kernel names are
	// any at each start.
	name := func(i int) string {
		return ssh("root", fmt.Sprintf("lsblk -dno NAME,SERIAL | awk '$2 == %q { print $1 }'", x.disks[i].Serial))
	}
	sd, other := name(0), name(1)
	write := "dd if=/dev/zero of=/dev/" + sd + " bs=512 seek=1000 count=1 conv=notrunc,fsync"
	says("root", fmt.Sprintf("blockdev --getro /dev/%s /dev/%s", sd, other), "1\n1")
	fails(write)
	ssh("testbox", "sudo -n testbox-maintenance writable "+sd)
	says("root", fmt.Sprintf("blockdev --getro /dev/%[1]s /dev/%[1]s1 /dev/%[2]s /dev/%[2]s1", sd, other), "0\n0\n1\n1")
	sector := ssh("root", "dd if=/dev/"+sd+" bs=512 skip=1000 count=1 status=none | base64 -w0")
	ssh("root", write)
	ssh("root", "echo "+sector+" | base64 -d | dd of=/dev/"+sd+" bs=512 seek=1000 conv=notrunc,fsync status=none")
	contains(t, x.logText(t), "disk "+sd+" (serial "+x.disks[0].Serial+") is writable now, by hand")
	if !x.armed() {
		t.Error("the box is not armed any more while it is in rescue")
	}

	x.SSHOnce(t.Context(), "testbox", d.key, "sudo -n testbox-maintenance finish") // the box is gone before ssh ends
	line, err = log.Wait(t.Context(), lab.Succeeded(box.Rescue), bootTime)
	must(t, err)
	d.step(t, "%s", line)
	x.backHome(t)
}

// newest is the version that was built last.
func (d *debian) newest(t *testing.T) string {
	t.Helper()
	out, err := d.lab.Testbox(t.Context(), "maintenance", "list", d.lab.Dir)
	must(t, err)
	return strings.Fields(out)[0]
}
