package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"testbox-imaging/internal/box"
)

// Bus is how a disk is attached.
type Bus string

// The buses of a virtual testbox.
const (
	Virtio Bus = "virtio"
	AHCI   Bus = "ahci"
	NVMe   Bus = "nvme"
)

// Firmware is what starts a machine.
type Firmware string

// The kinds of firmware of a virtual testbox.
const (
	BIOS       Firmware = "bios"    // SeaBIOS
	UEFI       Firmware = "uefi"    // OVMF
	UEFISecure Firmware = "uefi-sb" // OVMF with Microsoft's keys and Secure Boot switched on
)

// Disk is a disk of a machine. It is a raw image file.
type Disk struct {
	Path   string
	Bus    Bus
	Serial string // the serial number that the disk tells
	Sector int    // bytes of a sector; 0 means 512
}

// Spec describes a testbox, as one would order it.
type Spec struct {
	Number  int      // which box of the lab, from 0; its addresses depend on it
	Disks   []Disk   // the firmware boots the first one
	Cards   []string // QEMU's network card models, the first boots; empty means one virtio-net-pci
	Memory  int      // MiB; 0 means 768
	CPUs    int      // 0 means 1; by emulation, two need a quarter more of the host's time for the same work
	NoWatch bool     // without the i6300esb hardware watchdog

	Firmware Firmware // "" means BIOS
	NoPXE    bool     // with UEFI: the network card starts by HTTP only
	ROM      string   // with UEFI: path of the ROM of the first card, if that is no virtio-net-pci; "" means QEMU's own
}

// Machine is a virtual testbox. PowerOn and PowerOff may be called any number
// of times. The contents of the disks stay.
type Machine struct {
	Addr     box.Addr
	Console  *Watch // the serial console
	Firmware *Watch // what SeaBIOS prints while it looks for something to boot; OVMF prints on the console

	lab  *Lab
	spec Spec

	power sync.Mutex // one switches it at a time
	mu    sync.Mutex // guards the fields below
	proc  *process   // nil if it is off
	qmp   *qmp
}

// Machine makes a testbox. It is switched off at first.
func (l *Lab) Machine(spec Spec) (*Machine, error) {
	if spec.Number < 0 || spec.Number >= maxBoxes {
		return nil, fmt.Errorf("a lab has boxes 0 to %d, not %d", maxBoxes-1, spec.Number)
	}
	if len(spec.Cards) == 0 {
		spec.Cards = []string{"virtio-net-pci"}
	}
	if spec.Memory == 0 {
		spec.Memory = 768
	}
	if spec.CPUs == 0 {
		spec.CPUs = 1
	}
	if spec.Firmware == "" {
		spec.Firmware = BIOS
	}
	m := &Machine{Addr: BoxAddr(spec.Number), lab: l, spec: spec}
	m.Console = &Watch{Path: l.logFile(m.Addr.String() + "-console"), Alive: m.alive}
	m.Firmware = &Watch{Path: l.logFile(m.Addr.String() + "-firmware"), Alive: m.alive}
	l.machines = append(l.machines, m)
	return m, nil
}

// UUID is the SMBIOS UUID of the machine.
func (m *Machine) UUID() string {
	return fmt.Sprintf("7e57b0c5-1ab0-4000-8000-%012x", m.spec.Number+1)
}

// SetDisks takes the machine's disks out and puts others in. The machine must be off.
func (m *Machine) SetDisks(disks ...Disk) error {
	m.power.Lock()
	defer m.power.Unlock()
	if m.alive() == nil {
		return fmt.Errorf("box %s is on", m.Addr)
	}
	m.spec.Disks = disks
	return nil
}

// PowerOn starts the machine. It boots from the network first.
func (m *Machine) PowerOn() error {
	m.power.Lock()
	defer m.power.Unlock()
	return m.powerOn()
}

func (m *Machine) powerOn() error {
	if m.alive() == nil {
		return fmt.Errorf("box %s is on already", m.Addr)
	}
	if err := m.plugIn(); err != nil {
		return err
	}
	fresh, err := m.prepareNVRAM()
	if err != nil {
		return err
	}
	control, theirs, err := qmpPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	argv := m.argv(fresh || m.spec.Firmware == BIOS)
	proc, err := m.lab.ns.start("qemu of box "+m.Addr.String(), m.lab.logFile(m.Addr.String()+"-qemu"), []*os.File{theirs}, argv...)
	if err != nil {
		control.close()
		return err
	}
	m.mu.Lock()
	m.proc, m.qmp = proc, control
	m.mu.Unlock()
	theirs.Close() // so that the connection ends when QEMU ends
	if err := control.hello(); err != nil {
		said := tail(proc.log, 0, 5)
		m.powerOff()
		return fmt.Errorf("box %s did not start: %w: %s", m.Addr, err, said)
	}
	return nil
}

