package bootcfg

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Config is a PXELINUX configuration file, as far as it decides what a box
// boots. Parse drops directives that only change looks (SAY, MENU COLOR, FONT).
type Config struct {
	Path    string // where the loader looks for its modules, besides the usual places
	Default string // command line that runs by default; its first word is a label's name
	UI      string // module that takes over from DEFAULT; "" if none

	Prompt       int    // if not 0, the loader asks and waits for Timeout
	Timeout      int    // tenths of a second at the prompt; 0 waits forever
	TotalTimeout int    // tenths of a second at the prompt, whatever is typed; 0 is no limit
	OnTimeout    string // command line after a timeout; "" means Default
	OnError      string // command line after a kernel could not be loaded; "" means a prompt

	Append   string   // for labels without their own; seldom used
	IPAppend int      // for labels without their own; seldom used
	Includes []string // included files, which Parse does not read
	Labels   []Label
}

// Label is one thing that can be booted.
type Label struct {
	Name        string
	Menu        string // title, for people
	MenuDefault bool

	Type   string // directive that named Kernel, in upper case, such as KERNEL, LINUX or COM32
	Kernel string
	Initrd string // file of the INITRD directive; our boot files name it in Append
	Append string

	IPAppend int
	Local    bool   // boots the box's own disk
	LocalArg string // LOCALBOOT's number as written; "" is the loader's default
}

// label returns the label that a command line runs. Upper and lower case
// differ, as in PXELINUX.
func (c *Config) label(command string) *Label {
	name, _, _ := strings.Cut(command, " ")
	for i := range c.Labels {
		if c.Labels[i].Name == name {
			return &c.Labels[i]
		}
	}
	return nil
}

// IsLocalBoot returns nil if a box with this file surely starts its own disk
// without a key press. Otherwise the error says why not.
func (c *Config) IsLocalBoot() error {
	switch {
	case len(c.Includes) > 0:
		return fmt.Errorf("it includes %s, and what that says is not known", c.Includes[0])
	case c.UI != "":
		return fmt.Errorf("UI %s takes over from DEFAULT", c.UI)
	case c.Default == "":
		return fmt.Errorf("it has no DEFAULT")
	case c.Prompt != 0 && c.Timeout == 0 && c.TotalTimeout == 0:
		return fmt.Errorf("PROMPT %d without TIMEOUT waits for a key press", c.Prompt)
	}
	for _, way := range []struct{ directive, command string }{
		{"DEFAULT", c.Default}, {"ONTIMEOUT", c.OnTimeout}, {"ONERROR", c.OnError},
	} {
		if way.command == "" {
			continue
		}
		if l := c.label(way.command); l == nil || !l.startsDisk() || way.directive == "ONERROR" && !l.Local {
			return fmt.Errorf("%s %s does not lead to a label with LOCALBOOT", way.directive, way.command)
		}
	}
	for _, l := range c.Labels {
		if l.MenuDefault && !l.startsDisk() {
			return fmt.Errorf("MENU DEFAULT makes %s, which is no local boot, the default", l.Name)
		}
	}
	return nil
}

// startsDisk reports whether the label starts the box's own disk. It does so by
// LOCALBOOT, or by chain.c32 with a disk for firmware on which LOCALBOOT does
// not work. ONERROR cannot use chain.c32. The loader appends the command line
// that failed, and chain.c32 then shows its options and waits for a key (seen
// with 6.04).
func (l *Label) startsDisk() bool { return l.Local || l.chains() }

func (l *Label) chains() bool {
	return path.Base(l.Kernel) == "chain.c32" && (l.Type == "KERNEL" || l.Type == "COM32") && chainDisk.MatchString(l.Append)
}

// chainDisk matches how chain.c32 is told a disk, and perhaps a partition, as
// in "hd0", "hd0,1" or "hd0 1".
var chainDisk = regexp.MustCompile(`^hd[0-9]+([ \t,]|$)`)

// Modules lists the modules that the loader needs to start the box's own disk
// by this file. LOCALBOOT needs none. chain.c32 needs two libraries besides
// itself. For each module there are the paths below the TFTP area where the
// loader looks for it. One of them is enough.
func (c *Config) Modules() (modules [][]string) {
	for _, command := range []string{c.Default, c.OnTimeout} {
		l := c.label(command)
		if l == nil || !l.chains() {
			continue
		}
		for _, name := range []string{l.Kernel, "libutil.c32", "libcom32.c32"} {
			places := []string{name}
			for _, dir := range strings.FieldsFunc(c.Path, func(r rune) bool { return strings.ContainsRune(": \t", r) }) {
				places = append(places, path.Join(dir, name))
			}
			modules = append(modules, places)
		}
	}
	return modules
}

// Marshal returns the file's text. Parse of the text gives c again.
func (c *Config) Marshal() []byte {
	var b strings.Builder
	line := func(directive, value string) { b.WriteString(strings.TrimRight(directive+" "+value, " ") + "\n") }
	text := func(directive, value string) {
		if value != "" {
			line(directive, value)
		}
	}
	number := func(directive string, n int) {
		if n != 0 {
			line(directive, fmt.Sprint(n))
		}
	}
	text("PATH", c.Path)
	text("DEFAULT", c.Default)
	text("UI", c.UI)
	line("PROMPT", fmt.Sprint(c.Prompt))
	number("TIMEOUT", c.Timeout)
	number("TOTALTIMEOUT", c.TotalTimeout)
	text("ONTIMEOUT", c.OnTimeout)
	text("ONERROR", c.OnError)
	text("APPEND", c.Append)
	number("IPAPPEND", c.IPAppend)
	for _, f := range c.Includes {
		line("INCLUDE", f)
	}
	for _, l := range c.Labels {
		line("LABEL", l.Name)
		text("  MENU LABEL", l.Menu)
		if l.MenuDefault {
			line("  MENU DEFAULT", "")
		}
		text("  "+l.Type, l.Kernel)
		text("  INITRD", l.Initrd)
		text("  APPEND", l.Append)
		number("  IPAPPEND", l.IPAppend)
		if l.Local {
			line("  LOCALBOOT", l.LocalArg)
		}
	}
	return []byte(b.String())
}
