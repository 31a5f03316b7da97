package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// attributeNames are the names on which makers agree. No standard fixes the
// numbers, and a raw value means what the maker wants.
var attributeNames = map[byte]string{
	1: "raw read errors", 3: "spin-up time", 4: "starts and stops", 5: "reallocated sectors", 7: "seek errors", 9: "power-on hours",
	10: "spin-up retries", 12: "power cycles", 171: "program failures", 172: "erase failures", 173: "wear levelling",
	174: "unexpected power losses",
	177: "wear levelling", 179: "used reserve", 181: "program failures", 182: "erase failures", 183: "interface downshifts",
	184: "end-to-end errors",
	187: "uncorrectable errors", 188: "command time-outs", 190: "airflow temperature", 191: "shocks", 192: "emergency retracts",
	193: "load cycles",
	194: "temperature", 195: "corrected errors", 196: "reallocations", 197: "pending sectors", 198: "uncorrectable sectors",
	199: "cable errors (CRC)",
	200: "write errors", 202: "life used", 231: "life left", 232: "reserve left", 233: "media wear", 235: "power losses", 241: "written",
	242: "read",
}

// parseSMART reads the answers to SMART READ DATA and READ THRESHOLDS. Each has
// 512 bytes, whose sum is zero. From byte 2 on, there are 30 entries of 12
// bytes. The entry of an attribute has its number, flags (bit 0 means that a
// value below the threshold predicts a failure), value, worst value, and a raw
// value of 6 bytes. The entry of a threshold has the attribute's number and the
// threshold. thresholds may be nil.
func parseSMART(data, thresholds []byte) ([]Attribute, error) {
	if err := checkSMART(data); err != nil {
		return nil, err
	}
	limits := map[byte]int{}
	if checkSMART(thresholds) == nil {
		for e := range smartEntries(thresholds) {
			limits[e[0]] = int(e[1])
		}
	}
	var all []Attribute
	for e := range smartEntries(data) {
		a := Attribute{ID: int(e[0]), Name: attributeNames[e[0]], Value: int(e[3]), Worst: int(e[4]), Threshold: limits[e[0]]}
		if a.Name == "" {
			a.Name = "unknown"
		}
		var raw [8]byte
		copy(raw[:], e[5:11])
		a.Raw = strconv.FormatUint(binary.LittleEndian.Uint64(raw[:]), 10)
		predicts := e[1]&1 != 0
		a.Failing = predicts && a.Threshold > 0 && a.Value <= a.Threshold
		all = append(all, a)
	}
	return all, nil
}

func checkSMART(b []byte) error {
	if len(b) != 512 {
		return fmt.Errorf("SMART data has %d bytes instead of 512", len(b))
	}
	var sum byte
	for _, v := range b {
		sum += v
	}
	if sum != 0 {
		return errors.New("SMART data has a wrong checksum")
	}
	return nil
}

// smartEntries yields the entries in use.
func smartEntries(b []byte) func(yield func(e []byte) bool) {
	return func(yield func(e []byte) bool) {
		for i := range 30 {
			if e := b[2+12*i : 14+12*i]; e[0] != 0 && !yield(e) {
				return
			}
		}
	}
}

// smartStatus reads the answer to SMART RETURN STATUS from sense data. If the
// disk expects to fail, it returns F4 2C in place of the 4F C2 of the command.
// Sense data is in descriptor form (72h, descriptor 09h) or in fixed form
// (70h), see SAT-4, "ATA status return".
func smartStatus(sense []byte) (failing, known bool) {
	var mid, high byte
	switch {
	case len(sense) >= 8+14 && sense[0]&0x7f == 0x72 && sense[8] == 0x09:
		mid, high = sense[8+9], sense[8+11]
	case len(sense) >= 12 && sense[0]&0x7f == 0x70:
		mid, high = sense[10], sense[11]
	}
	switch {
	case mid == smartMid && high == smartHigh:
		return false, true
	case mid == 0xf4 && high == 0x2c:
		return true, true
	}
	return false, false
}

// ataHealth judges by what the disk itself says, and by the thresholds.
func ataHealth(attributes []Attribute, sense []byte) Health {
	h := Health{Status: healthUnknown, Note: "the disk does not say whether it is failing", Attributes: attributes}
	if failing, known := smartStatus(sense); known && failing {
		h.Status, h.Note = healthFailing, "the disk expects to fail"
	} else if known {
		h.Status, h.Note = healthGood, ""
	}
	for _, a := range attributes {
		if a.Failing {
			h.Status, h.Note = healthFailing, fmt.Sprintf("attribute %d (%s) is at its threshold", a.ID, a.Name)
		}
	}
	return h
}

// nvmeWarnings says what the bits of the health log's first byte mean.
var nvmeWarnings = []string{
	"spare space is low", "the temperature is out of range", "reliability is degraded", "it is read-only", "the volatile memory backup failed",
	"persistent memory is read-only",
}

// parseNVMeHealth reads the SMART / Health Information log page of the NVM
// Express base specification.
func parseNVMeHealth(p []byte) (Health, error) {
	if len(p) != nvmeHealthLen {
		return Health{}, fmt.Errorf("NVMe health log has %d bytes instead of %d", len(p), nvmeHealthLen)
	}
	h := Health{Status: healthGood}
	var warnings []string
	for bit := range 8 {
		if p[0]&(1<<bit) != 0 {
			warnings = append(warnings, nvmeWarning(bit))
		}
	}
	if warnings != nil {
		h.Status, h.Note = healthFailing, strings.Join(warnings, ", ")
	}
	add := func(name, raw string) { h.Attributes = append(h.Attributes, Attribute{Name: name, Raw: raw}) }
	add("temperature, C", strconv.Itoa(int(binary.LittleEndian.Uint16(p[1:]))-273))
	add("spare left, %", strconv.Itoa(int(p[3])))
	add("spare threshold, %", strconv.Itoa(int(p[4])))
	add("life used, %", strconv.Itoa(int(p[5])))
	for _, c := range []struct {
		name string
		off  int
		unit int64
	}{
		{"read, bytes", 32, 512000}, {"written, bytes", 48, 512000}, {"read commands", 64, 1}, {"write commands", 80, 1},
		{"power cycles", 112, 1}, {"power-on hours", 128, 1}, {"unsafe shutdowns", 144, 1}, {"media errors", 160, 1},
		{"error log entries", 176, 1},
	} {
		add(c.name, counter(p[c.off:c.off+16], c.unit))
	}
	return h, nil
}

func nvmeWarning(bit int) string {
	if bit < len(nvmeWarnings) {
		return nvmeWarnings[bit]
	}
	return fmt.Sprintf("warning bit %d", bit)
}

// counter returns a little-endian number of 128 bits, multiplied by its unit,
// as text.
func counter(b []byte, unit int64) string {
	be := make([]byte, len(b))
	for i, v := range b {
		be[len(b)-1-i] = v
	}
	n := new(big.Int).SetBytes(be)
	return n.Mul(n, big.NewInt(unit)).String()
}
