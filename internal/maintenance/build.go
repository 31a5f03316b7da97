// Package maintenance builds the maintenance system. Its form ram is Debian's
// kernel with an initramfs, which has the agent as /init, the drivers of common
// lab hardware and their firmware. Its form debian is a Debian whose root boxes
// mount by NFS (debian.go). Everything comes from the host's own apt sources.
// Nothing is installed on the host.
package maintenance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/words"
)

// Options say what to build. If a field has a default, its zero value stands
// for it.
type Options struct {
	TFTP  string               // folder of the TFTP area, which must exist
	Agent string               // the agent's program, static
	Cache string               // folder of downloads; "" means DefaultCache
	Etc   string               // the host's apt configuration; "" means /etc/apt
	Say   func(string, ...any) // gets lines on what goes on, from one goroutine at a time; may be nil
}

// Result is a maintenance system that was built now or earlier.
type Result struct {
	Version bootcfg.Version
	Existed bool           // built earlier from the same input, then checked and kept
	Size    int64          // of kernel and initrd, bytes
	Loaders []loaders.Pair // of UEFI machines that are in the area now
	Notes   []string       // what an admin should know, such as drivers without firmware and sources that failed
}

// MaxSize is the largest size in bytes of kernel and initrd together. A build
// fails if they are larger. Loaders fetch both by TFTP, and old loaders fail on
// large files.
const MaxSize = 30_000_000

// Build makes a maintenance system and publishes it in the TFTP area, and the loaders
// by which UEFI machines reach it. A build that fails changes nothing there.
func Build(ctx context.Context, opt Options) (*Result, error) {
	opt, err := opt.complete()
	if err != nil {
		return nil, err
	}
	agent, err := readAgent(opt.Agent)
	if err != nil {
		return nil, err
	}
	if err := checkArea(opt.TFTP); err != nil {
		return nil, err
	}
	a, err := openApt(ctx, opt)
	if err != nil {
		return nil, err
	}
	defer a.close()
	parts, err := gather(ctx, a, opt)
	if err != nil {
		return nil, err
	}
	end := opt.busy("", "packing the initrd: %s and %s",
		words.Count(len(parts.modules.table.Modules), "module"), words.Count(len(parts.firmware), "firmware file"))
	initrd, err := packInitrd(initrdEntries(agent, parts))
	end()
	if err != nil {
		return nil, err
	}
	if size := len(parts.kernel.image) + len(initrd); size > MaxSize {
		return nil, fmt.Errorf("kernel and initrd have %d bytes, more than %d; loaders would fail on them", size, MaxSize)
	}
	opt.Say("putting kernel and initrd into %s", filepath.Join(opt.TFTP, bootcfg.MaintDir))
	r, err := publish(opt, parts, initrd)
	if err != nil {
		return nil, err
	}
	return r, r.addLoaders(ctx, a)
}

func (opt Options) complete() (Options, error) {
	if opt.Say == nil {
		opt.Say = func(string, ...any) {}
	}
	opt.Say = oneAtATime(opt.Say)
	if opt.Etc == "" {
		opt.Etc = "/etc/apt"
	}
	var err error
	if opt.Cache == "" {
		opt.Cache, err = DefaultCache()
	}
	if err == nil {
		opt.Cache, err = filepath.Abs(opt.Cache)
	}
	return opt, err
}

// parts has everything of which a maintenance system is made.
type parts struct {
	kernel   *kernel
	modules  *selection
	firmware []entry
	pciIDs   []byte // text of pci.ids, nil if the package could not be had
	packages []pkg
	lacking  map[string][]string // for each module, its firmware files that could not be had
	notes    []string
}

