package bootfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// LaterFile is a file that the loader takes for a box that is not armed, before it
// asks for `default`.
type LaterFile struct {
	Name string
	Why  error // why a box that takes it does not surely start its own disk; nil: it does
}

// Later lists the files in the folder of boot files that the loader takes
// for the box once the box's own boot file is gone. PXELINUX (core/fs/pxe/pxe.c
// of syslinux 6) asks for the address in upper-case hexadecimal, then for it
// with a digit less each time down to one digit, then for `default`. Case is
// passed over, because a TFTP server may: so a file with the box's own name, or
// the name `default`, in other letters is in the list too.
func (f *Folder) Later(addr box.Addr) ([]LaterFile, error) {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var list []LaterFile
	for digits := len(addr.Hex()); digits >= 0; digits-- {
		ask := addr.Hex()[:digits]
		if digits == 0 {
			ask = bootcfg.DefaultName
		}
		for _, name := range names {
			known := name == bootcfg.DefaultName || name == addr.Hex()
			if known || !strings.EqualFold(name, ask) {
				continue
			}
			why := f.LocalBoot(name)
			if errors.Is(why, fs.ErrNotExist) && !isLink(f.Path(name)) {
				continue // gone meanwhile
			}
			if why == nil && digits == len(addr.Hex()) {
				why = errors.New("a TFTP server that does not tell upper from lower case may give it in place of the box's boot file")
			}
			list = append(list, LaterFile{name, why})
		}
	}
	return list, nil
}

// NotLocal lists what keeps a box that is not armed from its own disk, or may
// do so: the files of Later that are no plain local boot, and `default` if
// it is none.
func (f *Folder) NotLocal(addr box.Addr) []error {
	later, err := f.Later(addr)
	if err != nil {
		return []error{err}
	}
	var all []error
	for _, l := range later {
		if l.Why != nil {
			all = append(all, fmt.Errorf("the loader takes %s for it before `%s`, and %w", f.Path(l.Name), bootcfg.DefaultName, l.Why))
		}
	}
	if err := f.LocalBoot(bootcfg.DefaultName); err != nil {
		all = append(all, fmt.Errorf("%s does not clearly boot the local disk: %w", f.Path(bootcfg.DefaultName), err))
	}
	return all
}

// LocalBoot reports why a box that is given the file does not surely start its
// own disk; nil if it does. A link out of the folder is not followed: the TFTP
// server, or another client of the area, finds something else there.
func (f *Folder) LocalBoot(name string) error {
	path := f.Path(name)
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
	data, err := durable.ReadFile(f.fsys, path, bootcfg.MaxConfig)
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if len(data) == 0 {
		return errors.New("it is empty")
	}
	cfg, err := bootcfg.Parse(data)
	if err != nil {
		return err
	}
	return cfg.IsLocalBoot()
}

func isLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

// CheckDefault refuses a folder in which a box that is not armed, or no more,
// does not start its own disk.
func (f *Folder) CheckDefault() error {
	data, err := durable.ReadFile(f.fsys, f.Path(bootcfg.DefaultName), bootcfg.MaxConfig)
	if err != nil {
		return err
	}
	cfg, err := bootcfg.Parse(data)
	if err == nil {
		err = cfg.IsLocalBoot()
	}
	if err != nil {
		return problem.Refusef("%s does not clearly boot the local disk: %w; a box would never come back to its own disk. "+
			"Its content should be:\n%s", f.Path(bootcfg.DefaultName), err, strings.TrimSpace(string(bootcfg.DefaultConfig())))
	}
	return nil
}

// CheckPrefixes names the files that the loader takes for many addresses before
// `default`, and that do not clearly boot the local disk.
func (f *Folder) CheckPrefixes() error {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		first, last, many := bootcfg.ParsePrefix(name)
		if !many {
			continue
		}
		if why := f.LocalBoot(name); why != nil {
			errs = append(errs, fmt.Errorf("%s: boxes with addresses from %s to %s take it before `%s` when they are not armed, "+
				"and it does not clearly boot the local disk: %w", f.Path(name), first, last, bootcfg.DefaultName, why))
		}
	}
	return errors.Join(errs...)
}
