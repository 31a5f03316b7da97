package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
)

// globalVariable is the end of the file names of variables that the UEFI
// specification itself defines. A file of efivarfs is named variable-vendor,
// and this is the vendor of these variables.
const globalVariable = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

const efivars = "firmware/efi/efivars"

// maxVariable is the size limit of a variable that is read here, in bytes.
const maxVariable = 64 << 10

// maxBootEntries limits BootOrder. Firmware has a few entries. 65536 are
// possible.
const maxBootEntries = 256

func (c *collector) collectFirmware() {
	f := &c.inv.Firmware
	if n := c.Firmware; n != nil {
		f.State, f.NetworkFirst = &n.State, n.NetworkFirst
		if n.NetworkFirst != nil && n.NetworkFirst.Bad() {
			c.problem("boot order: %s: %s", n.NetworkFirst.Result, n.NetworkFirst.Text)
		}
	}
	if !c.sys.exists("firmware/efi") {
		f.Kind = "BIOS"
		return
	}
	f.Kind = "UEFI"
	f.Bits, _ = strconv.Atoi(c.sys.attr("firmware/efi/fw_platform_size"))
	order, err := c.variable("BootOrder")
	if err != nil {
		c.problem("UEFI: BootOrder: %v", err)
	}
	f.SecureBoot = c.secureBoot()
	f.BootCurrent = c.bootNumber("BootCurrent")
	f.BootNext = c.bootNumber("BootNext")
	for i := 0; i+2 <= len(order) && i < 2*maxBootEntries; i += 2 {
		f.BootOrder = append(f.BootOrder, c.bootEntry(binary.LittleEndian.Uint16(order[i:])))
	}
}

// variable returns the value of a global variable, without the four bytes of
// attributes at the start of an efivarfs file.
func (c *collector) variable(name string) ([]byte, error) {
	b, err := c.sys.read(efivars+"/"+name+globalVariable, maxVariable)
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("%d bytes are too short for a variable", len(b))
	}
	return b[4:], nil
}

func (c *collector) secureBoot() string {
	on, err := c.variable("SecureBoot")
	if err != nil || len(on) != 1 {
		return "" // firmware without it has no such variable
	}
	state := "off"
	if on[0] == 1 {
		state = "on"
	}
	if setup, err := c.variable("SetupMode"); err == nil && len(setup) == 1 && setup[0] == 1 {
		state += ", setup mode"
	}
	return state
}

func (c *collector) bootNumber(name string) string {
	b, err := c.variable(name)
	if err != nil || len(b) != 2 {
		return ""
	}
	return fmt.Sprintf("%04X", binary.LittleEndian.Uint16(b))
}

func (c *collector) bootEntry(n uint16) BootEntry {
	e := BootEntry{Number: fmt.Sprintf("%04X", n)}
	b, err := c.variable("Boot" + e.Number)
	if err == nil {
		e.Name, e.Active, err = parseLoadOption(b)
	}
	if err != nil {
		c.problem("UEFI: Boot%s: %v", e.Number, err)
	}
	return e
}

// parseLoadOption reads an EFI_LOAD_OPTION (UEFI specification, "Load
// Options"). It has the attributes (bit 0 means active), the length of the
// device path, a name in UTF-16 that ends with a zero, and the device path.
func parseLoadOption(b []byte) (name string, active bool, err error) {
	if len(b) < 8 {
		return "", false, errors.New("a boot entry of less than 8 bytes")
	}
	active = b[0]&1 != 0
	var units []uint16
	for rest := b[6:]; len(rest) >= 2; rest = rest[2:] {
		u := binary.LittleEndian.Uint16(rest)
		if u == 0 {
			return clean(string(utf16.Decode(units))), active, nil
		}
		units = append(units, u)
	}
	return "", active, errors.New("a boot entry whose name has no end")
}
