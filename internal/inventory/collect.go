package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
)

// Options say what to collect from.
type Options struct {
	Sys, Proc   fs.FS                  // /sys and /proc
	Dev         string                 // folder of device nodes, to ask disks for their health; "" skips that
	PCIIDs      func() ([]byte, error) // returns the text of pci.ids; if nil, PCI devices have numbers only
	Kmsg        func() ([]byte, error) // returns the kernel log, as KernelLog does; if nil, there is none
	Address     box.Addr
	Host        string      // "" becomes "unknown"
	Time        time.Time   // zero means now
	Disks       []disk.Disk // as disk.List returned them
	Maintenance string      // version of the maintenance system
	Firmware    *efi.Note   // what the agent has found out of the firmware; may be nil

	limits limits                                             // zero means defaultLimits; set by tests
	health func(path string, kind healthKind) (Health, error) // nil means askDisk; set by tests
}

// limits are the limits of a collection. They are wide, so only a broken or
// hostile machine meets them.
type limits struct {
	file     time.Duration // for one read of /sys or /proc
	disk     time.Duration // for the health of one disk; all disks are asked at once
	raw      time.Duration // for everything that Zip packs
	rawFile  int64         // bytes of one file that Zip packs
	rawTotal int64         // bytes of all of them
	rawFiles int           // number of them
}

// The times allow for the slowest good case, which is an old disk that has to
// spin up. It needs 10 to 15 s to answer.
var defaultLimits = limits{
	file: 3 * time.Second, disk: 20 * time.Second, raw: 30 * time.Second,
	rawFile: 4 << 20, rawTotal: 16 << 20, rawFiles: 4000,
}

type collector struct {
	Options
	inv       *Inventory
	sys, proc tree
}

// Collect takes the inventory. It never fails, but names in Problems what
// cannot be read. When ctx ends, it returns soon with what it has. A read that
// hangs for ever leaves its goroutine behind.
func Collect(ctx context.Context, o Options) *Inventory {
	if o.limits == (limits{}) {
		o.limits = defaultLimits
	}
	if o.health == nil {
		o.health = askDisk
	}
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	c := newCollector(ctx, o)
	c.collectDisks()
	health := c.startHealth(ctx)
	c.collectMachine()
	c.collectPCI()
	c.collectNetwork()
	c.collectKernelLog()
	c.collectRaw(ctx)
	c.joinHealth(health)
	return c.inv
}

func newCollector(ctx context.Context, o Options) *collector {
	g := &guard{ctx: ctx, limit: o.limits.file}
	o.Disks = realDisks(o.Disks)
	host := clean(o.Host)
	if host == "" {
		host = "unknown"
	}
	return &collector{
		Options: o, sys: tree{o.Sys, "/sys", g}, proc: tree{o.Proc, "/proc", g},
		inv: &Inventory{
			Format: Format, Address: o.Address.String(), Hex: o.Address.Hex(), Host: host,
			Time: o.Time.UTC(), Maintenance: clean(o.Maintenance),
		},
	}
}

// maxProblems limits how much a hostile machine can make us write.
const maxProblems = 500

func (c *collector) problem(format string, args ...any) {
	if len(c.inv.Problems) < maxProblems {
		c.inv.Problems = append(c.inv.Problems, clean(fmt.Sprintf(format, args...)))
	}
}

func (c *collector) collectMachine() {
	c.collectCPU()
	dmi, err := readDMI(c.sys)
	if err != nil {
		c.problem("SMBIOS: %v", err)
	}
	c.inv.DMI = dmi
	if uuid, known := machineUUID(c.sys); known {
		c.inv.UUID = uuid
	}
	c.collectFirmware()
}

// maxKernelLog is how many bytes of the kernel log are kept. If there are more,
// its end is kept. The kernel's own buffer has 128 KiB to 1 MiB.
const maxKernelLog = 1 << 20

func (c *collector) collectKernelLog() {
	if c.Kmsg == nil {
		return
	}
	log, err := timed(c.sys.guard, c.Kmsg)
	if err != nil {
		c.problem("kernel log: %v", err)
		return
	}
	if cut := len(log) - maxKernelLog; cut > 0 {
		log = log[cut:]
		c.problem("kernel log: the oldest %d bytes are left out", cut)
	}
	for line := range bytes.Lines(log) {
		c.inv.KernelLog = append(c.inv.KernelLog, cleanTo(strings.TrimRight(string(line), "\n"), 4096))
	}
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
