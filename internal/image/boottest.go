package image

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"slices"
	"time"
	"unicode/utf8"
)

// Verdict is what a boot test has found.
type Verdict string

// The verdicts. Only a sign that a running system gives on purpose is a pass.
const (
	BootPassed   Verdict = "passed"
	BootUnproven Verdict = "unproven" // there was no proof in time, neither that it starts nor that it does not
	BootFailed   Verdict = "failed"
)

// Sign is a sign of life that a boot test has seen.
type Sign string

// The signs of life, from weak to strong. Only the last two are a pass.
const (
	SignNothing  Sign = "nothing"
	SignRead     Sign = "read"     // the disks were read beyond their first sectors
	SignSerial   Sign = "serial"   // text of the system on the serial line
	SignScreen   Sign = "screen"   // the screen is neither that of the firmware nor that of a loader
	SignWritten  Sign = "written"  // a system wrote to its disks, which loaders do not
	SignLogin    Sign = "login"    // it asks for a login
	SignExpected Sign = "expected" // the line that the admin wants was there
)

// Signs are all signs, the weakest first.
var Signs = []Sign{SignNothing, SignRead, SignSerial, SignScreen, SignWritten, SignLogin, SignExpected}

// BootTest is the result of the latest boot test of a backup.
type BootTest struct {
	Time     time.Time `json:"time"` // when it ended
	Verdict  Verdict   `json:"verdict"`
	Sign     Sign      `json:"sign"`     // the strongest sign of life
	Text     string    `json:"text"`     // what was seen, for people
	Firmware string    `json:"firmware"` // "bios" or "uefi"
	Seconds  int       `json:"seconds"`  // that the machine ran
	// Busy is how often in a row this machine had too much other work to find anything out.
	Busy int `json:"busy,omitempty"`
	// Picture is the last screen as a PNG of at most MaxBootPicture bytes; empty is none.
	Picture []byte `json:"picture,omitempty"`
}

// Limits of a boot test's result.
const (
	MaxBootText    = 1000     // bytes
	MaxBootPicture = 32 << 10 // bytes; the picture is a part of the record, and lists read records
	maxBootSeconds = 2 * 3600
	maxBootSide    = 4096 // pixels
)

// Check returns an error if a value of the result cannot be true.
func (b *BootTest) Check() error {
	passes := b.Sign == SignLogin || b.Sign == SignExpected
	switch {
	case b.Time.IsZero():
		return errors.New("the boot test has no time")
	case b.Verdict != BootPassed && b.Verdict != BootUnproven && b.Verdict != BootFailed:
		return fmt.Errorf("the boot test has the verdict %.40q", b.Verdict)
	case !slices.Contains(Signs, b.Sign):
		return fmt.Errorf("the boot test has the sign %.40q", b.Sign)
	case b.Verdict == BootPassed && !passes:
		return fmt.Errorf("the boot test is passed by the sign %q, which is too weak", b.Sign)
	case len(b.Text) > MaxBootText || !utf8.ValidString(b.Text):
		return fmt.Errorf("the boot test has a text of %d bytes, more than %d or not UTF-8", len(b.Text), MaxBootText)
	case b.Firmware != "bios" && b.Firmware != "uefi":
		return fmt.Errorf("the boot test has the firmware %.40q", b.Firmware)
	case b.Seconds < 0 || b.Seconds > maxBootSeconds:
		return fmt.Errorf("the boot test took %d seconds", b.Seconds)
	case b.Busy < 0 || b.Busy > 0 && b.Verdict != BootUnproven:
		return fmt.Errorf("the boot test is %s, and found the machine busy %d times", b.Verdict, b.Busy)
	case len(b.Picture) > MaxBootPicture:
		return fmt.Errorf("the boot test has a picture of %d bytes, more than %d", len(b.Picture), MaxBootPicture)
	}
	if len(b.Picture) > 0 {
		c, err := png.DecodeConfig(bytes.NewReader(b.Picture))
		if err != nil || c.Width > maxBootSide || c.Height > maxBootSide {
			return errors.New("the picture of the boot test is no PNG, or too large")
		}
	}
	return nil
}
