package maintenance

import (
	"maps"
	"slices"
	"strings"

	"testbox-imaging/internal/kmod"
)

// selection is the modules that go into a maintenance system.
type selection struct {
	tree    *kernelTree
	wanted  []string
	table   kmod.Table
	done    map[string]bool
	missing []string // wanted, but neither a module nor built in
}

// selectModules selects the wanted modules and all that they need.
func selectModules(tree *kernelTree, wanted, always []string) (*selection, error) {
	s := &selection{tree: tree, wanted: wanted, done: map[string]bool{}}
	for _, name := range wanted {
		if tree.paths[name] == "" {
			if !tree.builtin[name] {
				s.missing = append(s.missing, name)
			}
			continue
		}
		if err := s.add(name); err != nil {
			return nil, err
		}
	}
	for _, name := range always {
		if s.done[name] {
			s.table.Load = append(s.table.Load, name)
		}
	}
	return s, nil
}

// add appends a module to the table, behind the modules that it needs. Soft
// dependencies can form a circle. It is cut where it closes.
func (s *selection) add(name string) error {
	if s.done[name] {
		return nil
	}
	s.done[name] = true
	m, err := s.tree.module(name)
	if err != nil {
		return err
	}
	needs, err := s.needs(name, m)
	if err != nil {
		return err
	}
	entry := kmod.Module{Name: name}
	for _, n := range needs {
		if err := s.add(n); err != nil {
			return err
		}
		if slices.ContainsFunc(s.table.Modules, func(m kmod.Module) bool { return m.Name == n }) {
			entry.Needs = append(entry.Needs, n)
		}
	}
	s.table.Modules = append(s.table.Modules, entry)
	for _, a := range m.aliases {
		// An alias without a colon is not a device's modalias, but a word for
		// modprobe.
		if strings.Contains(a, ":") && kmod.ValidAlias(a) {
			s.table.Aliases = append(s.table.Aliases, kmod.Alias{Pattern: a, Name: name})
		}
	}
	return nil
}

// needs lists what must be loaded before the module, each module once. Soft
// dependencies come first, since they may change what the hard ones do.
func (s *selection) needs(name string, m *module) ([]string, error) {
	var needs []string
	for _, word := range append(slices.Clone(m.softPre), phys[name]...) {
		soft, err := s.tree.resolveSoft(word)
		if err != nil {
			return nil, err
		}
		needs = append(needs, soft...)
	}
	for _, d := range m.depends {
		if s.tree.paths[d] != "" {
			needs = append(needs, d)
		}
	}
	seen := map[string]bool{name: true}
	return slices.DeleteFunc(needs, func(n string) bool {
		was := seen[n]
		seen[n] = true
		return was
	}), nil
}

// firmware returns the firmware files that the modules name, and for each file
// these modules.
func (s *selection) firmware() map[string][]string {
	files := map[string][]string{}
	for _, m := range s.table.Modules {
		for _, f := range s.tree.read[m.Name].firmware {
			files[f] = append(files[f], m.Name)
		}
	}
	return files
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
