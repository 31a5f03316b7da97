package form

import "bytes"

// endMark is how a form announces itself at the end of a file.
type endMark struct {
	Form
	fits func(*file) bool
}

// tails are the forms with a mark at the end. Such a file can begin with the bytes
// of the disk, or with anything else. So a partition table at the beginning does
// not matter here, since it may be that of the disk inside.
var tails = []endMark{
	{vhdForm, isFixedVHD},
	{tool("a disk image of macOS (DMG)", "`qemu-img convert -f dmg -O raw` makes a raw file of it"), func(f *file) bool {
		return f.ends(512, "koly\x00\x00\x00\x04\x00\x00\x02\x00")
	}},
	{closed("Macrium Reflect"), func(f *file) bool { return f.ends(12, "MACRIUM_FILE") }},
}

// ends reports whether a text begins n bytes before the end.
func (f *file) ends(n int, text string) bool { return hasAt(f.tail, len(f.tail)-n, text) }

// isFixedVHD looks for the footer of a VHD (Microsoft, "Virtual Hard Disk Image
// Format Specification"). The footer is the last 512 bytes. Old programs wrote
// only 511 of them, so that the file has an odd length. If something padded the
// file, the footer must also have the right version, and zeros in its reserved
// part and behind it.
func isFixedVHD(f *file) bool {
	const cookie, version = "conectix", "\x00\x01\x00\x00"
	if f.ends(512, cookie) || f.ends(511, cookie) {
		return true
	}
	at := bytes.LastIndex(f.tail, []byte(cookie))
	const known = 85 // bytes of the footer that are not reserved
	return at >= 0 && hasAt(f.tail, at+12, version) && len(f.tail)-at >= known && len(bytes.Trim(f.tail[at+known:], "\x00")) == 0
}
