package maintenance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// manifestFile says what a maintenance system is made of.
const manifestFile = "manifest.json"

// manifest is the content of manifestFile. It is for people, and the packages are
// for Updates.
type manifest struct {
	Packages        []pkg               `json:"packages"`
	Modules         []string            `json:"modules"`
	MissingDrivers  []string            `json:"missingDrivers,omitempty"`
	MissingFirmware map[string][]string `json:"missingFirmware,omitempty"` // driver to files
}

func (p *parts) manifest() ([]byte, error) {
	m := manifest{Packages: p.packages, MissingDrivers: p.modules.missing, MissingFirmware: p.lacking}
	for _, mod := range p.modules.table.Modules {
		m.Modules = append(m.Modules, mod.Name)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// checkArea makes sure that the TFTP area exists. If a build made it, a wrong
// path or an area that is not mounted would stay hidden.
func checkArea(tftp string) error {
	st, err := os.Stat(tftp)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a folder", tftp)
	}
	if err != nil {
		return problem.Wrongf("no TFTP area: %w; name the folder that has the areas, or make them with `testbox share init`", err)
	}
	return nil
}

// versionName is a name that depends on everything that a box boots of a
// maintenance system.
func versionName(release string, kernel, initrd []byte) string {
	k, i := sha256.Sum256(kernel), sha256.Sum256(initrd)
	sum := sha256.Sum256(append(k[:], i[:]...))
	return fmt.Sprintf("ram-%s-%s", release, hex.EncodeToString(sum[:4]))
}

// publish writes kernel and initrd into the TFTP area as one version. That is a
// folder that gets its name only when everything in it is durable.
func publish(opt Options, p *parts, initrd []byte) (*Result, error) {
	release := p.kernel.release
	v := bootcfg.Version{
		Format: bootcfg.VersionFormat, Version: versionName(release, p.kernel.image, initrd), Form: bootcfg.FormRAM,
		Kernel: release, Built: now(),
	}
	r := &Result{Version: v, Size: int64(len(p.kernel.image) + len(initrd)), Notes: p.notes}
	dir := filepath.Join(opt.TFTP, bootcfg.MaintDir, v.Version)
	existing, err := checkVersion(dir)
	if err == nil {
		r.Version, r.Existed = *existing, true
		return r, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this version was built before and is damaged: %w; remove the folder %s and build again", err, dir)
	}
	list, err := p.manifest()
	if err != nil {
		return nil, err
	}
	text, err := v.Marshal()
	if err != nil {
		return nil, err
	}
	return r, writeFolder(dir, func(string) ([]file, error) {
		return []file{
			{bootcfg.KernelFile, p.kernel.image}, {bootcfg.InitrdFile, initrd}, {manifestFile, list}, {bootcfg.VersionFile, text},
		}, nil
	})
}

type file struct {
	name string
	data []byte
}

// writeFolder writes files into a new folder. The folder gets its name only
// when all files are durable. After an error, nothing of it is left. content
// returns the files. It may write others into the folder, durably.
func writeFolder(dir string, content func(tmp string) ([]file, error)) (err error) {
	fsys := durable.OS{}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if err := fsys.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	files, err := content(tmp)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := durable.WriteFile(fsys, filepath.Join(tmp, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	if err := fsys.Rename(tmp, dir); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}

// checkVersion reads a version's folder and makes sure that kernel and initrd
// are those that its name promises. The error matches fs.ErrNotExist only if
// there is no such folder.
func checkVersion(dir string) (*bootcfg.Version, error) {
	if _, err := os.Lstat(dir); err != nil {
		return nil, err
	}
	v, kernel, initrd, err := readVersion(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %v", dir, err) // not %w, which could match fs.ErrNotExist
	}
	if v.Version != filepath.Base(dir) || v.Version != versionName(v.Kernel, kernel, initrd) {
		return nil, fmt.Errorf("%s: kernel or initrd are not what was built", dir)
	}
	return v, nil
}

func readVersion(dir string) (v *bootcfg.Version, kernel, initrd []byte, err error) {
	fsys := durable.OS{}
	text, err := durable.ReadFile(fsys, filepath.Join(dir, bootcfg.VersionFile), bootcfg.MaxVersion)
	if err != nil {
		return nil, nil, nil, err
	}
	if v, err = bootcfg.ParseVersion(text); err != nil {
		return nil, nil, nil, err
	}
	if kernel, err = durable.ReadFile(fsys, filepath.Join(dir, bootcfg.KernelFile), MaxSize); err != nil {
		return nil, nil, nil, err
	}
	initrd, err = durable.ReadFile(fsys, filepath.Join(dir, bootcfg.InitrdFile), MaxSize)
	return v, kernel, initrd, err
}
