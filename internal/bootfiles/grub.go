package bootfiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// uefiFiles are what UEFI machines ask for, of each architecture for which the TFTP
// area has a loader.
func (f *Folder) uefiFiles() (files []string) {
	for _, pair := range bootcfg.UEFILoaders {
		for _, name := range pair {
			if _, err := os.Lstat(filepath.Join(f.TFTP(), name)); err == nil {
				files = append(files, pair[0], pair[1])
				break
			}
		}
	}
	if len(files) > 0 {
		files = append(files, bootcfg.GRUBConfigName)
	}
	return files
}

// GRUBConfig is the path of the configuration that UEFI machines read.
func (f *Folder) GRUBConfig() string { return filepath.Join(f.TFTP(), bootcfg.GRUBConfigName) }

// CheckGRUB refuses an area in which a UEFI machine does not come back to its own
// disk, because GRUB would stop at its prompt. A configuration that somebody else
// wrote is that one's to answer for.
func (f *Folder) CheckGRUB() error {
	if len(f.uefiFiles()) == 0 {
		return nil
	}
	text, err := durable.ReadFile(f.fsys, f.GRUBConfig(), bootcfg.MaxGRUB)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("it is not there")
	case err == nil && bootcfg.OriginOfGRUB(text) == bootcfg.GRUBDamaged:
		err = errors.New("it is damaged, or was edited and still has the first line by which it is known as ours")
	}
	if err != nil {
		return problem.Refusef("%s: %w; UEFI boxes that start by it would not come back to their own disk. "+
			"`testbox share init` or `testbox server init` writes it anew", f.GRUBConfig(), err)
	}
	return nil
}
