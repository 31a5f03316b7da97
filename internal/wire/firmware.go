package wire

import (
	"encoding/json"
	"fmt"

	"testbox-imaging/internal/efi"
)

// FirmwarePath is the path of the request for a Firmware.
const FirmwarePath = Prefix + "firmware"

// MaxFirmware is how many bytes a Firmware has at most.
const MaxFirmware = efi.MaxNote + efi.MaxState + 1024

// Firmware is what the server knows of the firmware of an agent's box. An agent asks
// for it, so that agents which do not know of it never get it.
type Firmware struct {
	// Before is what the latest start of the box noted. nil is unknown.
	Before *efi.Note `json:"before,omitempty"`
	// Image is the state of the firmware when the backup was made that a restore or a
	// verify uses. nil is unknown.
	Image *efi.State `json:"image,omitempty"`
}

// ParseFirmware parses the JSON of a Firmware. Fields that are not known are passed
// over, since a newer program may have written them.
func ParseFirmware(b []byte) (*Firmware, error) {
	var f Firmware
	if len(b) > MaxFirmware {
		return nil, fmt.Errorf("what the server knows of the firmware has more than %d bytes", MaxFirmware)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("what the server knows of the firmware is not readable: %w", err)
	}
	if f.Before != nil {
		if err := f.Before.Check(); err != nil {
			return nil, err
		}
	}
	if f.Image != nil {
		if err := f.Image.Check(); err != nil {
			return nil, err
		}
	}
	return &f, nil
}
