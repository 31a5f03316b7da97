package inventory

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/words"
)

// report builds the text for people. It has sections of "name  value" lines.
// Lines with an unknown value are left out.
type report struct {
	bytes.Buffer
}

func (r *report) section(title string) { fmt.Fprintf(r, "\n%s\n", title) }

func (r *report) field(name, value string) {
	if value != "" {
		fmt.Fprintf(r, "  %-20s %s\n", name, value)
	}
}

func (r *report) number(name string, n int) {
	if n != 0 {
		r.field(name, strconv.Itoa(n))
	}
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r, "  "+format+"\n", args...) }

// Text returns the inventory as a text for people.
func (inv *Inventory) Text() []byte {
	r := &report{}
	fmt.Fprintf(r, "Testbox %s (%s)\n", inv.Address, inv.Host)
	r.field("address", inv.Address)
	r.field("hexadecimal address", inv.Hex)
	r.field("host name", inv.Host)
	r.field("time", inv.Time.Format(time.RFC3339))
	r.field("maintenance system", inv.Maintenance)
	r.field("kernel", inv.Kernel)
	inv.textProblems(r)
	inv.textMachine(r)
	inv.textFirmware(r)
	inv.textNetwork(r)
	inv.textDisks(r)
	inv.textPCI(r)
	inv.textKernelLog(r)
	return r.Bytes()
}

func (inv *Inventory) textProblems(r *report) {
	if len(inv.Problems) == 0 {
		return
	}
	r.section("Problems (what could not be read, or needs a look)")
	for _, p := range inv.Problems {
		r.line("%s", p)
	}
}

func (inv *Inventory) textMachine(r *report) {
	r.section("Machine")
	uuid := inv.UUID
	if uuid == "" {
		uuid = "unknown"
	}
	r.field("UUID", uuid)
	r.field("system", joined(inv.DMI.System))
	r.field("board", joined(inv.DMI.Board))
	c := inv.DMI.Chassis
	r.field("chassis", joined(Product{Maker: c.Maker, Product: c.Kind, Version: c.Version, Serial: c.Serial, Asset: c.Asset}))
	inv.textProcessors(r)
	inv.textMemory(r)
}

// joined writes a product on one line.
func joined(p Product) string {
	var parts []string
	for _, f := range []struct{ name, value string }{
		{"", p.Maker}, {"", p.Product}, {"version ", p.Version}, {"serial ", p.Serial}, {"SKU ", p.SKU}, {"family ", p.Family},
		{"asset ", p.Asset},
	} {
		if f.value != "" {
			parts = append(parts, f.name+f.value)
		}
	}
	return strings.Join(parts, ", ")
}

func (inv *Inventory) textProcessors(r *report) {
	c := inv.CPU
	r.section("Processors")
	r.field("model", c.Model)
	r.number("sockets", c.Sockets)
	r.number("cores", c.Cores)
	r.number("threads", c.Threads)
	r.field("microcode", c.Microcode)
	r.field("flags", strings.Join(c.Flags, " "))
	for _, p := range inv.DMI.Processors {
		if !p.Populated {
			r.line("socket %s: empty", p.Socket)
			continue
		}
		r.line("socket %s: %s %s, %s, %s, up to %d MHz",
			p.Socket, p.Maker, p.Version, words.Count(p.Cores, "core"), words.Count(p.Threads, "thread"), p.MaxMHz)
	}
}

func (inv *Inventory) textMemory(r *report) {
	r.section("Memory")
	if inv.Memory > 0 {
		r.field("usable", size(inv.Memory))
	}
	for _, m := range inv.DMI.Memory {
		if m.Size == 0 {
			r.line("%s %s: empty or unknown", m.Slot, m.Bank)
			continue
		}
		r.line("%s %s: %s %s, %d MT/s, %s %s, serial %s", m.Slot, m.Bank, size(m.Size), m.Kind, m.Speed, m.Maker, m.Part, m.Serial)
	}
}

