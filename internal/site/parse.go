package site

import (
	"fmt"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// Limits of a site file.
const (
	MaxFile = 64 << 10 // bytes
	maxLine = 2048     // bytes
)

// Read reads the site file in a folder of boot files. The error matches
// fs.ErrNotExist if there is none. A mistake in the file is an error of kind
// problem.Wrong.
func Read(fsys durable.FS, dir string) (*Site, error) {
	data, err := durable.ReadFile(fsys, filepath.Join(dir, FileName), MaxFile)
	if err != nil {
		return nil, err
	}
	s, err := Parse(data)
	if err != nil {
		return nil, problem.Wrongf("%s: %w", dir, err)
	}
	return s, nil
}

// Parse reads a site file. It has lines "key = value", blank lines, and
// comments that begin with '#'. An unknown or repeated key, an invalid value
// and a missing key are errors. Errors of a line have its number.
func Parse(data []byte) (*Site, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", FileName, MaxFile)
	}
	s := Defaults()
	lineOf := map[string]int{}
	for i, line := range strings.Split(string(data), "\n") {
		name, value, err := splitLine(strings.TrimSuffix(line, "\r"))
		if err == nil && name != "" {
			if first := lineOf[name]; first != 0 {
				err = fmt.Errorf("%s is already in line %d", name, first)
			} else {
				lineOf[name] = i + 1
				err = s.set(name, value)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", FileName, i+1, err)
		}
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", FileName, err)
	}
	return s, nil
}

// splitLine returns an empty name for a blank line or a comment.
func splitLine(line string) (name, value string, err error) {
	if len(line) > maxLine {
		return "", "", fmt.Errorf("longer than %d bytes", maxLine)
	}
	line = strings.Trim(line, " \t")
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if !ok || name == "" {
		return "", "", fmt.Errorf("%q is not of the form key = value", line)
	}
	if value == "" {
		return "", "", fmt.Errorf("%s has no value; put a # before it to leave it out", name)
	}
	return name, value, nil
}

func (s *Site) set(name, value string) error {
	names := make([]string, len(keys))
	for i, k := range keys {
		if k.name == name {
			if err := k.read(s, value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
		names[i] = k.name
	}
	return fmt.Errorf("unknown key %q; the keys are %s", name, strings.Join(names, ", "))
}

// Template is a site file with the values of s and an explanation of each key.
// Values that are defaults stand behind a '#'. Parse of it gives s again.
func (s *Site) Template() []byte {
	var b strings.Builder
	b.WriteString("# What is the same for all testboxes here. `testbox pxe-conf` and `testbox server` read this file when they arm a box.\n" +
		"# A line is: key = value. A key behind a # has the value that is shown, or none.\n")
	standard := Defaults()
	for _, k := range keys {
		fmt.Fprintf(&b, "\n# %s\n", k.help)
		off := ""
		if k.write(s) == k.write(standard) {
			off = "#"
		}
		b.WriteString(strings.TrimRight(off+k.name+" = "+k.write(s), " ") + "\n")
	}
	return []byte(b.String())
}
