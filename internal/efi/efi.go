// Package efi reads and writes the boot entries of UEFI firmware, and has the state
// of a box's firmware as a backup records it. It works on a folder of efivarfs, so
// that tests use made-up ones. Whatever a variable says is hostile. So there are
// limits, and nothing here panics.
//
// It writes Boot#### variables that it adds, and BootOrder. It never writes any
// other variable, and never removes one.
package efi

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Number is the number of a boot entry. Its text has four upper-case hexadecimal
// digits, as in the name of the variable Boot0003.
type Number uint16

func (n Number) String() string { return fmt.Sprintf("%04X", uint16(n)) }

// MarshalText implements encoding.TextMarshaler.
func (n Number) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Number) UnmarshalText(b []byte) error {
	v, err := ParseNumber(string(b))
	*n = v
	return err
}

// ParseNumber parses four upper-case hexadecimal digits.
func ParseNumber(s string) (Number, error) {
	v, err := strconv.ParseUint(s, 16, 16)
	if err != nil || len(s) != 4 || s != strings.ToUpper(s) {
		return 0, fmt.Errorf("%.40q is no number of a boot entry, which has four upper-case hexadecimal digits", s)
	}
	return Number(v), nil
}

// numberOf parses the name of a variable such as Boot0003.
func numberOf(variable string) (Number, bool) {
	digits, ok := strings.CutPrefix(variable, "Boot")
	n, err := ParseNumber(digits)
	return n, ok && err == nil
}

// Numbers puts numbers into a sentence.
func Numbers(list []Number) string {
	if len(list) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for i, n := range list {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(n.String())
	}
	return b.String()
}

// maxListed is how many numbers a sentence has.
const maxListed = 32

// guid reads a GUID as UEFI has it in memory. The first three fields are
// little-endian.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

// clean makes a text from outside safe to print on one line.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}

// isClean reports whether a text is as clean makes it.
func isClean(s string, limit int) bool { return clean(s, limit) == s }
