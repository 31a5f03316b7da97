package lab

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// areasOnly stands in for the testbox program: a lab's services need folders only.
const areasOnly = "#!/bin/sh -e\nfor dir; do :; done\nmkdir \"$dir/testbox-tftp\" \"$dir/testbox-backup\" \"$dir/testbox-nfsroot\"\n"

func startLab(t *testing.T) *Lab {
	t.Helper()
	testbox := filepath.Join(t.TempDir(), "testbox")
	if err := os.WriteFile(testbox, []byte(areasOnly), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := New(t.Context(), Options{Testbox: testbox})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(false) })
	m, err := l.Machine(Spec{Memory: 128})
	if err == nil {
		err = m.PowerOn()
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Lab) pids() (pids []int) {
	for _, p := range []*process{l.rpcbind, l.dhcp, l.nfs, l.machines[0].proc} {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

func needLab(t *testing.T) {
	testenv.Root(t)
	testenv.Tools(t, "ip", "dnsmasq", "rpcbind", "ganesha.nfsd", "qemu-system-x86_64", "sfdisk", "mkfs.ext4", "grub-mkimage", "busybox")
}

func TestLabIsItsOwnNetwork(t *testing.T) {
	needLab(t)
	l := startLab(t)
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Error("the lab's bridge is in the host's network")
	}
	for _, pid := range l.pids() {
		for _, kind := range []string{"net", "mnt", "pid"} {
			ours, err1 := os.Readlink("/proc/self/ns/" + kind)
			theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if err1 != nil || err2 != nil || ours == theirs {
				t.Errorf("process %d has our %s namespace (%v, %v)", pid, kind, err1, err2)
			}
		}
	}
	if err := l.ns.do(func() error {
		if !l.answers("2049")() || !l.answers("111")() {
			return fmt.Errorf("NFS or the portmapper do not answer inside the lab")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	pids, dir := l.pids(), l.Dir
	if err := l.Close(false); err != nil {
		t.Error(err)
	}
	gone(t, pids)
	if exists(dir) {
		t.Errorf("%s is still there", dir)
	}
}

func TestNoStartSaysWhy(t *testing.T) {
	needLab(t)
	m, err := startLab(t).Machine(Spec{Number: 1, Memory: 128, Disks: []Disk{{Path: "/nonexistent", Bus: Virtio}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("a box with a disk that is not there: %v", err)
	}
}

func TestNFSComesAndGoes(t *testing.T) {
	needLab(t)
	l := startLab(t)
	for range 2 {
		l.StopNFS()
		l.ns.do(func() error {
			if l.answers("2049")() {
				t.Error("NFS answers after it was stopped")
			}
			return nil
		})
		if err := l.StartNFS(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.StopNFS()
	if err := os.Remove(l.Backup()); err != nil {
		t.Fatal(err)
	}
	if err := l.StartNFS(t.Context()); err == nil {
		t.Error("an NFS server without the backup area is taken for a good one")
	}
}

// TestKilledLab kills a process that has a lab, as the kernel would when memory
// is short: nothing of the lab goes on, and Clean takes its folder.
func TestKilledLab(t *testing.T) {
	needLab(t)
	if os.Getenv("TESTBOX_LAB_TO_KILL") != "" {
		l := startLab(t)
		fmt.Println("LAB", l.Dir, strings.Trim(fmt.Sprint(l.pids()), "[]"))
		time.Sleep(time.Minute)
		return
	}
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledLab$")
	cmd.Env = append(os.Environ(), "TESTBOX_LAB_TO_KILL=1", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if fields = strings.Fields(s.Text()); len(fields) > 2 && fields[0] == "LAB" {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if len(fields) != 6 {
		t.Fatalf("the lab did not come up: %q", fields)
	}
	var pids []int
	for _, f := range fields[2:] {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	gone(t, pids)
	if removed, err := Clean(tmp); err != nil || len(removed) != 1 || removed[0] != fields[1] {
		t.Errorf("Clean removed %q, %v; want %s", removed, err, fields[1])
	}
}

// gone fails unless all processes end soon.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		end := time.Now().Add(time.Minute)
		for syscall.Kill(pid, 0) == nil {
			if time.Now().After(end) {
				t.Errorf("process %d of the lab goes on", pid)
				break
			}
			time.Sleep(pollEvery)
		}
	}
}
