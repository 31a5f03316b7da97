package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/testenv"
)

// TestInterruptedBuild: an interrupt while a program of Debian's runs says
// "interrupted", and nothing of it or of its folders is left. As at a terminal,
// all processes of the group get the signal.
func TestInterruptedBuild(t *testing.T) {
	testenv.Root(t)
	dir, bin := t.TempDir(), t.TempDir()
	program := testenv.Build(t, "cmd/testbox")
	agent := testenv.Build(t, "cmd/testbox-maintenance")
	area := filepath.Join(dir, "export")
	// apt-get stands still, and takes its time to end.
	script := "#!/bin/sh\ncd " + dir + "\ntrap 'sleep 0.2; echo ended >ended; exit 0' TERM\necho $$ >pid\nwhile :; do sleep 0.05; done\n"
	err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(script), 0o755)
	if err == nil {
		err = os.MkdirAll(filepath.Join(area, "testbox-tftp"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "maintenance", "build", "--agent", agent, area)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_CACHE_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir + "/pid"); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("apt-get is not started: ", said.String())
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	text := said.String()
	code := cmd.ProcessState.ExitCode()
	if code != exitFailed || !strings.Contains(text, "testbox: interrupted\n") || strings.Contains(text, "signal") {
		t.Errorf("exit code %d, %s", code, text)
	}
	if _, err := os.Stat(dir + "/ended"); err != nil {
		t.Error("apt-get did not end before: ", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "testbox", "work-*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// TestInterruptedLook: an interrupt while it is looked what a target holds is no
// word on the target.
func TestInterruptedLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	at, err := lookPlace(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openLocal(path, 512, true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	disks := []restoring{{RecordedDisk: &image.RecordedDisk{Name: "sda"}, place: at, target: d}}
	var says bytes.Buffer
	err = askRestore(ctx, printer{out: &says, err: &says}, &image.Record{Box: "web-1"}, disks, true)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nothing was written") || says.Len() > 0 {
		t.Errorf("%v; it says %q", err, says.String())
	}
}