// gather downloads and reads all parts.
func gather(ctx context.Context, a *apt, opt Options) (*parts, error) {
	p := &parts{}
	if err := p.gatherKernel(ctx, a, filepath.Join(a.work, "kernel"), opt, drivers, loadAlways); err != nil {
		return nil, err
	}
	if err := p.gatherFirmware(ctx, a, filepath.Join(a.work, "firmware")); err != nil {
		return nil, err
	}
	if err := p.gatherPCIIDs(ctx, a, filepath.Join(a.work, "pciids")); err != nil {
		return nil, err
	}
	p.notes = append(p.notes, a.notes...)
	return p, nil
}

func (p *parts) gatherKernel(ctx context.Context, a *apt, dir string, opt Options, wanted, always []string) error {
	packages, err := kernelPackages(ctx, a)
	if err != nil {
		return err
	}
	for _, k := range packages {
		if err := a.unpack(ctx, k, dir); err != nil {
			return err
		}
	}
	defer opt.busy("", "choosing the kernel's drivers")()
	p.packages = append(p.packages, packages...)
	if p.kernel, err = findKernel(dir); err != nil {
		return err
	}
	if p.modules, err = selectModules(p.kernel.tree, wanted, always); err != nil {
		return err
	}
	if len(p.modules.missing) > 0 {
		p.notes = append(p.notes, fmt.Sprintf("kernel %s has no driver %s", p.kernel.release, strings.Join(p.modules.missing, ", ")))
	}
	return nil
}

func (p *parts) gatherFirmware(ctx context.Context, a *apt, dir string) error {
	packages, err := fetchFirmware(ctx, a, dir)
	if err != nil {
		return err
	}
	p.packages = append(p.packages, packages...)
	named := p.modules.firmware()
	if p.firmware, p.lacking, err = firmwareEntries(dir, named); err != nil {
		return err
	}
	if note := firmwareNote(named, p.lacking); note != "" {
		p.notes = append(p.notes, note)
	}
	return nil
}

// gatherPCIIDs fetches the names of PCI devices. Without them, inventories show
// only numbers.
func (p *parts) gatherPCIIDs(ctx context.Context, a *apt, dir string) error {
	names, err := a.show(ctx, "pci.ids")
	if err == nil {
		err = a.unpack(ctx, names, dir)
	}
	if err == nil {
		p.pciIDs, err = os.ReadFile(filepath.Join(dir, pciIDsPath))
	}
	if err != nil {
		p.notes = append(p.notes, fmt.Sprintf("inventories have no names of PCI devices: %v", err))
		return ctx.Err()
	}
	p.packages = append(p.packages, names)
	return nil
}

// pciIDsPath is where Debian's package has the names, and where the agent looks
// for them.
const pciIDsPath = "usr/share/misc/pci.ids"

// initrdEntries returns everything in the initramfs.
func initrdEntries(agent []byte, p *parts) []entry {
	entries := []entry{
		{path: "init", mode: modeFile | 0o755, data: agent},
		{path: "lib/modules/modules.table", mode: modeFile | 0o644, data: p.modules.table.Marshal()},
		// The kernel opens dev/console as the init's output before anything is
		// mounted.
		{path: "dev/console", mode: modeChar | 0o600, rdev: [2]uint32{5, 1}},
	}
	for _, dir := range []string{"proc", "sys", "run", "etc", "tmp", bootcfg.TFTPMount[1:], bootcfg.BackupMount[1:]} {
		entries = append(entries, entry{path: dir, mode: modeDir | 0o755})
	}
	for _, m := range p.modules.table.Modules {
		entries = append(entries, entry{path: "lib/modules/" + m.Name + ".ko", mode: modeFile | 0o644, data: p.kernel.tree.read[m.Name].data})
	}
	if p.pciIDs != nil {
		entries = append(entries, entry{path: pciIDsPath, mode: modeFile | 0o644, data: p.pciIDs})
	}
	return append(entries, p.firmware...)
}

// packInitrd makes the compressed archive. The kernel can read zstd with
// windows of up to 8 MiB (lib/decompress_unzstd.c).
func packInitrd(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20),
		zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if err := writeCPIO(enc, entries); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// now is the present time, to the second.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
