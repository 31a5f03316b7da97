package testenv

import (
	"context"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
)

// Syncs is a mounted folder that counts fsync of files and folders, and can
// make them fail.
type Syncs struct {
	Dir string

	mu             sync.Mutex // guards the fields below
	files, folders int
	fileErr        syscall.Errno
	folderErr      syscall.Errno
}

// SyncFolder mounts a Syncs until the end of the test.
func SyncFolder(t testing.TB) *Syncs {
	t.Helper()
	Root(t)
	s := &Syncs{Dir: t.TempDir()}
	source := t.TempDir()
	var st syscall.Stat_t
	if err := syscall.Stat(source, &st); err != nil {
		t.Fatal(err)
	}
	root := &syncNode{&fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: source, Dev: uint64(st.Dev)}}, s}
	opt := &fs.Options{NullPermissions: true}
	opt.DirectMountStrict, opt.DisableXAttrs, opt.FsName, opt.Name = true, true, source, "syncs"
	server, err := fs.Mount(s.Dir, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount %s: %v", s.Dir, err)
		}
	})
	return s
}

// Fail sets the errors of fsync for files and for folders, from now on. 0 is no
// error.
func (s *Syncs) Fail(files, folders syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fileErr, s.folderErr = files, folders
}

// Counts returns how many fsyncs there were since the last call of Counts.
func (s *Syncs) Counts() (files, folders int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, folders = s.files, s.folders
	s.files, s.folders = 0, 0
	return files, folders
}

type syncNode struct {
	*fs.LoopbackNode
	s *Syncs
}

// WrapChild implements fs.NodeWrapChilder.
func (n *syncNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &syncNode{ops.(*fs.LoopbackNode), n.s}
}

// dirHandle is an open folder of the source.
type dirHandle interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

type syncDir struct {
	dirHandle
	n *syncNode
}

// Fsyncdir implements fs.FileFsyncdirer.
func (d syncDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.n.Fsync(ctx, nil, flags)
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *syncNode) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, flags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return syncDir{h.(dirHandle), n}, flags, 0
}

// Fsync implements fs.NodeFsyncer, for files and folders.
func (n *syncNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if n.IsDir() {
		n.s.folders++
		return n.s.folderErr
	}
	n.s.files++
	return n.s.fileErr
}
