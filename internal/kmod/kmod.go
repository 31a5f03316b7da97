// Package kmod has the table of kernel modules in the ram maintenance system.
// It lists the modules, what each needs loaded before it, and which devices
// want which module. The builder makes it from the information in the modules.
// pid 1 loads modules by it, since the ram form has neither modprobe nor udev.
//
// The table is text. Its first line is "testbox-modules 1". The others are:
//
//	module NAME NEEDED...     every needed module has its own line before this one
//	alias PATTERN NAME        devices whose modalias matches want the module
//	load NAME                 loaded at each start, whatever the devices are
//
// A module NAME is the file NAME.ko beside the table.
package kmod

import (
	"bytes"
	"fmt"
	"strings"
)

// header is the first line. Its number is the version of the format.
const header = "testbox-modules 1"

// Limits of a table. Debian's whole kernel has about 4000 modules and 25000
// aliases.
const (
	MaxSize    = 8 << 20 // bytes
	maxLines   = 100_000
	maxName    = 64   // bytes
	maxPattern = 1024 // bytes
)

// Module is one kernel module.
type Module struct {
	Name  string   // with '_', never '-', as the kernel spells it
	Needs []string // modules to load first, without what these need in turn
}

// Alias says which devices want a module.
type Alias struct {
	Pattern string // as in fnmatch(3), but '/' is a byte like any other
	Name    string
}

// Table is all modules of a maintenance system.
type Table struct {
	Modules []Module // each one behind all that it needs
	Aliases []Alias
	Load    []string
}

// Name returns the kernel's spelling of a module's name or file name.
func Name(s string) string { return strings.ReplaceAll(s, "-", "_") }

// Marshal returns the text of the table. Only Parse checks a table.
func (t *Table) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, header)
	for _, m := range t.Modules {
		fmt.Fprintln(&b, strings.Join(append([]string{"module", m.Name}, m.Needs...), " "))
	}
	for _, a := range t.Aliases {
		fmt.Fprintln(&b, "alias", a.Pattern, a.Name)
	}
	for _, n := range t.Load {
		fmt.Fprintln(&b, "load", n)
	}
	return b.Bytes()
}

// Parse reads a table strictly. Anything that Marshal would not write is an
// error.
func Parse(data []byte) (*Table, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("module table is larger than %d bytes", MaxSize)
	}
	lines := strings.SplitN(string(data), "\n", maxLines+1)
	if lines[0] != header || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("module table does not start with %q, is cut short, or has more than %d lines", header, maxLines)
	}
	p := parser{table: &Table{}, known: map[string]bool{}}
	for i, line := range lines[1 : len(lines)-1] {
		if err := p.line(strings.Split(line, " ")); err != nil {
			return nil, fmt.Errorf("module table, line %d: %w", i+2, err)
		}
	}
	return p.table, nil
}

type parser struct {
	table *Table
	known map[string]bool // modules so far
}

func (p *parser) line(f []string) error {
	switch {
	case f[0] == "module" && len(f) >= 2:
		return p.module(Module{Name: f[1], Needs: f[2:]})
	case f[0] == "alias" && len(f) == 3:
		if !validPattern(f[1]) || !p.known[f[2]] {
			return fmt.Errorf("alias of %q: no such pattern or module", f[2])
		}
		p.table.Aliases = append(p.table.Aliases, Alias{f[1], f[2]})
	case f[0] == "load" && len(f) == 2:
		if !p.known[f[1]] {
			return fmt.Errorf("load of %q: no such module", f[1])
		}
		p.table.Load = append(p.table.Load, f[1])
	default:
		return fmt.Errorf("%q is not understood", f[0])
	}
	return nil
}

func (p *parser) module(m Module) error {
	if !validName(m.Name) || p.known[m.Name] {
		return fmt.Errorf("%q is not a valid module name, or is given twice", m.Name)
	}
	for _, n := range m.Needs {
		if !p.known[n] {
			return fmt.Errorf("module %s needs %q, which has no line before it", m.Name, n)
		}
	}
	p.known[m.Name] = true
	p.table.Modules = append(p.table.Modules, m)
	return nil
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

func validPattern(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxPattern
}

// ValidAlias reports whether the table can hold the alias pattern.
func ValidAlias(pattern string) bool { return validPattern(pattern) }

// Order returns the modules to load for the named one, in loading order. The
// named module is the last. It is nil if the table does not have the module.
func (t *Table) Order(name string) []string {
	needs := map[string][]string{}
	for _, m := range t.Modules {
		needs[m.Name] = m.Needs
	}
	if _, ok := needs[name]; !ok {
		return nil
	}
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(n string) {
		if seen[n] {
			return
		}
		seen[n] = true
		for _, d := range needs[n] {
			visit(d)
		}
		order = append(order, n)
	}
	visit(name) // this ends because a parsed table has no circles
	return order
}

// Match lists the modules that a device with this modalias wants, in the
// table's order, each once.
func (t *Table) Match(modalias string) []string {
	var names []string
	seen := map[string]bool{}
	for _, a := range t.Aliases {
		if !seen[a.Name] && glob(a.Pattern, modalias) {
			seen[a.Name] = true
			names = append(names, a.Name)
		}
	}
	return names
}
