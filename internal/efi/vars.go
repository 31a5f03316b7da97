package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Global is the vendor of the variables that the UEFI specification itself defines.
const Global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// maxVariable is how many bytes of a variable are read.
const maxVariable = 64 << 10

// Dir is a folder in which efivarfs is mounted.
type Dir string

// Mounted reports whether the folder has variables. An efivarfs that is not mounted is
// an empty folder.
func (d Dir) Mounted() bool {
	f, err := os.Open(string(d))
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	return err == nil && len(names) > 0
}

func (d Dir) path(name, vendor string) string { return filepath.Join(string(d), name+"-"+vendor) }

// Read returns the value of a variable, without its attributes. If there is no such
// variable, the error matches fs.ErrNotExist.
func (d Dir) Read(name, vendor string) ([]byte, error) {
	f, err := os.Open(d.path(name, vendor))
	if err != nil {
		return nil, fmt.Errorf("the UEFI variable %s: %w", name, bare(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxVariable+5))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the UEFI variable %s: %w", name, bare(err))
	case len(b) < 4: // the attributes
		return nil, fmt.Errorf("the UEFI variable %s has no attributes", name)
	case len(b)-4 > maxVariable:
		return nil, fmt.Errorf("the UEFI variable %s has more than %d bytes", name, maxVariable)
	}
	return b[4:], nil
}

// bare is an error without the path of its file.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// The attributes of variables that boot entries and BootOrder have: they outlast a
// restart, and are there before and after the firmware has handed over.
const bootAttributes = 0x00000007

// write writes a variable. It replaces one that is there, unless fresh says that there
// must be none.
//
// efivarfs makes most of its files immutable, so that a careless rm does not make a
// machine unbootable. The flag is lifted for the write, and set again after it. A
// variable is written by a single write(2), attributes first.
func (d Dir) write(name string, value []byte, fresh bool) (err error) {
	path := d.path(name, Global)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the UEFI variable %s: %w", name, explained(err))
		}
	}()
	was, changed, err := makeMutable(path)
	if err != nil {
		return err
	}
	if changed {
		defer func() { setFlags(path, was) }() // the variable is written already, and the flag protects it from people only
	}
	how := os.O_WRONLY | os.O_CREATE
	if fresh {
		how |= os.O_EXCL
	}
	f, err := os.OpenFile(path, how, 0o644)
	if err != nil {
		return bare(err)
	}
	b := append(binary.LittleEndian.AppendUint32(nil, bootAttributes), value...)
	n, err := syscall.Write(int(f.Fd()), b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if fi, statErr := f.Stat(); err == nil && statErr == nil && fi.Size() > int64(len(b)) {
		err = f.Truncate(int64(len(b))) // only a made-up folder needs it, since efivarfs has replaced the value
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil && fresh {
		os.Remove(path) // a file whose first write failed is no variable yet
	}
	return err
}

// explained adds what to do to errors that firmware gives.
func explained(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: the firmware's memory for variables is full; its setup may be able to clean it up", err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: the firmware or the kernel lets nobody write variables", err)
	}
	return err
}

// immutable is the flag of a file that FS_IOC_GETFLAGS gives (<linux/fs.h>).
const immutable = 0x10

// makeMutable lifts the immutable flag of a file, if it has it.
func makeMutable(path string) (was int, changed bool, err error) {
	was, err = flags(path)
	if err != nil || was&immutable == 0 {
		return 0, false, nil // it is not there, or its file system has no such flags
	}
	if err := setFlags(path, was&^immutable); err != nil {
		return was, false, fmt.Errorf("lift the immutable flag: %w", err)
	}
	return was, true, nil
}

func flags(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
}

func setFlags(path string, to int) error {
	f, err := os.Open(path)
	if err != nil {
		return bare(err)
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, to)
}
