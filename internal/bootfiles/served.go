package bootfiles

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// loaderFiles are what every box asks for. The DHCP server may name otherLoader
// in place of the first.
var (
	loaderFiles = []string{bootcfg.LoaderName, "ldlinux.c32"}
	otherLoader = "lpxelinux.0"
)

// CheckServed refuses if a TFTP server cannot give a file that every box needs,
// or one of others, which are paths below the TFTP area.
func (f *Folder) CheckServed(others ...string) error {
	files := append(slices.Clone(loaderFiles), path.Join(bootcfg.ConfigDir, bootcfg.DefaultName))
	if _, err := os.Lstat(filepath.Join(f.TFTP(), otherLoader)); err == nil {
		files = append(files, otherLoader)
	}
	files = append(files, f.uefiFiles()...)
	return f.checkModules(bootcfg.DefaultName, append(files, others...)...)
}

// CheckFiles refuses if a TFTP server cannot give one of these files. They are
// paths below the TFTP area.
func (f *Folder) CheckFiles(files ...string) error {
	return tftpError(f.unserved(files...))
}

// CheckModules refuses if a TFTP server cannot give the loader's modules that a
// file such as `default` needs to start a box's disk.
func (f *Folder) CheckModules(name string) error { return f.checkModules(name) }

func (f *Folder) checkModules(name string, others ...string) error {
	modules, missing := f.modules(name)
	why, chmod := f.unserved(append(others, modules...)...)
	return tftpError(append(missing, why...), chmod)
}

// modules returns the loader's modules that a file such as `default` needs to
// start a box's disk. For each it gives the first place where there is a file,
// or says that the module is missing.
func (f *Folder) modules(name string) (files, missing []string) {
	data, err := durable.ReadFile(f.fsys, f.Path(name), bootcfg.MaxConfig)
	if err != nil {
		return nil, nil // other checks say whether the file is local boot
	}
	cfg, err := bootcfg.Parse(data)
	if err != nil {
		return nil, nil
	}
	for _, places := range cfg.Modules() {
		there := slices.IndexFunc(places, func(p string) bool {
			_, err := os.Lstat(filepath.Join(f.TFTP(), p))
			return err == nil
		})
		if there < 0 {
			missing = append(missing, fmt.Sprintf("`%s` needs the loader's module %s, and there is none by its PATH (looked for in %s: %s)",
				name, path.Base(places[0]), f.TFTP(), strings.Join(places, ", ")))
			continue
		}
		files = append(files, places[there])
	}
	return files, missing
}

// tftpError makes a refusal from the results of unserved.
func tftpError(why, chmod []string) error {
	if len(why) == 0 {
		return nil
	}
	err := fmt.Errorf("a TFTP server cannot give what a box asks for: %s", strings.Join(why, "; "))
	if len(chmod) > 0 {
		err = fmt.Errorf("%w; run: %s", err, strings.Join(chmod, " && "))
	}
	return problem.Refusef("%w", err)
}

// unserved says which of the files a TFTP server cannot give, and which chmod
// commands help. A server runs as some user of its own, so everybody must be
// able to read a file and to search the folders above it. A server is confined
// to the area, so no link may lead out of it.
func (f *Folder) unserved(files ...string) (why, chmod []string) {
	closed := map[string]string{} // from a path to the right that everybody lacks
	for _, file := range files {
		walk := tftpWalk{root: f.TFTP(), closed: closed}
		if err := walk.to(file); err != nil && !slices.Contains(why, err.Error()) {
			why = append(why, err.Error())
		}
	}
	byRight := map[string][]string{}
	for path, right := range closed {
		byRight[right] = append(byRight[right], path)
	}
	for _, r := range []struct{ right, lacks string }{{"x", "may not be searched by everybody"}, {"r", "may not be read by everybody"}} {
		if paths := byRight[r.right]; len(paths) > 0 {
			slices.Sort(paths)
			why = append(why, strings.Join(paths, ", ")+" "+r.lacks)
			chmod = append(chmod, "chmod o+"+r.right+" "+strings.Join(paths, " "))
		}
	}
	return why, chmod
}

// tftpWalk follows one path as a TFTP server that is confined to root does.
type tftpWalk struct {
	root   string
	closed map[string]string
	at     string // below root; "" is root itself
	links  int
}

func (w *tftpWalk) to(file string) error {
	root, err := os.Stat(w.root)
	if err != nil {
		return err
	}
	w.note(w.root, root)
	todo := strings.Split(file, "/")
	for len(todo) > 0 {
		step := todo[0]
		todo = todo[1:]
		if todo, err = w.step(step, todo); err != nil {
			return err
		}
	}
	return nil
}

// step goes one name further. The target of a link is put in front of todo.
func (w *tftpWalk) step(name string, todo []string) ([]string, error) {
	switch {
	case name == "" || name == ".":
		return todo, nil
	case name == ".." && w.at == "":
		return nil, fmt.Errorf("a link leads out of %s, where most TFTP servers do not go", w.root)
	case name == "..":
		if w.at = path.Dir(w.at); w.at == "." {
			w.at = ""
		}
		return todo, nil
	}
	below := path.Join(w.at, name)
	full := filepath.Join(w.root, below)
	st, err := os.Lstat(full)
	if err != nil {
		return nil, err
	}
	switch last := len(todo) == 0; {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(full)
		if err != nil {
			return nil, err
		}
		if w.links++; w.links > 16 {
			return nil, fmt.Errorf("%s is a link that leads to itself", full)
		}
		if path.IsAbs(target) {
			return nil, fmt.Errorf("%s is a link to %s, where most TFTP servers do not go; "+
				"put the file itself there, or a link that begins with no / and stays in %s", full, target, w.root)
		}
		return append(strings.Split(target, "/"), todo...), nil
	case st.IsDir() && last:
		return nil, fmt.Errorf("%s is a folder, and a file is needed", full)
	case !st.IsDir() && !last:
		return nil, fmt.Errorf("%s is not a folder", full)
	case last && !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", full)
	case last && st.Size() == 0:
		return nil, fmt.Errorf("%s is empty", full)
	}
	w.note(full, st)
	w.at = below
	return todo, nil
}

// note remembers a path that is closed to a TFTP server's user.
func (w *tftpWalk) note(path string, st fs.FileInfo) {
	switch {
	case st.IsDir() && st.Mode()&0o001 == 0:
		w.closed[path] = "x"
	case !st.IsDir() && st.Mode()&0o004 == 0:
		w.closed[path] = "r"
	}
}

// CheckAbove checks the folder above the TFTP area, on the storage server
// itself. It returns an error if that folder keeps out a TFTP server that is
// not root and has not made the area its root.
func (f *Folder) CheckAbove(tftpPath string) error {
	if f.TFTP() != filepath.Clean(tftpPath) {
		return nil // the area is mounted here, so the folder above it is not the server's
	}
	dir := filepath.Dir(f.TFTP())
	if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
		return fmt.Errorf("%s may not be searched by everybody: a TFTP server that is not root and has not made the area its root (dnsmasq) "+
			"cannot give any file; run: chmod o+x %s", dir, dir)
	}
	return nil
}
