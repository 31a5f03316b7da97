package disk

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// vpdBody returns the body of a page of vital product data (SPC-4, 7.8). Such a
// page starts with four bytes, which are the peripheral, the page code, and the
// length of the rest, big-endian.
func vpdBody(page []byte, code byte) []byte {
	if len(page) < 4 || page[1] != code {
		return nil
	}
	body := page[4:]
	if n := int(binary.BigEndian.Uint16(page[2:])); n < len(body) {
		body = body[:n]
	}
	return body
}

// parseVPD80 returns the unit serial number, or "" if the page has none.
func parseVPD80(page []byte) string { return clean(vpdBody(page, 0x80)) }

// designator is one name of a disk in page 83h (SPC-4, 7.8.6).
type designator struct {
	kind byte // 0 vendor, 1 T10 vendor id, 2 EUI-64, 3 NAA, 8 SCSI name string, 10 UUID
	id   []byte
}

// vpd83 is the designators of the logical unit itself, without those of ports
// and targets.
type vpd83 []designator

// parseVPD83 reads page 83h, device identification. Of a page that is cut
// short, it returns the designators that are complete.
func parseVPD83(page []byte) vpd83 {
	var list vpd83
	for b := vpdBody(page, 0x83); len(b) >= 4; {
		n := int(b[3])
		if n > len(b)-4 {
			break
		}
		if association := b[1] >> 4 & 3; association == 0 && n > 0 {
			list = append(list, designator{b[1] & 15, b[4 : 4+n]})
		}
		b = b[4+n:]
	}
	return list
}

// wwn returns the best worldwide name. That is the longest one, which is least
// likely to be given to two disks. Of one length, NAA goes before EUI-64. Of
// equal rank, the first one counts.
func (v vpd83) wwn() string {
	best, rank := "", 0
	for _, d := range v {
		if s, r := d.wwn(); r > rank && known(strings.SplitN(s, ".", 2)[1]) != "" {
			best, rank = s, r
		}
	}
	return best
}

// wwn spells a designator as the kernel's wwid does, and gives its rank. A rank
// of 0 means that it is not a worldwide name.
func (d designator) wwn() (string, int) {
	n := len(d.id)
	switch {
	case d.kind == 3 && (n == 16 && d.id[0]>>4 == 6 || n == 8 && (d.id[0]>>4 == 5 || d.id[0]>>4 == 2)):
		return "naa." + hex.EncodeToString(d.id), n*10 + 5
	case d.kind == 3 && n == 8 && d.id[0]>>4 == 3: // locally assigned
		return "naa." + hex.EncodeToString(d.id), 1
	case d.kind == 2 && (n == 8 || n == 12 || n == 16):
		return "eui." + hex.EncodeToString(d.id), n * 10
	case d.kind == 10 && n == 18 && d.id[0]>>4 == 1:
		h := hex.EncodeToString(d.id[2:])
		return "uuid." + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"), 155
	case d.kind == 8:
		return nameString(clean(d.id))
	}
	return "", 0
}

// nameString reads a SCSI name string, which is "naa." or "eui." with
// upper-case digits. The one of an iSCSI target ("iqn....") names the target,
// not the disk, and gives "".
func nameString(s string) (string, int) {
	kind, digits, _ := strings.Cut(strings.ToLower(s), ".")
	if _, err := hex.DecodeString(digits); err != nil || len(digits) < 16 || kind != "naa" && kind != "eui" {
		return "", 0
	}
	return kind + "." + digits, 2
}

// ataInfo is what page 89h (SAT-3, ATA information) tells of IDENTIFY DEVICE.
type ataInfo struct{ model, serial string }

// parseVPD89 reads page 89h. IDENTIFY DEVICE starts at byte 60, with 256
// little-endian words of two bytes. In its texts the two characters of each
// word are swapped.
func parseVPD89(page []byte) ataInfo {
	const identify = 60 - 4 // vpdBody has removed the first four bytes
	b := vpdBody(page, 0x89)
	if len(b) < identify+512 {
		return ataInfo{}
	}
	text := func(word, words int) string {
		s := make([]byte, 0, 2*words)
		for i := identify + 2*word; i < identify+2*(word+words); i += 2 {
			s = append(s, b[i+1], b[i])
		}
		return clean(s)
	}
	return ataInfo{model: text(27, 20), serial: text(10, 10)}
}
