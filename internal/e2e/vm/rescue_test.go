package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/testenv"
)

// TestServedRescue: with a storage server a box comes up for people without any NFS. Its
// root comes over HTTP into memory, and who logs in knows its host key by the server. When
// the server ends the rescue, the box starts its own disk.
func TestServedRescue(t *testing.T) {
	t.Parallel()
	b := makeLab(t, lab.Options{Server: true})
	testenv.Tools(t, "mmdebstrap", "mksquashfs", "ssh", "ssh-keygen")
	d := &debian{bench: b, key: sshKey(t)}
	agents, err := builtPrograms()
	must(t, err)
	version := d.build(t, agents.agent)
	if _, err := os.Stat(filepath.Join(b.lab.Dir, bootcfg.RootArea)); err == nil {
		t.Error("a server has an area for roots by NFS")
	}
	x := b.newBox(t, lab.Spec{Cards: []string{"e1000e"}}, lab.AHCI)
	asked := make(chan struct{})
	var text string
	go func() {
		defer close(asked)
		text, err = b.lab.TestboxInside(t.Context(), "rescue", x.Addr.String(), "--ssh=testbox", "--", "-F", "/dev/null", "-i", d.key,
			"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", rescueScript)
	}()
	must(t, until(t.Context(), actionTime, "the box is not armed", x.armed))
	b.step(t, "armed, by %s", version)
	must(t, x.PowerOn())
	x.console(t, "init: .*fetching the root http://"+lab.ServerAddr+":80/maintenance-boot/"+version+"/root.squashfs", debianTime)
	x.console(t, "init: .*the root is there", debianTime)
	x.console(t, "init: .*the root is mounted", debianTime)
	<-asked
	if err != nil {
		t.Fatalf("%v\n%s\nThe server says:\n%s", err, text, b.serverLog())
	}
	b.step(t, "ssh: %s", text)
	for _, want := range []string{"user testbox, by sudo root", "root overlayfs squashfs tmpfs", "failed: .", "disks 1", "nfs: .",
		"still up for rescue"} {
		if !strings.Contains(text, want) {
			t.Errorf("the box does not say %q", want)
		}
	}
	j, err := b.lab.LastJob(t.Context(), x.Machine)
	must(t, err)
	if j.State != "rescue" || !x.armed() || len(j.HostKeys) != 1 || !strings.HasPrefix(j.HostKeys[0], "ssh-ed25519 ") {
		t.Errorf("the job is %+v, armed: %v", j, x.armed())
	}
	_, err = b.lab.Testbox(t.Context(), "finish", x.Addr.String())
	must(t, err)
	x.ownSystem(t)
	if j, err = b.lab.LastJob(t.Context(), x.Machine); err != nil || j.State != "ended" || j.Outcome != box.Done || len(j.HostKeys) != 0 {
		t.Errorf("the job ended so: %+v, %v", j, err)
	}
	x.off(t)
}

// rescueScript is what somebody does who has logged in.
const rescueScript = `echo "user $(id -un), by sudo $(sudo -n id -un)"
echo "root $(stat -f -c %T / /media/root-ro /media/root-rw | xargs)"
echo "failed: $(systemctl --failed --no-legend --plain)."
echo "nfs: $(grep -w nfs /proc/mounts)$(cat /etc/fstab 2>/dev/null)."
echo "disks $(lsblk --nodeps --noheadings --output RO /dev/sda | xargs)"
sudo -n touch /etc/was-here && ls -l /etc/was-here`
