// Package bootarea gives the files of the boot files' area out, by TFTP (package
// tftp) and by HTTP. It decides who may read what.
package bootarea

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// maxName bounds a file's name, in bytes. No loader has longer ones.
const maxName = 512

// Area is a folder whose files boxes read. Links that lead out of the folder
// are not followed.
type Area struct {
	root *os.Root
	gate gate
}

// Open opens the folder.
func Open(dir string) (*Area, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the area of the boot files cannot be opened: %w", err)
	}
	a := &Area{root: root}
	a.LookAtLoaders()
	return a, nil
}

// Close closes the folder. Files that are open stay open.
func (a *Area) Close() error { return a.root.Close() }

// File is one file of the area.
type File struct {
	f    io.ReaderAt
	size int64
	when time.Time
}

func (f *File) ReadAt(p []byte, at int64) (int, error) { return f.f.ReadAt(p, at) }

// Close closes the file.
func (f *File) Close() error {
	if c, ok := f.f.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Size is the size of the file when it was opened, in bytes.
func (f *File) Size() int64 { return f.size }

// Clean brings a name that a loader sent into the form that the area has: a
// path without "/" at its start. Some loaders double slashes, or send
// backslashes. A name that leads out of the area does not do so afterwards.
func Clean(name string) string {
	name = path.Clean("/" + strings.ReplaceAll(name, `\`, "/"))
	return strings.TrimPrefix(name, "/")
}

// Open opens a file for a client. The error is fs.ErrNotExist or
// fs.ErrPermission if the client may know that. A boot file of a box has the
// secret of its job, so only the box itself can read it.
func (a *Area) Open(name string, client netip.Addr) (*File, error) {
	if len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return nil, fmt.Errorf("a name of %d bytes: %w", len(name), fs.ErrNotExist)
	}
	name = Clean(name)
	if name == "" {
		return nil, fs.ErrNotExist
	}
	if err := secret(name, client); err != nil {
		return nil, err
	}
	f, err := a.open(name)
	if name == bootcfg.GRUBConfigName && (err != nil || f.damagedGRUB()) {
		if err == nil {
			f.Close()
		}
		return ownGRUB(), nil
	}
	return f, err
}

// damagedGRUB reports whether a configuration of GRUB is a damaged one of ours.
func (f *File) damagedGRUB() bool {
	text := make([]byte, min(f.size, bootcfg.MaxGRUB))
	n, _ := f.ReadAt(text, 0)
	return bootcfg.OriginOfGRUB(text[:n]) == bootcfg.GRUBDamaged
}

// ownGRUB stands for a configuration of GRUB that is missing or damaged. GRUB
// asks for it when there is no way back to the firmware any more, and without it
// the machine would stop at a prompt.
func ownGRUB() *File {
	text := bootcfg.GRUBConfig()
	return &File{bytes.NewReader(text), int64(len(text)), time.Time{}}
}

func (a *Area) open(name string) (*File, error) {
	// A FIFO is not waited for.
	f, err := a.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, plain(err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file: %w", name, fs.ErrNotExist)
	}
	if err == nil {
		data, is, why := a.gated(name, st)
		switch {
		case why != nil:
			err = fmt.Errorf("%w (%w)", fs.ErrNotExist, why)
		case is:
			f.Close()
			return &File{bytes.NewReader(data), int64(len(data)), st.ModTime()}, nil
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, st.Size(), st.ModTime()}, nil
}

// secret says why a client must not read a file: it is another box's boot file,
// or what such a file was before it had its name.
func secret(name string, client netip.Addr) error {
	dir, file := path.Split(name)
	if path.Base(dir) != bootcfg.ConfigDir {
		return nil
	}
	if durable.IsTemp(file) {
		return fmt.Errorf("%s is not finished: %w", name, fs.ErrNotExist)
	}
	if of, err := box.ParseHex(file); err == nil && of.IP() != client.Unmap() {
		return fmt.Errorf("%s is for %s alone: %w", name, of, fs.ErrNotExist)
	}
	return nil
}

// plain says of a name that cannot be in a folder that it is not there.
func plain(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
}

// ServeHTTP gives files out by GET and HEAD, also in parts (RFC 9110 section
// 14). It never redirects, since many loaders cannot follow.
func (a *Area) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // a boot file changes from one start to the next
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this server only gives files out", http.StatusMethodNotAllowed)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "the address of the client is not known", http.StatusBadRequest)
		return
	}
	f, err := a.Open(r.URL.Path, from.Addr())
	switch {
	case errors.Is(err, fs.ErrPermission):
		http.Error(w, "the file is not given out", http.StatusForbidden)
	case err != nil:
		http.Error(w, "there is no such file", http.StatusNotFound)
	default:
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", f.when, io.NewSectionReader(f, 0, f.size))
	}
}
