package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/kmod"
)

// modules loads drivers. It loads each only once, after those that it needs.
type modules struct {
	table *kmod.Table
	sys   fs.FS
	load  func(name string) error
	say   func(string, ...any)
	beat  func()

	mu    sync.Mutex
	tried map[string]bool // modules; guarded by mu
	seen  map[string]bool // modaliases; guarded by mu
}

// tableFile is the name of the table, which is beside the modules.
const tableFile = "modules.table"

// openModules reads the table in dir. Without one it fails, because such a
// maintenance system would see no disk and no network.
func openModules(dir string, sys fs.FS, say func(string, ...any), beat func()) (*modules, error) {
	data, err := os.ReadFile(filepath.Join(dir, tableFile))
	if err != nil {
		return nil, err
	}
	table, err := kmod.Parse(data)
	if err != nil {
		return nil, err
	}
	return newModules(table, sys, func(name string) error { return finitModule(dir, name) }, say, beat), nil
}

// LoadModule loads a module of the ram form, and those that it needs. Elsewhere the kernel
// asks for modules itself, and LoadModule does nothing.
func LoadModule(name string, say func(string, ...any), beat func()) {
	if _, err := os.Stat(filepath.Join(moduleDir, tableFile)); err != nil {
		return
	}
	m, err := openModules(moduleDir, os.DirFS("/sys"), say, beat)
	if err != nil {
		say("cannot load module %s: %v", name, err)
		return
	}
	m.byName(name)
}

func newModules(table *kmod.Table, sys fs.FS, load func(string) error, say func(string, ...any), beat func()) *modules {
	return &modules{table: table, sys: sys, load: load, say: say, beat: beat, tried: map[string]bool{}, seen: map[string]bool{}}
}

func finitModule(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name+".ko"))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// loadAlways loads what no device asks for.
func (m *modules) loadAlways() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.table.Load {
		m.loadOne(name)
	}
}

// byName loads a module that no device asks for. It reports whether a module
// was loaded.
func (m *modules) byName(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loadOne(name) > 0
}

// scan loads the drivers of all devices that it has not seen yet. It repeats
// that as long as a driver was loaded, since a controller's driver makes its
// disks appear. It returns how many modules were loaded.
func (m *modules) scan() (loaded int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		n := 0
		for _, alias := range m.newAliases() {
			for _, name := range m.table.Match(alias) {
				n += m.loadOne(name)
			}
		}
		if n == 0 {
			return loaded
		}
		loaded += n
	}
}

// loadOne loads a module after the modules that it needs, and returns how many
// were loaded.
func (m *modules) loadOne(name string) (loaded int) {
	if m.tried[name] {
		return 0
	}
	for _, n := range m.table.Order(name) {
		if m.tried[n] {
			continue
		}
		m.tried[n] = true
		err := m.load(n)
		m.beat()
		if err == nil {
			loaded++
			continue
		}
		// EEXIST means that the module is built in or loaded already. ENODEV
		// means that it has nothing to drive, as most watchdogs and processor
		// features say.
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			m.say("cannot load module %s: %v", n, err)
		}
	}
	return loaded
}

// newAliases returns the modaliases that it has not returned before.
func (m *modules) newAliases() []string {
	var aliases []string
	fs.WalkDir(m.sys, "devices", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "modalias" {
			return nil // a device that has just gone is no reason to stop
		}
		text, err := fs.ReadFile(m.sys, path)
		alias := strings.TrimSpace(string(text))
		if err == nil && alias != "" && !m.seen[alias] {
			m.seen[alias] = true
			aliases = append(aliases, alias)
		}
		return nil
	})
	return aliases
}

// blockDevices lists the names below /sys/block, without the loop and ram
// devices that the kernel makes itself.
func blockDevices(sys fs.FS) func() string {
	return func() string {
		entries, _ := fs.ReadDir(sys, "block")
		var b strings.Builder
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "loop") && !strings.HasPrefix(e.Name(), "ram") {
				fmt.Fprintf(&b, "%s ", e.Name())
			}
		}
		return strings.TrimSpace(b.String())
	}
}
