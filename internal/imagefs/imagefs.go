// Package imagefs shows disks as read-only files of a folder, by FUSE. Programs such
// as losetup, qemu and guestfish can use the files.
package imagefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// File is a disk to show as a file. Its bytes never change, so the kernel may cache
// them. ReadAt is called from many goroutines at once, until Wait returns.
type File struct {
	Name    string // name of the file, without ".raw"
	Size    int64  // bytes
	ModTime time.Time
	io.ReaderAt
}

// Mount is a folder that shows disks.
type Mount struct {
	dir    string
	server *fuse.Server
	log    func(format string, args ...any)
}

// fsType is the type that mountinfo gives for mounts of this package.
const fsType = "fuse.testbox"

// New mounts disks on an empty folder, which only the caller's user can read. If a
// process of this program was killed and left its mount there, that mount is
// removed and a line is logged. Later errors are logged too. logf may be nil.
func New(dir string, files []File, logf func(format string, args ...any)) (*Mount, error) {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	root := &root{log: logf}
	for _, f := range files {
		if err := root.add(f); err != nil {
			return nil, err
		}
	}
	dir, err := prepare(dir, logf)
	if err != nil {
		return nil, err
	}
	server, err := fs.Mount(dir, root, options(logf))
	if err != nil {
		return nil, fmt.Errorf("mount on %s: %w%s", dir, err, hint())
	}
	return &Mount{dir, server, logf}, nil
}

// forever is how long the kernel may keep names and sizes.
const forever = 24 * time.Hour

func options(logf func(string, ...any)) *fs.Options {
	age := forever
	o := &fs.Options{EntryTimeout: &age, AttrTimeout: &age, NegativeTimeout: &age, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	o.FsName, o.Name = "testbox", strings.TrimPrefix(fsType, "fuse.")
	o.DisableXAttrs = true
	o.MaxWrite, o.MaxReadAhead = 1<<20, 1<<20 // a read is as large as a write may be
	// Splice would save nothing, since the bytes are in memory already. And no
	// pipe has room for a read of MaxWrite, so each would give a line in the log.
	o.DisableSplice = true
	o.Logger = log.New(lines(logf), "", 0)
	o.MountOptions.Logger = o.Logger
	if os.Geteuid() == 0 { // root needs no helper program, which would get "ro" as a word
		o.DirectMountStrict, o.DirectMountFlags = true, syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_RDONLY
	} else {
		o.Options = []string{"ro"}
	}
	return o
}

func hint() string {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return " (this machine has no /dev/fuse; load the module fuse)"
	}
	if os.Geteuid() != 0 {
		return " (users other than root need the program fusermount3 of the package fuse3)"
	}
	return ""
}

// lines makes an io.Writer of a log function.
type lines func(format string, args ...any)

func (l lines) Write(p []byte) (int, error) {
	l("fuse: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Wait serves the folder until it is unmounted. When the context ends, Wait unmounts
// it. If somebody still uses a file then, Wait goes on until nobody does. So a file
// system that is mounted from a file never loses its disk.
func (m *Mount) Wait(ctx context.Context) {
	gone := make(chan struct{})
	go func() {
		m.server.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		m.unmount(gone)
	}
}

func (m *Mount) unmount(gone <-chan struct{}) {
	for said := false; ; said = true {
		err := m.server.Unmount()
		if err == nil {
			<-gone
			return
		}
		if !said {
			m.log("%s is in use (%v), so it stays mounted; this ends by itself as soon as nothing uses it. "+
				"`fuser -vm %[1]s` and `losetup` show who does", m.dir, err)
		}
		select {
		case <-gone:
			return
		case <-time.After(time.Second):
		}
	}
}

// root is the folder with the files.
type root struct {
	fs.Inode
	files []*file
	log   func(format string, args ...any)
}

func (r *root) add(f File) error {
	name := f.Name + ".raw"
	switch {
	case f.Name == "" || len(name) > 255 || strings.ContainsAny(f.Name, "/\x00"):
		return fmt.Errorf("%q cannot be the name of a file", f.Name)
	case f.Size < 0:
		return fmt.Errorf("%s has %d bytes", f.Name, f.Size)
	case slices.ContainsFunc(r.files, func(g *file) bool { return g.Name == f.Name }):
		return errors.New("two disks are called " + f.Name)
	}
	r.files = append(r.files, &file{File: f, log: r.log})
	return nil
}

// OnAdd implements fs.NodeOnAdder.
func (r *root) OnAdd(ctx context.Context) {
	for i, f := range r.files {
		child := r.NewPersistentInode(ctx, f, fs.StableAttr{Mode: fuse.S_IFREG, Ino: uint64(i) + 2})
		r.AddChild(f.Name+".raw", child, false)
	}
}
