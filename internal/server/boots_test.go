package server

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dispatch"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/site"
)

// newBoots is a TFTP area with a maintenance system of the form ram.
func newBoots(t *testing.T) *boots {
	t.Helper()
	tftp := filepath.Join(t.TempDir(), bootcfg.TFTPArea)
	dir := filepath.Join(tftp, bootcfg.ConfigDir)
	s := site.Defaults()
	s.Server = netip.MustParseAddr("10.0.0.1")
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: "1", Form: bootcfg.FormRAM, Kernel: "6.1.0-37-amd64", Built: time.Now().UTC()}
	version, err := v.Marshal()
	must(t, err)
	for path, text := range map[string]string{
		filepath.Join(dir, bootcfg.DefaultName): string(bootcfg.DefaultConfig()), filepath.Join(dir, site.FileName): string(s.Template()),
		filepath.Join(tftp, "pxelinux.0"): "loader", filepath.Join(tftp, "ldlinux.c32"): "loader",
		filepath.Join(tftp, v.KernelPath()): "kernel", filepath.Join(tftp, v.InitrdPath()): "initrd",
		filepath.Join(tftp, bootcfg.MaintDir, "1", bootcfg.VersionFile): string(version),
	} {
		must(t, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)))
	}
	place := &arming.Place{Boot: bootfiles.New(durable.OS{}, dir), FS: durable.OS{}, Neighbours: filepath.Join(tftp, "none"), Now: time.Now}
	return &boots{place: place, served: arming.Served{Agents: 8444, HTTP: 80}, key: strings.Repeat("ab", 32)}
}

func TestBoots(t *testing.T) {
	b := newBoots(t)
	seven := addr(t, "10.0.0.7")
	order := job.Order{ID: "1", Box: seven, Action: box.Restore, Arming: box.NewArming()}
	j := job.New(order, job.Seed{1}, time.Now())
	opt := dispatch.Options{Disks: []string{"sda", "sdb"}, Map: []string{"sda=sdb"}, ShrinkTable: true, AcceptMachine: true}
	for _, secret := range []string{"1-aa", "2-bb"} {
		if b.Armed(t.Context(), seven, order.Arming, secret) {
			t.Errorf("the box has a boot file with the secret %s before there is one", secret)
		}
		must(t, b.Arm(t.Context(), j, opt, secret))
		if !b.Armed(t.Context(), seven, order.Arming, secret) || b.Armed(t.Context(), seven, box.NewArming(), secret) {
			t.Errorf("it is not known that the boot file is of arming %s with the secret %s", order.Arming, secret)
		}
		file, err := b.place.Boot.Read(seven)
		if err != nil || file.Err != nil {
			t.Fatal(err, file)
		}
		c := file.Cmdline
		if c.Secret != secret || c.Action != box.Restore || c.Arming != order.Arming || len(c.Disks) != 2 || len(c.Map) != 1 || !c.ShrinkTable ||
			!c.AcceptMachine || c.AcceptFailing || c.Key != b.key || c.Server.String() != "10.0.0.1:8444" {
			t.Errorf("the boot file asks for %+v", c)
		}
	}
	for _, other := range []box.Arming{box.NewArming(), order.Arming, order.Arming} {
		must(t, b.Disarm(t.Context(), seven, other))
		_, err := b.place.Boot.Read(seven)
		if armed := err == nil; armed != (other != order.Arming) {
			t.Errorf("after arming %s of %s was ended, the box is armed: %v", other, order.Arming, armed)
		}
	}
	must(t, b.CheckBoxes([]box.Addr{seven, addr(t, "10.0.0.8")}))
	if err := b.CheckBoxes([]box.Addr{seven, addr(t, "10.0.0.1")}); !errors.As(err, new(*problem.Error)) {
		t.Errorf("a job of the server itself: %v", err)
	}
	must(t, b.Ready(box.Backup))
	if err := b.Ready(box.Rescue); !errors.As(err, new(*problem.Error)) {
		t.Errorf("a rescue with the form ram: %v", err)
	}
	must(t, os.RemoveAll(filepath.Join(b.place.Boot.TFTP(), bootcfg.MaintDir)))
	if err := b.Arm(t.Context(), j, opt, "3-cc"); !errors.As(err, new(*problem.Error)) {
		t.Errorf("without a maintenance system: %v", err)
	}
}
