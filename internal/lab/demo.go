package lab

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/box"
)

// Demo does the project's main job on a virtual testbox, from an empty folder
// to a restored box, and checks at each step that it is so.
type Demo struct {
	Testbox string                                    // path of the testbox program
	Kernel  func(ctx context.Context) (Kernel, error) // for the box's own system
	Out     io.Writer                                 // a line a step, with its time

	lab    *Lab
	own    OwnSystem
	disk   Disk
	box    *Machine
	log    *Watch
	kernel Kernel
	before string // hash of the whole disk when its system ran for the first time
	checks []string
}

// How long a step may take: three times what it takes with emulation on a
// machine with two busy cores.
const (
	bootTime   = 2 * time.Minute
	actionTime = 5 * time.Minute
)

// demoStep is one line of the demo.
type demoStep struct {
	title string
	do    func(context.Context) error
}

func (d *Demo) steps() []demoStep {
	return []demoStep{
		{"Site: the areas, a network with DHCP and TFTP, NFS with root squash", d.makeSite},
		{"Maintenance system, form ram: Debian's kernel and the agent", d.buildMaintenance},
		{"A testbox with a small Linux on its disk", d.makeBox},
		{"Power on: the network says `default`, the box starts its own system", d.firstBoot},
		{"Arm the box for a backup", func(ctx context.Context) error { return d.arm(ctx, box.Backup) }},
		{"Reset: the box boots into maintenance and is backed up", func(ctx context.Context) error { return d.act(ctx, box.Backup) }},
		{"It disarmed itself and starts its own system again", d.ownAgain},
		{"The image holds the disk, byte for byte", d.checkImage},
		{"Wreck the disk: noise from its first to its last byte; nothing boots", d.wreck},
		{"Arm the box for a restore", func(ctx context.Context) error { return d.arm(ctx, box.Restore) }},
		{"Reset: the box boots into maintenance and is restored", func(ctx context.Context) error { return d.act(ctx, box.Restore) }},
		{"It disarmed itself and starts its own system again", d.ownAgain},
		{"The disk is what it was, byte for byte", d.checkDisk},
		{"The logs tell it", d.checkLogs},
	}
}

// Run does all steps. The first one that fails ends it, and the lab's folder
// stays to be looked at.
func (d *Demo) Run(ctx context.Context) error {
	begun := time.Now()
	for i, s := range d.steps() {
		fmt.Fprintf(d.Out, "%2d. %-72s", i+1, s.title)
		from := time.Now()
		if err := s.do(ctx); err != nil {
			fmt.Fprintf(d.Out, " FAILED after %.1f s\n", time.Since(from).Seconds())
			return d.fail(ctx, err)
		}
		fmt.Fprintf(d.Out, " %6.1f s\n", time.Since(from).Seconds())
	}
	d.summary(time.Since(begun))
	return d.lab.Close(false)
}

// fail ends the lab. What failed can be looked at; what was interrupted goes.
func (d *Demo) fail(ctx context.Context, err error) error {
	if d.lab == nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.Join(err, d.lab.Close(false))
	}
	dir := d.lab.Dir
	d.lab.stop()
	return fmt.Errorf("%w\nThe lab's areas, logs and disk are still in %s; remove them with `testbox lab clean`", err, dir)
}

// checked notes something that was found to be so.
func (d *Demo) checked(format string, args ...any) {
	d.checks = append(d.checks, fmt.Sprintf(format, args...))
}

func (d *Demo) summary(all time.Duration) {
	fmt.Fprintf(d.Out, "\nDone in %.0f s. What was checked:\n", all.Seconds())
	for _, c := range d.checks {
		fmt.Fprintf(d.Out, "  ok  %s\n", c)
	}
	fmt.Fprint(d.Out, nextSteps)
}

// nextSteps is how to go on with real machines; docs/share-mode.md says more.
const nextSteps = `
The same on real machines:
  1. On the storage server:   testbox share init --server ADDRESS /export
                              (and the exports that it prints, into /etc/exports)
  2. Maintenance system:      testbox maintenance build
  3. Your DHCP server:        next-server ADDRESS; filename "pxelinux.0"
  4. In each box's firmware:  boot from the network first, always
  5. Back a box up:           testbox pxe-conf -c /export/testbox-tftp/pxelinux.cfg BOX backup
                              and reset it, by hand or by a remote power switch
  6. Put it back:             testbox pxe-conf -c /export/testbox-tftp/pxelinux.cfg BOX restore
Try it on a virtual box first: testbox lab up
`

func (d *Demo) makeSite(ctx context.Context) (err error) {
	if d.kernel, err = d.Kernel(ctx); err != nil {
		return err
	}
	d.lab, err = New(ctx, Options{Testbox: d.Testbox, KVM: ProbeKVM(ctx, d.kernel)})
	return err
}

func (d *Demo) buildMaintenance(ctx context.Context) error {
	return d.lab.BuildMaintenance(ctx)
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

// Ended matches the line of a box's log that says how an action ended.
func Ended(action box.Action) *regexp.Regexp {
	return regexp.MustCompile(`: (info|error): ` + regexp.QuoteMeta(string(action)) + `: `)
}

// Succeeded matches the line of a box's log that says that an action is done.
func Succeeded(action box.Action) *regexp.Regexp {
	return regexp.MustCompile(`: info: ` + regexp.QuoteMeta(string(action)) + `: done$`)
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

// hashGzip is the SHA-256 of what a gzip file holds, and the file's own size.
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

// Wreck overwrites a whole disk image with noise.
func Wreck(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.Reader, st.Size()); err != nil {
		return err
	}
	return f.Close()
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

// checkLogs looks for what an admin would look for, in the global log.
func (d *Demo) checkLogs(context.Context) error {
	data, err := os.ReadFile(filepath.Join(d.lab.Backup(), "maintenance.log"))
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
