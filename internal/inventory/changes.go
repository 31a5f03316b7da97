package inventory

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/image"
)

// Change is a difference between two inventories of a box.
type Change struct {
	What string `json:"what"`          // such as "memory" or "disk WDC-1, firmware"
	Was  string `json:"was,omitempty"` // "" if it was not there
	Is   string `json:"is,omitempty"`  // "" if it is not there any more
}

// What a comparison looks at and gives. A box writes inventories.
const (
	maxSection = 256 << 10 // bytes of JSON of one field; what is longer is not compared
	maxFacts   = 4000      // values of one inventory
	maxChanges = 200
	maxValue   = 200 // bytes of a value or name
)

// Changes compares two inventories in their structured form. It gives what differs in
// the machine, in the order of the inventory, and says whether more differs than it
// gives. What changes by itself is left out: times, temperatures, hours of work and the
// kernel's log. Of the health of disks it compares the status and the counters that
// counts names. Whatever the data is, that takes no more than some 100 MiB of memory.
func Changes(was, is []byte, counts func(Attribute) bool) (list []Change, more bool, err error) {
	before, err := factsOf(was, counts)
	if err != nil {
		return nil, false, fmt.Errorf("earlier %w", err)
	}
	now, err := factsOf(is, counts)
	if err != nil {
		return nil, false, err
	}
	add := func(c Change) {
		if len(list) == maxChanges {
			more = true
			return
		}
		list = append(list, c)
	}
	for _, name := range now.names {
		if c := (Change{name, before.values[name], now.values[name]}); c.Was != c.Is {
			add(c)
		}
	}
	for _, name := range before.names {
		if _, still := now.values[name]; !still && before.values[name] != "" {
			add(Change{What: name, Was: before.values[name]})
		}
	}
	return list, more || before.cut || now.cut, nil
}

// TimeOf reads when an inventory was taken, as the box says. It is zero if that cannot
// be read.
func TimeOf(data []byte) time.Time {
	var top struct {
		Time time.Time `json:"time"`
	}
	if len(data) > MaxJSON || json.Unmarshal(data, &top) != nil {
		return time.Time{}
	}
	return top.Time
}

// facts are what an inventory says, each with a name.
type facts struct {
	names  []string
	values map[string]string
	cut    bool // there are more than are compared
}

func short(s string) string {
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "") + "..."
	}
	return image.Printable(s)
}

func (f *facts) add(name, value string) {
	name = short(name)
	if value == "" || len(f.names) >= maxFacts {
		f.cut = f.cut || value != ""
		return
	}
	for n := 2; ; n++ { // two things with one name
		if _, is := f.values[name]; !is {
			break
		}
		if n > 8 {
			f.cut = true
			return
		}
		name = fmt.Sprintf("%s (%d)", strings.TrimSuffix(name, fmt.Sprintf(" (%d)", n-1)), n)
	}
	f.names = append(f.names, name)
	f.values[name] = short(value)
}

func (f *facts) number(name string, n int64) {
	if n != 0 {
		f.add(name, strconv.FormatInt(n, 10))
	}
}

func (f *facts) size(name string, n int64) {
	if n > 0 {
		f.add(name, image.SizeText(n))
	}
}

// part reads a field of the inventory. It is passed over if it is too long.
func (f *facts) part(top map[string]json.RawMessage, field string, into any) error {
	raw := top[field]
	switch {
	case len(raw) == 0:
		return nil
	case len(raw) > maxSection:
		f.cut = true
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("inventory is not readable: %s: %w", field, err)
	}
	return nil
}

func factsOf(data []byte, counts func(Attribute) bool) (*facts, error) {
	if len(data) > MaxJSON {
		return nil, fmt.Errorf("inventory is larger than %d bytes", MaxJSON)
	}
	var fields struct { // the other fields are passed over without taking memory
		Format   int             `json:"format"`
		Host     json.RawMessage `json:"host"`
		UUID     json.RawMessage `json:"uuid"`
		Firmware json.RawMessage `json:"firmware"`
		DMI      json.RawMessage `json:"dmi"`
		CPU      json.RawMessage `json:"cpu"`
		Memory   json.RawMessage `json:"memoryBytes"`
		PCI      json.RawMessage `json:"pci"`
		Network  json.RawMessage `json:"network"`
		Disks    json.RawMessage `json:"disks"`
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("inventory is not readable: %w", err)
	}
	if fields.Format != Format {
		return nil, fmt.Errorf("inventory has format %d, this program reads format %d", fields.Format, Format)
	}
	top := map[string]json.RawMessage{"host": fields.Host, "uuid": fields.UUID, "firmware": fields.Firmware, "dmi": fields.DMI,
		"cpu": fields.CPU, "memoryBytes": fields.Memory, "pci": fields.PCI, "network": fields.Network, "disks": fields.Disks}
	f := &facts{values: map[string]string{}}
	for _, add := range []func(map[string]json.RawMessage) error{f.machine, f.network, f.pci} {
		if err := add(top); err != nil {
			return nil, err
		}
	}
	return f, f.disks(top, counts)
}

