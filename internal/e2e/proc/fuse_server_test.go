package proc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// nobody is whom a root-squashing server takes root for.
const nobody = 65534

// serveArgs is the first message to a FUSE server, on its standard input.
type serveArgs struct {
	Source, Target string
	Squash         bool // become nobody once mounted
}

// fuseMain serves one mount until its standard input ends.
func fuseMain() int {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	g := &gate{}
	g.cond = sync.NewCond(&g.mu)
	var args serveArgs
	err := in.Decode(&args)
	if err == nil {
		err = serve(args, g)
	}
	if err != nil {
		out.Encode(serverState{Err: err.Error()})
		return 1
	}
	out.Encode(serverState{})
	for {
		var c control
		if err := in.Decode(&c); err != nil {
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "fuse server:", err)
			}
			return 0
		}
		out.Encode(g.handle(c))
	}
}

func serve(args serveArgs, g *gate) error {
	syscall.Umask(0) // the client's umask has been applied
	var st syscall.Stat_t
	if err := syscall.Stat(args.Source, &st); err != nil {
		return err
	}
	root := &node{&fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: args.Source, Dev: uint64(st.Dev)}}, g}
	opt := &fs.Options{NullPermissions: true}
	opt.AllowOther, opt.DirectMountStrict, opt.MaxWrite, opt.DisableXAttrs, opt.DisableSplice = true, true, 1<<20, true, true
	opt.FsName, opt.Name = args.Source, "e2e"
	if _, err := fs.Mount(args.Target, root, opt); err != nil {
		return err
	}
	if !args.Squash {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	return syscall.Setresuid(nobody, nobody, nobody)
}

// node is a file or folder of the source; all that it does passes the gate.
type node struct {
	*fs.LoopbackNode
	g *gate
}

// WrapChild implements fs.NodeWrapChilder.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{ops.(*fs.LoopbackNode), n.g}
}

func (n *node) name(op, name string) string {
	return op + " " + path.Join(n.Path(nil), name)
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.g.pass()
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.g.pass()
	return n.LoopbackNode.Getattr(ctx, f, out)
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.g.pass()
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.g.change(n.name("mkdir", name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno := n.g.change(n.name("rmdir", name)); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.g.change(n.name("unlink", name)); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.g.change(n.name("rename", name) + " to " + newName); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.g.change(n.name("symlink", name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Symlink(ctx, target, name, out)
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.g.change(n.name("link", name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.g.change(n.name("setattr", "")); errno != 0 {
		return errno
	}
	if own, ok := f.(*file); ok {
		f = own.lf
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// oDirect is left out of the flags below: the kernel's part is done by
// FOPEN_DIRECT_IO, and our buffers are not aligned.
const oDirect = syscall.O_DIRECT

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32,
	syscall.Errno) {
	if errno := n.g.change(n.name("create", name)); errno != 0 {
		return nil, nil, 0, errno
	}
	in, fh, _, errno := n.LoopbackNode.Create(ctx, name, flags&^oDirect, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return in, &file{fh.(*fs.LoopbackFile), n.g, n.name("", name)}, fuse.FOPEN_DIRECT_IO, 0
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC == 0 {
		n.g.pass()
	} else if errno := n.g.change(n.name("truncate", "")); errno != 0 {
		return nil, 0, errno
	}
	append := flags & syscall.O_APPEND // the kernel gives the offset, but another client may have written
	fh, _, errno := n.LoopbackNode.Open(ctx, flags&^(oDirect|append))
	if errno != 0 {
		return nil, 0, errno
	}
	return &file{fh.(*fs.LoopbackFile), n.g, n.name("", "")}, fuse.FOPEN_DIRECT_IO, 0
}

// file is an open file. It does not embed the loopback file: with the latter's
// passthrough the kernel would go around the gate.
type file struct {
	lf   *fs.LoopbackFile
	g    *gate
	name string
}

func (f *file) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.g.pass()
	if f.g.bad(off, len(buf)) {
		return nil, syscall.EIO
	}
	return f.lf.Read(ctx, buf, off)
}

func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	drop, errno := f.g.changeData("write" + f.name)
	if errno != 0 {
		return 0, errno
	}
	skip, errno := f.g.room(len(data))
	if errno != 0 {
		return 0, errno
	}
	if skip || drop {
		return uint32(len(data)), 0
	}
	for done := 0; done < len(data); {
		block := data[done:min(done+4096, len(data))]
		if !f.g.dropBlock() {
			if n, errno := f.lf.Write(ctx, block, off+int64(done)); errno != 0 || int(n) < len(block) {
				return uint32(done) + n, errno
			}
		}
		done += len(block)
	}
	return uint32(len(data)), 0
}

// Allocate is also how zeros are written.
func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if drop, errno := f.g.changeData("allocate" + f.name); errno != 0 || drop {
		return errno
	}
	return f.lf.Allocate(ctx, off, size, mode)
}

func (f *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := f.g.change("fsync" + f.name); errno != 0 {
		return errno
	}
	if errno := f.g.flushed(); errno != 0 {
		return errno
	}
	return f.lf.Fsync(ctx, flags)
}

func (f *file) Flush(ctx context.Context) syscall.Errno {
	f.g.pass()
	if errno := f.g.flushed(); errno != 0 {
		return errno
	}
	return f.lf.Flush(ctx)
}

func (f *file) Getattr(ctx context.Context, out *fuse.AttrOut) syscall.Errno {
	return f.lf.Getattr(ctx, out)
}

func (f *file) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	f.g.pass()
	return f.lf.Lseek(ctx, off, whence)
}

func (f *file) Release(ctx context.Context) syscall.Errno { return f.lf.Release(ctx) }
