package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Attributes of a load option.
const (
	optionActive   = 0x00000001
	optionHidden   = 0x00000008
	optionCategory = 0x00001f00
	optionApp      = 0x00000100 // a category: a program of the firmware, which is never booted by itself
)

// maxOption is how many bytes of a load option are kept. A longer one is recorded
// without its bytes, and cannot be put back.
const maxOption = 4 << 10

const maxName = 256 // bytes of an entry's name

// parseOption reads an EFI_LOAD_OPTION (UEFI specification 2.10, 3.1.3). It has the
// attributes, the length of the device paths, a name in UTF-16 that ends with a zero,
// the device paths, and data for the program that is started. The entry has what can
// be read, also if there is an error.
func parseOption(n Number, b []byte) (Entry, error) {
	e := Entry{Number: n, Kind: OtherEntry}
	if len(b) < 8 {
		return e, fmt.Errorf("boot entry %s has %d bytes, which are too few for one", n, len(b))
	}
	attributes := binary.LittleEndian.Uint32(b)
	e.Active, e.Hidden = attributes&optionActive != 0, attributes&optionHidden != 0
	if len(b) <= maxOption {
		e.Option = append([]byte(nil), b...)
	}
	path, err := e.splitOption(b)
	if err != nil {
		return e, fmt.Errorf("boot entry %s: %w", n, err)
	}
	all, err := nodes(path)
	err = errors.Join(err, e.describe(all))
	if attributes&optionCategory == optionApp {
		e.Kind = FirmwareEntry
	}
	if err != nil {
		return e, fmt.Errorf("boot entry %s: %w", n, err)
	}
	return e, nil
}

// byItself reports whether the firmware boots the entry when its turn in the order comes
// (UEFI specification 2.10, 3.1.3, LOAD_OPTION_ACTIVE and LOAD_OPTION_CATEGORY).
func (e *Entry) byItself() bool {
	app := len(e.Option) >= 4 && binary.LittleEndian.Uint32(e.Option)&optionCategory == optionApp
	return e.Active && !app
}

// splitOption reads the name, and returns the device paths.
func (e *Entry) splitOption(b []byte) (path []byte, err error) {
	n := int(binary.LittleEndian.Uint16(b[4:]))
	rest := b[6:]
	for i := 0; i+2 <= len(rest); i += 2 {
		if rest[i] != 0 || rest[i+1] != 0 {
			continue
		}
		e.Name = clean(text16(rest[:i]), maxName)
		rest = rest[i+2:]
		if n > len(rest) {
			return nil, fmt.Errorf("it has a device path of %d bytes, and %d are left", n, len(rest))
		}
		return rest[:n], nil
	}
	return nil, errors.New("it has a name without an end")
}
