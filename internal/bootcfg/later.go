package bootcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// Later is a file that the loader takes for a box that is not armed, before it
// asks for `default`.
type Later struct {
	Name string
	Why  error // why a box that takes it does not surely start its own disk; nil: it does
}

// LaterFiles lists the files in the folder of boot files that the loader takes
// for the box once the box's own boot file is gone. PXELINUX (core/fs/pxe/pxe.c
// of syslinux 6) asks for the address in upper-case hexadecimal, then for it
// with a digit less each time down to one digit, then for `default`. Case is
// passed over, because a TFTP server may: so a file with the box's own name, or
// the name `default`, in other letters is in the list too.
func LaterFiles(dir string, addr box.Addr) ([]Later, error) {
	names, err := durable.OS{}.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []Later
	for digits := len(addr.Hex()); digits >= 0; digits-- {
		ask := addr.Hex()[:digits]
		if digits == 0 {
			ask = DefaultName
		}
		for _, name := range names {
			known := name == DefaultName || name == addr.Hex()
			if known || !strings.EqualFold(name, ask) {
				continue
			}
			why := LocalBoot(dir, name)
			if errors.Is(why, fs.ErrNotExist) && !isLink(filepath.Join(dir, name)) {
				continue // gone meanwhile
			}
			if why == nil && digits == len(addr.Hex()) {
				why = errors.New("a TFTP server that does not tell upper from lower case may give it in place of the box's boot file")
			}
			list = append(list, Later{name, why})
		}
	}
	return list, nil
}

// NotLocal lists what keeps a box that is not armed from its own disk, or may
// do so: the files of LaterFiles that are no plain local boot, and `default` if
// it is none.
func NotLocal(dir string, addr box.Addr) []error {
	later, err := LaterFiles(dir, addr)
	if err != nil {
		return []error{err}
	}
	var all []error
	for _, l := range later {
		if l.Why != nil {
			all = append(all, fmt.Errorf("the loader takes %s for it before `%s`, and %w", filepath.Join(dir, l.Name), DefaultName, l.Why))
		}
	}
	if err := LocalBoot(dir, DefaultName); err != nil {
		all = append(all, fmt.Errorf("%s is not surely local boot: %w", filepath.Join(dir, DefaultName), err))
	}
	return all
}

// LocalBoot reports why a box that is given the file does not surely start its
// own disk; nil if it does. A link out of the folder is not followed: the TFTP
// server, or another client of the area, finds something else there.
func LocalBoot(dir, name string) error {
	path := filepath.Join(dir, name)
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if strings.Contains(target, "/") {
			return fmt.Errorf("it is a link to %s, out of its folder, and what the TFTP server finds there is not known", target)
		}
	} else if !st.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	data, err := durable.ReadFile(durable.OS{}, path, MaxConfig)
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if len(data) == 0 {
		return errors.New("it is empty")
	}
	cfg, err := Parse(data)
	if err != nil {
		return err
	}
	return cfg.IsLocalBoot()
}

func isLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

// ParsePrefix reads the name of a file that the loader takes for many boxes: one
// to seven upper-case hexadecimal digits, with which their addresses begin. It
// gives the first and the last of these addresses.
func ParsePrefix(name string) (first, last string, ok bool) {
	if name == "" || len(name) > 7 || strings.Trim(name, "0123456789ABCDEF") != "" {
		return "", "", false
	}
	var low, high [4]byte
	for i := range 8 {
		digit := [2]byte{0, 15}
		if i < len(name) {
			d := byte(strings.IndexByte("0123456789ABCDEF", name[i]))
			digit = [2]byte{d, d}
		}
		shift := 4 * (1 - i%2)
		low[i/2] |= digit[0] << shift
		high[i/2] |= digit[1] << shift
	}
	return dotted(low), dotted(high), true
}

func dotted(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3]) }
