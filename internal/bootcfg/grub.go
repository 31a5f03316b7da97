package bootcfg

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for grub.cfg
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// UEFILoaders are the files that UEFI machines start, below the TFTP area, for each
// architecture. Firmware starts the first, Debian's shim, and that the second, Debian's
// network GRUB.
var UEFILoaders = [][2]string{{"shimx64.efi", "grubx64.efi"}, {"shimia32.efi", "grubia32.efi"}, {"shimaa64.efi", "grubaa64.efi"}}

// GRUB has the name of its configuration built in. LoadersDir has a file for each
// box.
const (
	GRUBConfigName = "grub/grub.cfg"
	LoadersDir     = "grub/boxes"
)

// MaxGRUB is the size in bytes above which a configuration of GRUB, or a file of
// a box's loaders, is refused.
const MaxGRUB = 64 << 10

//go:embed grub.cfg
var grubConfig []byte

// grubMark begins the first line of a configuration of ours. The rest of the line
// is the SHA-256 of all that follows it, which shows whether the file is whole.
const grubMark = "# Testbox Imaging wrote this file. SHA-256 of the lines below: "

// GRUBConfig is the text of grub/grub.cfg. By it a UEFI machine starts what its
// boot file says, and else its own disk.
func GRUBConfig() []byte { return markGRUB(grubConfig) }

func markGRUB(text []byte) []byte {
	return append([]byte(grubMark+sumText(text)+"\n"), text...)
}

func sumText(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// GRUBOrigin says who wrote a configuration of GRUB.
type GRUBOrigin int

// The origins.
const (
	GRUBForeign GRUBOrigin = iota // somebody else wrote it
	GRUBDamaged                   // we wrote it, and it was edited or damaged since
	GRUBOlder                     // this or another version of ours, not the text of this one
	GRUBCurrent                   // GRUBConfig
)

// OriginOfGRUB says who wrote the text of a configuration of GRUB.
func OriginOfGRUB(text []byte) GRUBOrigin {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	sum, ours := bytes.CutPrefix(first, []byte(grubMark))
	switch {
	case !ours && bytes.HasPrefix([]byte(grubMark), text): // cut off in the first line, or empty
		return GRUBDamaged
	case !ours:
		return GRUBForeign
	case string(sum) != sumText(rest):
		return GRUBDamaged
	case bytes.Equal(rest, grubConfig):
		return GRUBCurrent
	}
	return GRUBOlder
}

// LocalLoader is a file by which a box's firmware starts an operating system from
// a disk.
type LocalLoader struct {
	Volume string // the FAT file system's id as GRUB spells it, such as 1A2B-3C4D
	Path   string // of the file there, such as /EFI/debian/shimx64.efi
	Name   string // for people; "" if unknown
}

// maxLoaders bounds the loaders of one box. Firmware has seldom more than five.
const maxLoaders = 32

var (
	volumeID   = regexp.MustCompile(`^[0-9A-F]{4}-[0-9A-F]{4}$`)
	loaderPath = regexp.MustCompile(`^(/[A-Za-z0-9_+~,@=-][A-Za-z0-9_+~,@=. -]*)+$`)
	loaderName = regexp.MustCompile(`^[A-Za-z0-9_+~,@=.:/() -]*$`)
)

// check says why a file of loaders cannot have l. What GRUB would expand, or what
// would end a word or a line of it, is not allowed.
func (l *LocalLoader) check() error {
	switch {
	case !volumeID.MatchString(l.Volume):
		return fmt.Errorf("loader %q is on the file system %q, which is no id of a FAT file system like 1A2B-3C4D", l.Path, l.Volume)
	case len(l.Path) > maxWord || !loaderPath.MatchString(l.Path):
		return fmt.Errorf("loader %q has characters that GRUB would take for its own, or is no path like /EFI/debian/shimx64.efi", l.Path)
	case len(l.Name) > maxWord || !loaderName.MatchString(l.Name) || l.Name != strings.TrimSpace(l.Name):
		return fmt.Errorf("loader %s has the name %q", l.Path, l.Name)
	}
	return nil
}

// MarshalLoaders is the text of a box's file in LoadersDir. GRUB tries the loaders
// in this order. What such a file cannot express is left out and returned as
// errors. A name loses the characters that cannot be there.
func MarshalLoaders(loaders []LocalLoader) (text []byte, left []error) {
	var b strings.Builder
	n := 0
	for _, l := range loaders {
		l.Volume = strings.ToUpper(l.Volume)
		l.Name = strings.Map(func(r rune) rune {
			if loaderName.MatchString(string(r)) {
				return r
			}
			return -1
		}, l.Name)
		l.Name = strings.TrimSpace(l.Name[:min(len(l.Name), maxWord)])
		if err := l.check(); err != nil {
			left = append(left, err)
			continue
		}
		if n++; n > maxLoaders {
			left = append(left, fmt.Errorf("loader %s is the %dth, and %d are kept at most", l.Path, n, maxLoaders))
			continue
		}
		fmt.Fprintf(&b, "LOADER %s '%s' '%s'\n", l.Volume, l.Path, l.Name)
	}
	return []byte(b.String()), left
}

var loaderLine = regexp.MustCompile(`^LOADER ([^ ]*) '([^']*)' '([^']*)'$`)

// ParseLoaders reads a box's file in LoadersDir. It accepts only what
// MarshalLoaders writes.
func ParseLoaders(data []byte) ([]LocalLoader, error) {
	if len(data) > MaxGRUB {
		return nil, fmt.Errorf("file of loaders is larger than %d bytes", MaxGRUB)
	}
	text := string(data)
	if text != "" && !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("file of loaders is cut off")
	}
	var all []LocalLoader
	for line := range strings.Lines(text) {
		m := loaderLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fmt.Errorf("file of loaders, line %d: %.80q is not LOADER VOLUME 'PATH' 'NAME'", len(all)+1, line)
		}
		l := LocalLoader{m[1], m[2], m[3]}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("file of loaders, line %d: %w", len(all)+1, err)
		}
		if all = append(all, l); len(all) > maxLoaders {
			return nil, fmt.Errorf("file of loaders has more than %d", maxLoaders)
		}
	}
	return all, nil
}

// grubTakes are characters that a boot file cannot have, because network GRUB
// reads it as a script. It would expand them, split the line there, or drop them.
const grubTakes = "$\\'`{}|&;<>()"

// readByGRUB reports why GRUB would not give the kernel the words of a boot file
// as PXELINUX does. GRUB drops quotation marks. It puts new ones around a word that has
// blanks, which means the same to the kernel if the marks were around a value.
func readByGRUB(words string) error {
	for _, w := range splitWords(words) {
		i := strings.IndexAny(w, grubTakes)
		switch {
		case i >= 0:
			return fmt.Errorf("%s has %q, which the loader of UEFI machines would take for its own", w, w[i])
		case w[0] == '#' || w[0] == '*' || w[0] == '/' && strings.ContainsAny(w, "*?"):
			return fmt.Errorf("%s begins with %q, which the loader of UEFI machines would take for its own", w, w[0])
		case strings.Contains(w, `"`) && !quotedValue.MatchString(w):
			return fmt.Errorf(`%s has quotation marks that the loader of UEFI machines drops; they must be around a whole value, as in NAME="a b"`, w)
		}
	}
	return nil
}

var (
	quotedValue = regexp.MustCompile(`^[^"=]+="[^"]*"$`)
	grubPath    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~/-]*$`) // as grub.cfg has it
)