func (f *facts) machine(top map[string]json.RawMessage) error {
	var inv Inventory
	for field, into := range map[string]any{"host": &inv.Host, "uuid": &inv.UUID, "firmware": &inv.Firmware, "dmi": &inv.DMI,
		"cpu": &inv.CPU, "memoryBytes": &inv.Memory} {
		if err := f.part(top, field, into); err != nil {
			return err
		}
	}
	f.add("host name", inv.Host)
	f.add("machine UUID", inv.UUID)
	d := inv.DMI
	f.add("system", strings.Join(strings.Fields(d.System.Maker+" "+d.System.Product+" "+d.System.Version), " "))
	f.add("system, serial number", d.System.Serial)
	f.add("board", strings.Join(strings.Fields(d.Board.Maker+" "+d.Board.Product+" "+d.Board.Version), " "))
	f.add("board, serial number", d.Board.Serial)
	f.add("chassis, serial number", d.Chassis.Serial)
	f.add("firmware", strings.Join(strings.Fields(d.BIOS.Vendor+" "+d.BIOS.Version+" "+d.BIOS.Date), " "))
	f.add("firmware, kind", inv.Firmware.Kind)
	f.add("secure boot", inv.Firmware.SecureBoot)
	var order []string
	for _, e := range inv.Firmware.BootOrder[:min(len(inv.Firmware.BootOrder), 64)] {
		order = append(order, e.Name)
	}
	f.add("boot order", strings.Join(order, ", "))
	f.add("processor", inv.CPU.Model)
	f.number("processor, sockets", int64(inv.CPU.Sockets))
	f.number("processor, cores", int64(inv.CPU.Cores))
	f.number("processor, threads", int64(inv.CPU.Threads))
	f.add("processor, microcode", inv.CPU.Microcode)
	f.size("memory", inv.Memory)
	for i, m := range d.Memory {
		if m.Size > 0 {
			name := strings.Join(strings.Fields(m.Bank+" "+m.Slot), " ")
			if name == "" {
				name = strconv.Itoa(i + 1)
			}
			f.add("memory module "+name, strings.Join(strings.Fields(image.SizeText(m.Size)+" "+m.Kind+" "+m.Maker+" "+m.Part+" "+m.Serial), " "))
		}
	}
	return nil
}

func (f *facts) network(top map[string]json.RawMessage) error {
	var cards []NIC
	if err := f.part(top, "network", &cards); err != nil {
		return err
	}
	for _, n := range cards {
		name := "network card " + n.MAC
		f.add(name, n.Name)
		f.add(name+", driver", n.Driver)
		f.number(name+", speed in Mbit/s", int64(n.Speed))
	}
	return nil
}

func (f *facts) pci(top map[string]json.RawMessage) error {
	var all []PCI
	if err := f.part(top, "pci", &all); err != nil {
		return err
	}
	for _, p := range all {
		about := strings.Join(strings.Fields(p.VendorName+" "+p.DeviceName), " ")
		if about == "" {
			about = p.Vendor + ":" + p.Device
		}
		f.add("PCI "+p.Address, about)
	}
	return nil
}

func (f *facts) disks(top map[string]json.RawMessage, counts func(Attribute) bool) error {
	var all []Disk
	if err := f.part(top, "disks", &all); err != nil {
		return err
	}
	for i := range all {
		d := &all[i]
		name := "disk " + d.Serial
		if d.Serial == "" {
			name = "disk " + d.Name
		}
		f.add(name, strings.Join(strings.Fields(d.Model+" "+image.SizeText(d.Size)), " "))
		f.add(name+", connected by", d.Transport)
		f.add(name+", path", d.Path)
		f.add(name+", firmware", d.Firmware)
		f.add(name+", health", strings.TrimSuffix(d.Health.Status+": "+d.Health.Note, ": "))
		for _, a := range d.Health.Attributes {
			if counts(a) {
				f.add(name+", "+a.Name, a.Raw)
			}
		}
		parts := map[string]int64{}
		for _, p := range d.Partitions {
			parts[strings.TrimPrefix(p.Name, d.Name)] = p.Size
		}
		for _, p := range slices.Sorted(maps.Keys(parts)) {
			f.size(name+", partition "+strings.TrimPrefix(p, "p"), parts[p])
		}
	}
	return nil
}