func (inv *Inventory) textFirmware(r *report) {
	f := inv.Firmware
	r.section("Firmware")
	r.field("kind", f.Kind)
	r.number("bits", f.Bits)
	r.field("vendor", inv.DMI.BIOS.Vendor)
	r.field("version", inv.DMI.BIOS.Version)
	r.field("date", inv.DMI.BIOS.Date)
	r.field("release", inv.DMI.BIOS.Release)
	r.field("SMBIOS", inv.DMI.Version)
	r.field("Secure Boot", f.SecureBoot)
	r.field("booted by", f.BootCurrent)
	r.field("next boot", f.BootNext)
	for i, e := range f.BootOrder {
		state := ""
		if !e.Active {
			state = " (not active)"
		}
		r.line("boot order %d: Boot%s %s%s", i+1, e.Number, e.Name, state)
	}
	if n := f.NetworkFirst; n != nil {
		r.field("network first", string(n.Result))
		r.field("", n.Text)
	}
	if f.State == nil {
		return
	}
	for _, e := range f.State.Entries {
		where := ""
		if p := e.Partition; p != nil && p.Disk != "" {
			where = fmt.Sprintf(" (disk %s, file system %s)", p.Disk, orNone(p.Volume))
		}
		r.line("Boot%s: %s %s%s", e.Number, e.Kind, e.Path, where)
	}
	for i := range f.State.NVMe {
		n := &f.State.NVMe[i]
		var formats []string
		for at, l := range n.Formats {
			if l.Block == 0 {
				continue
			}
			text := fmt.Sprintf("%d+%d", l.Block, l.Metadata)
			if at == n.Format {
				text += " (in use)"
			}
			formats = append(formats, text)
		}
		all := ""
		if len(n.Active) > 0 {
			all = " of " + strings.Trim(fmt.Sprint(n.Active), "[]")
		}
		r.line("NVMe %s: namespace %d%s, formats %s", n.Disk, n.ID, all, strings.Join(formats, ", "))
	}
}

func (inv *Inventory) textNetwork(r *report) {
	r.section("Network cards")
	for _, n := range inv.Network {
		link := "no link"
		if n.Up {
			link = "link"
			if n.Speed > 0 {
				link = fmt.Sprintf("link %d Mbit/s", n.Speed)
			}
		}
		r.line("%s  %s  %s  %s  driver %s", n.Name, n.MAC, n.PCI, link, n.Driver)
	}
}

func (inv *Inventory) textPCI(r *report) {
	r.section("PCI devices")
	for _, p := range inv.PCI {
		r.line("%s  %s  %s:%s  %s", p.Address, named(p.Class, p.ClassName), p.Vendor, p.Device, strings.TrimSpace(p.VendorName+" "+p.DeviceName))
		card := ""
		if hexNumber(p.SubVendor) != 0 {
			card = strings.TrimSpace("card "+p.SubVendor+":"+p.SubDevice+" "+p.SubsystemName) + ", "
		}
		r.line("  %srevision %s, driver %s%s", card, p.Revision, orNone(p.Driver), prefixed(", link ", p.Link))
	}
}

func (inv *Inventory) textKernelLog(r *report) {
	if len(inv.KernelLog) == 0 {
		return
	}
	r.section("Kernel log")
	for _, l := range inv.KernelLog {
		r.line("%s", l)
	}
}

func named(number, name string) string {
	if name == "" {
		return "class " + number
	}
	return name
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// size writes a number of bytes exactly, and from 1 MiB on also in a readable
// unit.
func size(n int64) string {
	units := []struct {
		name string
		n    int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}}
	for _, u := range units {
		if n >= u.n {
			return fmt.Sprintf("%d bytes (%.1f %s)", n, float64(n)/float64(u.n), u.name)
		}
	}
	return words.Count(n, "byte")
}
