package maintenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxFirmware is the size in bytes above which a firmware file is left out.
const maxFirmware = 8 << 20

// fetchFirmware unpacks the firmware packages into dir. If a package cannot be
// had, a note says so, and the build goes on, because most cards work without
// it.
func fetchFirmware(ctx context.Context, a *apt, dir string) (have []pkg, err error) {
	for _, name := range firmwarePackages {
		p, err := a.show(ctx, name)
		if err == nil {
			err = a.unpack(ctx, p, dir)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errNoPackage):
			a.notes = append(a.notes, fmt.Sprintf("package %s is in no apt source (component %s)", name, firmwareComponent))
		case err != nil:
			a.notes = append(a.notes, err.Error())
		default:
			have = append(have, p)
		}
	}
	return have, nil
}

// firmwareEntries returns the firmware files that modules name, from unpacked
// packages. lacking has for each module the files that are missing.
func firmwareEntries(dir string, named map[string][]string) (entries []entry, lacking map[string][]string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	lacking = map[string][]string{}
	for _, name := range sortedKeys(named) {
		data, err := readFirmware(root, name)
		if err == nil {
			entries = append(entries, entry{path: path.Join("lib/firmware", name), mode: modeFile | 0o644, data: data})
			continue
		}
		for _, m := range named[name] {
			lacking[m] = append(lacking[m], name)
		}
	}
	return entries, lacking, nil
}

// readFirmware reads a file from the place where Debian's releases have it.
func readFirmware(root *os.Root, name string) ([]byte, error) {
	if !fs.ValidPath(name) || strings.ContainsAny(name, "*?[\\") {
		return nil, fs.ErrInvalid
	}
	for _, top := range []string{"lib/firmware", "usr/lib/firmware"} {
		data, err := readInRoot(root, filepath.Join(top, name), maxFirmware)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, fs.ErrNotExist
}

// firmwareNote says in one text which drivers lack firmware, "" if none does. A
// driver that has some of its files is not named, because kernels also name
// files for cards that Debian's firmware does not support yet.
func firmwareNote(named, lacking map[string][]string) string {
	total := map[string]int{}
	for _, modules := range named {
		for _, m := range modules {
			total[m]++
		}
	}
	var drivers []string
	for m, files := range lacking {
		if len(files) == total[m] {
			drivers = append(drivers, m)
		}
	}
	if len(drivers) == 0 {
		return ""
	}
	slices.Sort(drivers)
	return "no firmware for " + strings.Join(drivers, ", ") + ": cards that need it will not work, or slowly"
}
