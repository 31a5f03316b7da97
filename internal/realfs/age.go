package realfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Age fills a tree with about room bytes, and ages it. Files are written,
// deleted, rewritten, and grown in turns, so that they are fragmented. About
// half of room remains used. The same seed makes the same files.
func Age(tr Tree, seed uint64, room int64) {
	a := &ager{tr: tr, rnd: rand.New(rand.NewPCG(seed, 7)), room: room, sizes: map[string]int64{}}
	for _, d := range []string{"a", "b", "a/deep", "a/deep/er", "many"} {
		if !tr.Mkdir(d) {
			return
		}
	}
	for i := 0; a.used < room*3/4 && i < 400; i++ {
		a.write(fmt.Sprintf("%s/file-%d", []string{"a", "b", "a/deep", "a/deep/er"}[i%4], i))
	}
	for i, path := range a.paths() { // free space in many places
		if i%2 == 0 {
			a.remove(path)
		}
	}
	for i := 0; i < 3; i++ { // larger than the free pieces
		a.writeBytes(fmt.Sprintf("b/big-%d", i), a.data(room/12))
	}
	for i, path := range a.paths() {
		switch i % 7 {
		case 0:
			a.write(path)
		case 1:
			a.remove(path)
		}
	}
	if tr.Dir() != "" {
		a.special()
	}
}

type ager struct {
	tr         Tree
	rnd        *rand.Rand
	room, used int64
	sizes      map[string]int64
}

func (a *ager) paths() []string {
	var out []string
	for p := range a.sizes {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

// data makes n bytes of noise, text or zeros.
func (a *ager) data(n int64) []byte {
	b := make([]byte, n)
	switch a.rnd.IntN(4) {
	case 0:
		copy(b, strings.Repeat("the same words again and again\n", int(n)/31+1))
	case 1:
		noise(b[n/2:], a.rnd)
	default:
		noise(b, a.rnd)
	}
	return b
}

// write writes a file of a realistic random size: many files are small, few are
// large.
func (a *ager) write(path string) {
	limit := a.room / 20
	for range 3 {
		limit = a.rnd.Int64N(limit + 1)
	}
	a.writeBytes(path, a.data(limit))
}

func (a *ager) writeBytes(path string, data []byte) {
	if old := a.sizes[path]; a.used-old+int64(len(data)) > a.room {
		return
	}
	if !a.tr.Write(path, data) {
		a.remove(path) // the file is cut off, and where depends on chance
		return
	}
	a.used += int64(len(data)) - a.sizes[path]
	a.sizes[path] = int64(len(data))
}

func (a *ager) remove(path string) {
	a.tr.Remove(path)
	a.used -= a.sizes[path]
	delete(a.sizes, path)
}

// special makes things that need a mounted file system. What a kind cannot
// store is left out.
func (a *ager) special() {
	dir := a.tr.Dir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for i := range 300 {
		if os.WriteFile(at(fmt.Sprintf("many/%d-%s", i, strings.Repeat("n", i%180))), nil, 0o600) != nil {
			break
		}
	}
	os.Symlink("file-0", at("a/short"))
	os.Symlink(strings.Repeat("long/", 40)+"x", at("a/long"))
	os.Link(at("b/big-0"), at("a/hard"))
	for i := range 12 {
		unix.Setxattr(at("b/big-1"), fmt.Sprintf("user.n%d", i), a.data(int64(20<<i%1500)), 0)
	}
	a.grow([]string{at("a/grow-0"), at("b/grow-1"), at("a/grow-2")})
	a.sparse(at("b/sparse"))
}

// grow appends to some files in turns and syncs each time, so that they are
// fragmented.
func (a *ager) grow(paths []string) {
	for range 12 {
		for _, p := range paths {
			f, err := os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				return
			}
			_, err = f.Write(a.data(a.room / 2000))
			f.Sync()
			f.Close()
			if err != nil {
				os.Remove(p)
				return
			}
		}
	}
}

// sparse makes a file with data, a hole, allocated space that was never
// written, and data again.
func (a *ager) sparse(path string) {
	f, err := os.Create(path)
	if err != nil {
		return
	}
	defer f.Close()
	piece := max(a.room/200, 1)
	f.WriteAt(a.data(piece), 0)
	unix.Fallocate(int(f.Fd()), 0, 3*piece, 2*piece)
	f.WriteAt(a.data(piece), 7*piece)
	unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, piece/3, piece/3)
}

// noise fills b with random bytes.
func noise(b []byte, rnd *rand.Rand) {
	for i := 0; i < len(b); {
		v := rnd.Uint64()
		for j := 0; j < 8 && i < len(b); j, i, v = j+1, i+1, v>>8 {
			b[i] = byte(v)
		}
	}
}

// xattrs formats a file's user attributes as text.
func xattrs(path string) string {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return ""
	}
	var out []string
	for _, name := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		out = append(out, fmt.Sprintf(" %s=%x %v", name, value[:max(n, 0)], err))
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// Fill ages the file system in img. It fills it with about room bytes.
func (k Kind) Fill(t testing.TB, img string, seed uint64, room int64) {
	t.Helper()
	k.Edit(t, img, func(tr Tree) { Age(tr, seed, room) })
}
