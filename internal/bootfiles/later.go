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
	Why  error // why a box that takes it may not start its own disk; nil if it surely does
}

// Later lists the files in the folder that the loader takes for the box once
// the box's own boot file is gone. PXELINUX (core/fs/pxe/pxe.c of syslinux 6)
// asks for the address in upper-case hexadecimal, then for ever shorter
// beginnings of it down to one digit, then for `default`. Later ignores case,
// because a TFTP server may do so. So the list also has files that differ only
// by case from the box's own file or from `default`.
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
				continue // removed in the meantime
			}
			if why == nil && digits == len(addr.Hex()) {
				why = errors.New("a TFTP server that does not tell upper from lower case may give it in place of the box's boot file")
			}
			list = append(list, LaterFile{name, why})
		}
	}
	return list, nil
}

// NotLocal lists what may keep a box that is not armed from its own disk. These
// are the files of Later, and `default`, if they do not clearly boot the local
// disk.
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

// LocalBoot returns nil if a box that gets the file surely starts its own disk.
// Otherwise the error says why not. It does not follow a link out of the
// folder, because a TFTP server or another client finds something else there.
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

// CheckDefault refuses a folder in which a box that is not armed does not start
// its own disk.
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

// CheckPrefixes returns an error for the files that the loader takes for many
// addresses before `default`, and that do not clearly boot the local disk.
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
