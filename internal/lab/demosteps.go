package lab

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"testbox-imaging/internal/box"
)

func (d *Demo) getKernel(ctx context.Context) (err error) {
	d.kernel, err = d.Kernel(ctx)
	return err
}

func (d *Demo) makeSite(ctx context.Context) (err error) {
	d.lab, err = New(ctx, Options{Testbox: d.Testbox, Server: !d.Share, DHCP: d.dhcp(), KVM: ProbeKVM(ctx, d.kernel)})
	return err
}

// dhcp is the storage server's, if there is one: it is all that a lab needs.
func (d *Demo) dhcp() DHCP {
	if d.Share {
		return DHCPNames
	}
	return DHCPOwn
}

func (d *Demo) buildMaintenance(ctx context.Context) error {
	_, err := d.lab.BuildMaintenance(ctx, "ram")
	return err
}

func (d *Demo) makeBox(ctx context.Context) (err error) {
	d.own = OwnSystem{Name: "demo", Kernel: d.kernel, Size: 256 << 20, Data: 48 << 20}
	d.disk = Disk{Path: filepath.Join(d.lab.Dir, "disk"), Bus: AHCI, Serial: "DEMO-0001"}
	if err = d.own.MakeDisk(ctx, d.disk.Path); err != nil {
		return err
	}
	d.box, err = d.lab.Machine(Spec{Disks: []Disk{d.disk}})
	return err
}

func (d *Demo) firstBoot(ctx context.Context) (err error) {
	if err := d.box.PowerOn(); err != nil {
		return err
	}
	if err := d.signOfLife(ctx); err != nil {
		return err
	}
	d.before, err = HashDisk(d.disk.Path)
	return err
}

func (d *Demo) signOfLife(ctx context.Context) error {
	line, err := d.box.Console.Wait(ctx, d.own.Up(), bootTime)
	if err == nil {
		d.checked("sign of life on the serial console: %q", line)
	}
	return err
}

func (d *Demo) arm(ctx context.Context, action box.Action) error {
	if err := d.lab.Arm(ctx, d.box, action); err != nil {
		return err
	}
	if !exists(d.lab.BootFile(d.box.Addr)) {
		return fmt.Errorf("no boot file %s after arming", d.lab.BootFile(d.box.Addr))
	}
	return nil
}

// act resets the armed box and waits until its log says how the action ended.
func (d *Demo) act(ctx context.Context, action box.Action) error {
	d.log = d.box.Log()
	if err := d.box.Reset(); err != nil {
		return err
	}
	line, err := d.log.Wait(ctx, Ended(action), actionTime)
	if err != nil {
		return err
	}
	if !Succeeded(action).MatchString(line) {
		return fmt.Errorf("the box says: %s", line)
	}
	d.checked("the box's log: %s", line)
	return nil
}

func (d *Demo) ownAgain(ctx context.Context) error {
	if err := d.signOfLife(ctx); err != nil {
		return err
	}
	if exists(d.lab.BootFile(d.box.Addr)) {
		return fmt.Errorf("the box is still armed: %s is there", d.lab.BootFile(d.box.Addr))
	}
	d.checked("boot file %s is gone", d.box.Addr.Hex())
	return nil
}

// checkImage unpacks the image as anyone could, with plain gzip.
func (d *Demo) checkImage(context.Context) error {
	now, err := HashDisk(d.disk.Path)
	if err != nil {
		return err
	}
	if now != d.before {
		return fmt.Errorf("the backup changed the disk: its SHA-256 was %s and is %s", d.before, now)
	}
	d.checked("the backup changed nothing on the disk")
	path := filepath.Join(d.lab.BoxDir(d.box.Addr), "sda.raw.gz")
	sum, packed, err := hashGzip(path)
	if err != nil {
		return err
	}
	if sum != d.before {
		return fmt.Errorf("%s holds other bytes than the disk had", path)
	}
	d.checked("sda.raw.gz unpacks with plain gzip to the disk's bytes: %d MiB in %d MiB", d.own.Size>>20, packed>>20)
	return nil
}

// hashGzip returns the SHA-256 of what a gzip file contains, and the file's own
// size.
func hashGzip(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", path, err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil {
		return "", 0, fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), st.Size(), nil
}

func (d *Demo) wreck(ctx context.Context) error {
	d.box.PowerOff()
	if err := Wreck(d.disk.Path); err != nil {
		return err
	}
	sum, err := HashDisk(d.disk.Path)
	if err != nil {
		return err
	}
	if sum == d.before {
		return fmt.Errorf("%s is not wrecked", d.disk.Path)
	}
	d.box.Firmware.SkipAll()
	if err := d.box.PowerOn(); err != nil {
		return err
	}
	if err := d.box.BootsNothing(ctx, bootTime); err != nil {
		return err
	}
	d.checked("wrecked, the box found nothing to boot")
	return nil
}

func (d *Demo) checkDisk(context.Context) error {
	d.box.PowerOff()
	after, err := HashDisk(d.disk.Path)
	if err != nil {
		return err
	}
	if after != d.before {
		return fmt.Errorf("the disk's SHA-256 was %s and is %s", d.before, after)
	}
	d.checked("SHA-256 of the whole disk, before: %s", d.before)
	d.checked("                           after:  %s", after)
	return nil
}

// checkLogs looks in the global log for what an admin would look for.
func (d *Demo) checkLogs(context.Context) error {
	data, err := os.ReadFile(filepath.Join(d.lab.Backup(), box.LogFile))
	if err != nil {
		return err
	}
	text := string(data)
	for _, action := range []box.Action{box.Backup, box.Restore} {
		if !regexp.MustCompile(`(?m)` + Succeeded(action).String()).MatchString(text) {
			return fmt.Errorf("the global maintenance.log does not tell of the %s:\n%s", action, text)
		}
	}
	if strings.Contains(text, ": error: ") {
		return fmt.Errorf("the global maintenance.log has errors:\n%s", text)
	}
	d.checked("the global maintenance.log tells of the backup and the restore, and of no error")
	return nil
}
