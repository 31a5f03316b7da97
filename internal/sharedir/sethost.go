package sharedir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// findText begins the small files by which people find a box's folder. It is
// how a stale one is told from a file of the admin's. An empty file (older
// scripts made such) is filled if its name is still right, else left alone.
const findText = "The images and logs in this folder belong to box "

const maxFind = 1024 // bytes

// SetNames writes two small files into the folder, one named by the box's host
// name, one by its address in hexadecimal, and removes those of earlier names.
// A host that is unknown or cannot be a file name here has no file; the latter
// is an error, as is a file of that name that is not one of ours.
func (f *Folder) SetNames(host string) error {
	want := map[string]bool{f.addr.Hex(): true}
	var errs []error
	switch {
	case host == "" || host == "unknown":
	case !hostFile(host):
		errs = append(errs, fmt.Errorf("host name %q cannot name a file in %s", host, f.dir))
	default:
		want[host] = true
	}
	if err := f.removeNames(want); err != nil {
		errs = append(errs, err)
	}
	for name := range want {
		if err := f.writeName(name, host); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hostFile reports whether a host name can be a file name here without looking
// like one of the files that mean something.
func hostFile(host string) bool {
	if !box.ValidHost(host) {
		return false
	}
	low := strings.ToLower(host)
	for _, ext := range []string{gzExt, sidecarExt, oldExt, newExt, ".tmp", ".log", ".lst", ".txt", ".zip"} {
		if strings.HasSuffix(low, ext) {
			return false
		}
	}
	return low != writerName && low != "backups"
}

func (f *Folder) writeName(name, host string) error {
	text := []byte(fmt.Sprintf("%s%s (%s), host name %q.\n", findText, f.addr, f.addr.Hex(), host))
	switch data, err := f.readName(name); {
	case err == nil && bytes.Equal(data, text):
		return nil
	case err == nil && data == nil && !f.isEmpty(name):
		return fmt.Errorf("%s is in the way: this program did not write it, so it is left alone", f.Path(name))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return f.WriteFile(name, text)
}

// readName is the text of a file that SetNames wrote; nil for any other file.
func (f *Folder) readName(name string) ([]byte, error) {
	data, err := durable.ReadFile(f.fsys, f.Path(name), maxFind)
	if err != nil {
		if _, sizeErr := durable.Size(f.fsys, f.Path(name)); sizeErr == nil {
			return nil, nil // larger
		}
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte(findText)) {
		return nil, nil
	}
	return data, nil
}

func (f *Folder) isEmpty(name string) bool {
	size, err := durable.Size(f.fsys, f.Path(name))
	return err == nil && size == 0
}

// removeNames removes the files of other names than those wanted.
func (f *Folder) removeNames(want map[string]bool) error {
	files, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if want[file] || !hostFile(file) {
			continue
		}
		if data, err := f.readName(file); err != nil || data == nil {
			continue // a folder, or a file of the admin's
		}
		if err := durable.Remove(f.fsys, f.Path(file)); err != nil {
			return fmt.Errorf("cannot remove the file of the old name %s: %w", file, err)
		}
	}
	return nil
}
