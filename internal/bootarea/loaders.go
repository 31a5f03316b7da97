package bootarea

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/loaders"
)

// gate decides whether the loaders of UEFI machines are given out. Somebody has to look now and
// then (Area.LookAtLoaders), since a look reads and checks some megabytes. Whoever asks for a loader
// waits for no look. The configuration of GRUB does not matter here, since GRUB gets one in any case (ownGRUB).
type gate struct {
	looking sync.Mutex                         // one at a time looks
	kinds   atomic.Pointer[map[string]*looked] // by loaders.Kind.Arch
}

// looked is what was found of a kind of firmware.
type looked struct {
	files map[string]identity // that were looked at
	// The bytes that were checked, which are what is given out. A file that is replaced or written over while a machine
	// loads it would reach the machine as a mixture, and shim would wait for a key.
	data map[string][]byte
	pair *loaders.Pair // nil if err is not
	err  error
}

// identity tells one state of a file from another. All is zero if there is no file.
type identity struct {
	dev, ino, size uint64
	mtime, ctime   syscall.Timespec
}

func identityOf(st fs.FileInfo) (id identity) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok && st.Mode().IsRegular() {
		id = identity{uint64(s.Dev), s.Ino, uint64(s.Size), s.Mtim, s.Ctim}
	}
	return id
}

// LookAtLoaders looks at the loaders of UEFI machines, where a file has changed since the last look. It returns
// the kinds of which something else is found than before.
func (a *Area) LookAtLoaders() (changed []loaders.Kind) {
	a.gate.looking.Lock()
	defer a.gate.looking.Unlock()
	all := map[string]*looked{}
	old := a.gate.kinds.Load()
	for _, k := range loaders.Kinds {
		files := map[string]identity{}
		for _, name := range []string{k.Shim, k.GRUB, loaders.TrustFile} {
			if st, err := a.root.Stat(name); err == nil {
				files[name] = identityOf(st)
			}
		}
		if old != nil && same((*old)[k.Arch].files, files) {
			all[k.Arch] = (*old)[k.Arch]
			continue
		}
		now := &looked{files: files}
		if now.pair, now.data, now.err = a.readLoaders(k, files); now.err != nil {
			now.pair, now.data = nil, nil
		}
		all[k.Arch] = now
		if old == nil || fmt.Sprint((*old)[k.Arch].pair, (*old)[k.Arch].err) != fmt.Sprint(now.pair, now.err) {
			changed = append(changed, k)
		}
	}
	a.gate.kinds.Store(&all)
	return changed
}

func same(a, b map[string]identity) bool {
	if len(a) != len(b) {
		return false
	}
	for name, id := range a {
		if b[name] != id {
			return false
		}
	}
	return true
}

// readLoaders checks the files of a kind, and that they are those of files. It returns their bytes too.
func (a *Area) readLoaders(k loaders.Kind, files map[string]identity) (*loaders.Pair, map[string][]byte, error) {
	read := func(name string, limit int64) ([]byte, error) {
		f, err := a.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		st, err := f.Stat()
		switch {
		case err != nil:
			return nil, err
		case !st.Mode().IsRegular() || st.Size() > limit:
			return nil, fmt.Errorf("%s is no file of at most %d bytes", name, limit)
		}
		data, err := io.ReadAll(io.LimitReader(f, limit))
		if err != nil {
			return nil, err
		}
		if st, err = f.Stat(); err == nil && identityOf(st) != files[name] {
			err = fmt.Errorf("%s changes just now", name)
		}
		return data, err
	}
	shim, err := read(k.Shim, loaders.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	own, err := read(loaders.TrustFile, loaders.MaxTrust)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	trust, err := loaders.ParseOwn(own)
	if err != nil && own != nil {
		return nil, nil, fmt.Errorf("%s: %w", loaders.TrustFile, err)
	}
	grub, err := read(k.GRUB, loaders.MaxSize)
	if err != nil {
		return nil, nil, fmt.Errorf("%s cannot be read, and shim would wait for a key: %v", k.GRUB, err) // not %w: shim is there
	}
	pair, err := loaders.Check(k, shim, grub, trust)
	return pair, map[string][]byte{k.Shim: shim, k.GRUB: grub}, err
}

// Loaders returns the loaders of a kind that are given out. The error says why none are. It is fs.ErrNotExist if
// there are none.
func (a *Area) Loaders(k loaders.Kind) (*loaders.Pair, error) {
	l := (*a.gate.kinds.Load())[k.Arch]
	return l.pair, l.err
}

// gated returns what is given out of a file if it is a loader, and says why none is. Loaders are given out in pairs
// alone, as they were checked. If shim gets a GRUB that it does not take, it waits for a key; if a machine gets no shim,
// it starts its own disk.
func (a *Area) gated(name string, st fs.FileInfo) (data []byte, is bool, err error) {
	for _, k := range loaders.Kinds {
		if name != k.Shim && name != k.GRUB {
			continue
		}
		l := (*a.gate.kinds.Load())[k.Arch]
		switch {
		case l.err != nil:
			return nil, true, fmt.Errorf("%s is not given out, since %w", name, l.err)
		case l.files[name] != identityOf(st):
			return nil, true, fmt.Errorf("%s is not given out before its signature is checked, since it was changed", name)
		}
		return l.data[name], true, nil
	}
	return nil, false, nil
}
