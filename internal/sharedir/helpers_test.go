package sharedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

const (
	root               = "/area"
	armingA box.Arming = "aaaaaaaaaaaaaaaa"
	armingB box.Arming = "bbbbbbbbbbbbbbbb"
	armingC box.Arming = "cccccccccccccccc"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(t testing.TB) box.Addr {
	t.Helper()
	addr, err := box.ParseAddr("10.40.41.42")
	must(t, err)
	return addr
}

// newArea is a file system with an area without boxes.
func newArea(t testing.TB) *faults.Volatile {
	t.Helper()
	v := faults.NewVolatile()
	must(t, errors.Join(v.MkdirAll(root, 0o755), durable.WriteFile(v, root+"/"+Marker, nil, 0o644)))
	return v
}

func openFolder(t testing.TB, fsys durable.FS) *Folder {
	t.Helper()
	area, err := Open(fsys, root)
	must(t, err)
	f, err := area.Box(address(t))
	must(t, err)
	return f
}

// imageBytes is what the test images of an arming hold.
func imageBytes(arming box.Arming, name string) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("image %s of %s;", name, arming), 60))
}

func factsOf(arming box.Arming, name string, data []byte) *image.Facts {
	sum := sha256.Sum256(data)
	return &image.Facts{
		Format: image.FactsFormat, Name: name, Kernel: name, Box: "10.40.41.42", Host: "unknown", Arming: arming,
		Disk:   image.Identity{Serial: "S-" + name, Size: 1 << 20, SectorSize: 512},
		BLAKE3: strings.Repeat("0", 64), SHA256: hex.EncodeToString(sum[:]), FileSize: int64(len(data)),
	}
}

// backup runs a whole backup, as the agent does.
func backup(f *Folder, arming box.Arming, before Before, names ...string) error {
	s, err := f.Begin(arming)
	if err != nil {
		return err
	}
	defer s.Abort()
	for _, name := range names {
		w, err := s.Create(name)
		if err != nil {
			return err
		}
		data := imageBytes(arming, name)
		for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		if err := s.Finish(name, factsOf(arming, name, data)); err != nil {
			return err
		}
	}
	return s.Commit(before)
}

// contents is every file of the box's folder but the writer's token.
func contents(t testing.TB, fsys durable.FS) map[string]string {
	t.Helper()
	dir := root + "/10.40.41.42"
	files, err := fsys.ReadDir(dir)
	must(t, err)
	all := map[string]string{}
	for _, file := range files {
		if file == writerName {
			continue
		}
		data, err := durable.ReadFile(fsys, dir+"/"+file, 1<<20)
		must(t, err)
		all[file] = string(data)
	}
	return all
}

// setFiles is what contents holds after a backup of these disks, and with an
// ending for the previous one.
func setFiles(arming box.Arming, ending string, names ...string) map[string]string {
	files := map[string]string{}
	for _, name := range names {
		data := imageBytes(arming, name)
		files[name+rawgzExt+ending] = string(data)
		files[name+sidecarExt+ending] = string(factsOf(arming, name, data).Marshal())
	}
	return files
}

func merged(sets ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, s := range sets {
		maps.Copy(all, s)
	}
	return all
}

// differ says how two folders differ, "" if they do not.
func differ(got, want map[string]string) string {
	var lines []string
	for name := range merged(got, want) {
		g, inGot := got[name]
		w, inWant := want[name]
		switch {
		case !inWant:
			lines = append(lines, name+" is too much")
		case !inGot:
			lines = append(lines, name+" is missing")
		case g != w:
			lines = append(lines, fmt.Sprintf("%s has %.40q, not %.40q", name, g, w))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}