// plugIn makes the tap devices to which the network cards are connected.
func (m *Machine) plugIn() error {
	for i := range m.spec.Cards {
		tap := m.tap(i)
		if exists := m.lab.ns.ip("link show "+tap) == nil; exists {
			continue
		}
		if err := m.lab.ns.ip("tuntap add "+tap+" mode tap", "link set "+tap+" master "+bridge, "link set "+tap+" up"); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) tap(card int) string { return fmt.Sprintf("tap%d-%d", m.spec.Number, card) }

// argv is the QEMU command. When QEMU is killed, the guest's writes are still
// in the host's page cache. So the disk loses nothing, like one whose writes
// are all safe. What a disk may lose is the subject of other tests. If order is
// set, QEMU tells the firmware to start from the network first, as an admin does
// in the firmware's setup.
func (m *Machine) argv(order bool) []string {
	a := qemu(m.spec.Firmware.machine(), m.lab.KVM, m.spec.CPUs, m.spec.Memory)
	a = append(a, m.uefiArgs()...)
	a = append(a, "-vga", "std", "-uuid", m.UUID(),
		"-smbios", fmt.Sprintf("type=1,manufacturer=Testbox,product=Virtual testbox,serial=TB%04d,uuid=%s", m.spec.Number, m.UUID()),
		"-chardev", "file,id=console,append=on,path="+m.Console.Path, "-serial", "chardev:console",
		"-chardev", "file,id=firmware,append=on,path="+m.Firmware.Path, "-device", "isa-debugcon,iobase=0x402,chardev=firmware",
		"-chardev", "socket,id=control,fd=3", "-mon", "chardev=control,mode=control")
	if !m.spec.NoWatch {
		a = append(a, "-device", "i6300esb", "-action", "watchdog=reset")
	}
	index := func(n int) string {
		if !order {
			return ""
		}
		return fmt.Sprintf(",bootindex=%d", n)
	}
	for i, model := range m.spec.Cards {
		mac, boot := BoxMAC(m.spec.Number), m.spec.rom()+index(0)
		if i > 0 {
			// This card has no boot ROM. Otherwise the firmware would use it to
			// ask for DHCP, in vain, whenever no disk starts.
			mac, boot = spareMAC(m.spec.Number, i), ",romfile="
		}
		a = append(a, "-netdev", fmt.Sprintf("tap,id=net%d,ifname=%s,script=no,downscript=no", i, m.tap(i)),
			"-device", fmt.Sprintf("%s,netdev=net%d,mac=%s%s", model, i, mac, boot))
	}
	for i, d := range m.spec.Disks {
		a = append(a, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,cache=unsafe,file=%s", i, d.Path),
			"-device", fmt.Sprintf("%s,drive=disk%d,serial=%s%s%s", d.Bus.device(i), i, d.Serial, d.sectors(), index(i+1)))
	}
	return a
}

// device is QEMU's name for disk i of a machine on this bus. An AHCI disk says that
// it does not turn, as an SSD does (rotation rate 1, ACS-4 7.13.6.35).
func (b Bus) device(i int) string {
	switch b {
	case AHCI:
		return fmt.Sprintf("ide-hd,rotation_rate=1,bus=ide.%d", i)
	case NVMe:
		return "nvme"
	default:
		return "virtio-blk-pci"
	}
}

// sectors are QEMU's words for the size of the disk's sectors.
func (d Disk) sectors() string {
	if d.Sector == 0 {
		return ""
	}
	return fmt.Sprintf(",logical_block_size=%[1]d,physical_block_size=%[1]d", d.Sector)
}

// qemu is the beginning of all our QEMU commands. It switches off all default
// devices and the window, and uses emulation unless KVM is known to work.
func qemu(machine string, kvm bool, cpus, memory int) []string {
	a := []string{"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine, "-smp", fmt.Sprint(cpus),
		"-m", fmt.Sprint(memory)}
	if kvm {
		return append(a, "-accel", "kvm", "-cpu", "host")
	}
	return append(a, "-accel", "tcg,thread=multi")
}

// PowerOff cuts the machine's power by killing QEMU.
func (m *Machine) PowerOff() {
	m.power.Lock()
	defer m.power.Unlock()
	m.powerOff()
}

func (m *Machine) powerOff() {
	m.mu.Lock()
	proc, control := m.proc, m.qmp
	m.proc = nil
	m.mu.Unlock()
	if proc != nil {
		proc.kill()
		control.close()
	}
}

// Reset presses the machine's reset button.
func (m *Machine) Reset() error {
	m.power.Lock()
	defer m.power.Unlock()
	return m.reset()
}

func (m *Machine) reset() error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.qmp.do("system_reset") // who switches it alone changes qmp
}

// Restart presses the reset button, or switches the machine on.
func (m *Machine) Restart() error {
	m.power.Lock()
	defer m.power.Unlock()
	if m.alive() != nil {
		return m.powerOn()
	}
	return m.reset()
}

func (m *Machine) alive() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc == nil {
		return errors.New("the machine is switched off")
	}
	return m.proc.alive()
}

// Ended is closed when the machine's QEMU ends, by PowerOff or by itself.
func (m *Machine) Ended() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc.done
}

// BootsNothing waits until the firmware has tried everything and found nothing
// to boot. Call Firmware.SkipAll before the machine is started. With UEFI it is our grub.cfg that finds nothing.
func (m *Machine) BootsNothing(ctx context.Context, timeout time.Duration) error {
	if m.spec.Firmware != BIOS {
		_, err := m.Console.Wait(ctx, regexp.MustCompile(`no disk of this machine has a loader that starts`), timeout)
		return err
	}
	_, err := m.Firmware.Wait(ctx, regexp.MustCompile(`^No bootable device`), timeout)
	return err
}

// Log watches the box's maintenance.log from its present end on.
func (m *Machine) Log() *Watch {
	w := &Watch{Path: filepath.Join(m.lab.BoxDir(m.Addr), box.LogFile), Alive: m.alive}
	w.SkipAll()
	return w
}

// Ended matches the line of a box's log that says how an action ended.
func Ended(action box.Action) *regexp.Regexp {
	return regexp.MustCompile(`: (info|error): ` + regexp.QuoteMeta(string(action)) + `: `)
}

// Succeeded matches the line of a box's log that says that an action is done.
func Succeeded(action box.Action) *regexp.Regexp {
	return regexp.MustCompile(`: info: ` + regexp.QuoteMeta(string(action)) + `: done$`)
}
