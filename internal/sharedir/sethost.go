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

// findText begins the small files by which people find a box's folder. It tells
// an outdated one from a file of the admin. Older scripts made empty files. An
// empty file is filled if its name is still right, and is left alone otherwise.
const findText = "The images and logs in this folder belong to box "

const maxFind = 1024 // bytes

// SetNames writes two small files into the folder. One is named by the box's
// host name, the other by its address in hexadecimal. SetNames removes those of
// earlier names. There is no file for a host that is unknown, or whose name
// cannot be a file name here. The latter is an error, as is another file with
// one of the names.
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

// hostFile reports whether a host name can be a file name here that looks like
// no file with a meaning of its own.
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

// readName returns the text of a file that SetNames wrote, and nil for any
// other file.
func (f *Folder) readName(name string) ([]byte, error) {
	data, err := durable.ReadFile(f.fsys, f.Path(name), maxFind)
	if err != nil {
		if _, sizeErr := durable.Size(f.fsys, f.Path(name)); sizeErr == nil {
			return nil, nil // the file is larger
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

// removeNames removes the files of all names but the wanted ones.
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
			continue // a folder, or a file of the admin
		}
		if err := durable.Remove(f.fsys, f.Path(file)); err != nil {
			return fmt.Errorf("cannot remove the file of the old name %s: %w", file, err)
		}
	}
	return nil
}
