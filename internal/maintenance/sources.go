package maintenance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSources is the size in bytes above which a file of apt sources is skipped.
const maxSources = 1 << 20

// source is one entry of apt's sources, sources.list(5), as a stanza.
type source struct {
	fields []field
}

type field struct {
	name  string
	value string // may have several lines, each further one with a blank before it
}

// get returns the value of a field, or "" if there is none. The case of the
// name does not matter.
func (s *source) get(name string) string {
	for _, f := range s.fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// words splits a field at blanks and line ends.
func (s *source) words(name string) []string { return strings.Fields(s.get(name)) }

// set sets a field to a value. With "" it removes the field.
func (s *source) set(name, value string) {
	s.fields = slices.DeleteFunc(s.fields, func(f field) bool { return strings.EqualFold(f.name, name) })
	if value != "" {
		s.fields = append(s.fields, field{name, value})
	}
}

// hostSources reads the host's apt sources below dir ("/etc/apt"). A file that
// cannot be understood becomes a note and not an error, since it may be a third
// party's and not matter here.
func hostSources(dir string) (sources []source, notes []string) {
	files := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, _ := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		files = append(files, more...)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		var found []source
		if err == nil && strings.HasSuffix(path, ".sources") {
			found, err = parseStanzas(data)
		} else if err == nil {
			found, err = parseLines(data)
		}
		if err != nil {
			notes = append(notes, fmt.Sprintf("apt source %s is passed over: %v", path, err))
		}
		sources = append(sources, found...)
	}
	return sources, notes
}

// parseLines reads the one-line form: "deb [option=value ...] uri suite component...".
func parseLines(data []byte) ([]source, error) {
	if len(data) > maxSources {
		return nil, fmt.Errorf("larger than %d bytes", maxSources)
	}
	var sources []source
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		s, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func parseLine(line string) (source, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line)+" ", " ")
	if tab := strings.IndexByte(kind, '\t'); tab >= 0 {
		kind, rest = kind[:tab], kind[tab:]+" "+rest
	}
	var s source
	rest = strings.TrimSpace(rest)
	if strings.HasPrefix(rest, "[") {
		options, after, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return s, fmt.Errorf("the options have no end")
		}
		rest = after
		for _, o := range strings.Fields(options) {
			name, value, ok := strings.Cut(o, "=")
			if !ok || !validField(name) {
				return s, fmt.Errorf("%q is not an option", o)
			}
			s.set(name, value)
		}
	}
	words := strings.Fields(rest)
	if kind != "deb" && kind != "deb-src" || len(words) < 2 || strings.Contains(rest, `"`) || !plainText(line) {
		return s, fmt.Errorf("%q is not of the form 'deb [options] uri suite component...'", strings.TrimSpace(line))
	}
	s.set("Types", kind)
	s.set("URIs", words[0])
	s.set("Suites", words[1])
	s.set("Components", strings.Join(words[2:], " "))
	return s, nil
}

// parseStanzas reads the deb822 form. It has stanzas of "Field: value" lines. A
// line that begins with a blank continues the line before.
func parseStanzas(data []byte) ([]source, error) {
	if len(data) > maxSources {
		return nil, fmt.Errorf("larger than %d bytes", maxSources)
	}
	var sources []source
	fresh := true
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case strings.TrimSpace(line) == "":
			fresh = true
			continue
		case fresh:
			sources, fresh = append(sources, source{}), false
		}
		if err := sources[len(sources)-1].line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return sources, nil
}

// line parses one line of a stanza.
func (s *source) line(line string) error {
	if !plainText(line) {
		return fmt.Errorf("%q has a character that is not printable ASCII", line)
	}
	if line[0] == ' ' || line[0] == '\t' {
		if len(s.fields) == 0 {
			return fmt.Errorf("it continues a field, but there is none before it")
		}
		s.fields[len(s.fields)-1].value += "\n " + strings.TrimSpace(line)
		return nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !validField(name) || s.has(name) {
		return fmt.Errorf("%q is not of the form 'Field: value', or the field is given twice", line)
	}
	s.fields = append(s.fields, field{name, strings.TrimSpace(value)})
	return nil
}

func (s *source) has(name string) bool {
	return slices.ContainsFunc(s.fields, func(f field) bool { return strings.EqualFold(f.name, name) })
}

// plainText reports whether s is printable ASCII and tabs.
func plainText(s string) bool {
	for _, c := range []byte(s) {
		if c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

func validField(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// firmwareComponent is where Debian has firmware that is not free, from Debian
// 12 on.
const firmwareComponent = "non-free-firmware"

// buildSources makes the sources of a build from the host's sources. It uses
// those of binary packages with the component main, which has the kernel. It
// limits them to amd64, and adds the component of the firmware, which many
// hosts do not have switched on.
func buildSources(host []source) []source {
	var use []source
	for _, h := range host {
		s := source{slices.Clone(h.fields)}
		enabled, components := strings.ToLower(s.get("Enabled")), s.words("Components")
		if enabled == "no" || enabled == "false" || enabled == "0" || !slices.Contains(s.words("Types"), "deb") ||
			!slices.Contains(components, "main") {
			continue
		}
		uris := slices.DeleteFunc(s.words("URIs"), func(u string) bool { return strings.HasPrefix(u, "cdrom:") })
		if len(uris) == 0 {
			continue
		}
		for _, off := range []string{"arch", "lang", "target", "Languages", "X-Repolib-Name"} {
			s.set(off, "")
		}
		s.set("Types", "deb")
		s.set("URIs", strings.Join(uris, " "))
		s.set("Components", "main "+firmwareComponent)
		s.set("Architectures", "amd64")
		s.set("Targets", "Packages") // no translations, desktop metadata or file lists
		use = append(use, s)
	}
	return use
}

// marshalSources returns the deb822 text of sources.
func marshalSources(sources []source) []byte {
	var b bytes.Buffer
	for i, s := range sources {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, f := range s.fields {
			fmt.Fprintf(&b, "%s: %s\n", f.name, f.value)
		}
	}
	return b.Bytes()
}

// Sources returns the Debian sources among those below etc, and their first suite. It is for
// whoever makes a Debian tree beside this package.
func Sources(etc string) (suite string, text []byte) {
	host, _ := hostSources(etc)
	all := buildSources(host)
	if len(all) == 0 || len(all[0].words("Suites")) == 0 {
		return "", nil
	}
	return all[0].words("Suites")[0], marshalSources(all)
}
