package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/bench/measure"
)

// change makes a.img with 5 % of its files' bytes replaced by others, as dpkg
// does: a file of the same size is written beside, and takes the place of the
// first. The files are those of whole packages, or scattered. The new bytes are
// those of files that only b.img has, each with a bit turned: nothing has them
// already, and they pack as well.
func (d data) change(img string, scattered bool) error {
	if err := measure.Command("cp", "--sparse=always", d.path("a.img"), img); err != nil {
		return err
	}
	return mounted(d.path("b.img"), readOnly, func(other string) error {
		return mounted(img, readWrite, func(dir string) error {
			all, err := regular(dir, "usr")
			if err != nil {
				return err
			}
			stream, err := onlyIn(other, dir)
			if err != nil {
				return err
			}
			defer stream.Close()
			victims := byHash(all)
			if !scattered {
				if victims, err = byPackage(dir); err != nil {
					return err
				}
			}
			return errors.Join(replace(dir, victims, stream, total(dir, all)*changed/100), measure.Command("sync", "-f", dir))
		})
	})
}

// replace writes files anew until that many bytes are changed.
func replace(dir string, files []string, content io.Reader, left int64) error {
	for _, f := range files {
		if left <= 0 {
			return nil
		}
		path := filepath.Join(dir, f)
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
			continue // a package's list has folders and links too
		}
		out, err := os.OpenFile(path+".dpkg-new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.CopyN(out, content, st.Size())
		if err := errors.Join(err, out.Sync(), out.Close(), os.Rename(out.Name(), path)); err != nil {
			return err
		}
		left -= st.Size()
	}
	return fmt.Errorf("%d bytes were left to change", left)
}

// regular lists the regular files of a folder in a tree, as paths in the tree.
func regular(tree, sub string) (out []string, err error) {
	err = filepath.WalkDir(filepath.Join(tree, sub), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, strings.TrimPrefix(path, tree+"/"))
		}
		return err
	})
	return out, err
}

func total(dir string, files []string) (n int64) {
	for _, f := range files {
		if st, err := os.Lstat(filepath.Join(dir, f)); err == nil {
			n += st.Size()
		}
	}
	return n
}

// byHash is an order that has nothing to do with names and is always the same.
func byHash(files []string) []string {
	key := func(s string) uint64 {
		h := fnv.New64a()
		io.WriteString(h, s)
		return h.Sum64()
	}
	return slices.SortedFunc(slices.Values(files), func(a, b string) int { return cmp.Compare(key(a), key(b)) })
}

// byPackage lists the files of one package after the other.
func byPackage(dir string) (out []string, err error) {
	lists, err := filepath.Glob(filepath.Join(dir, "var/lib/dpkg/info/*.list"))
	if err != nil {
		return nil, err
	}
	for i := range lists {
		lists[i] = strings.TrimPrefix(lists[i], dir+"/")
	}
	for _, list := range byHash(lists) {
		f, err := os.Open(filepath.Join(dir, list))
		if err != nil {
			return nil, err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if path := strings.TrimPrefix(s.Text(), "/"); strings.HasPrefix(path, "usr/") {
				out = append(out, path)
			}
		}
		f.Close()
	}
	return out, nil
}

// stream is the bytes of files, one after the other, each with a bit turned.
type stream struct {
	paths []string
	f     *os.File
}

// onlyIn is the files of /usr that one tree has and another has not.
func onlyIn(tree, other string) (*stream, error) {
	files, err := regular(tree, "usr")
	s := &stream{}
	for _, f := range byHash(files) {
		if _, err := os.Lstat(filepath.Join(other, f)); errors.Is(err, fs.ErrNotExist) {
			s.paths = append(s.paths, filepath.Join(tree, f))
		}
	}
	return s, err
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		if s.f != nil {
			n, err := s.f.Read(b)
			for i := range b[:n] {
				b[i] ^= 0x40
			}
			if n > 0 || err != io.EOF {
				return n, err
			}
			s.f.Close()
		}
		if len(s.paths) == 0 {
			return 0, io.EOF
		}
		f, err := os.Open(s.paths[0])
		if err != nil {
			return 0, err
		}
		s.f, s.paths = f, s.paths[1:]
	}
}

func (s *stream) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
