package bootcfg

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of a configuration file.
const (
	MaxConfig     = 64 << 10 // bytes
	maxConfigLine = 2047     // bytes; the loader's own buffer is not larger
	maxLabels     = 256
)

// configParser reads a file line by line. label is nil before the first LABEL.
type configParser struct {
	cfg    *Config
	label  *Label
	seen   map[string]bool // directives of the file, or of the current label
	inText bool            // between TEXT HELP and ENDTEXT
}

// Parse reads a PXELINUX configuration file as
// https://wiki.syslinux.org/wiki/index.php?title=Config describes it. The
// loader guesses where it does not understand. Parse returns an error with the
// number of the line, for an unknown directive, a repeated one, one where it
// has no effect, and an invalid value.
func Parse(data []byte) (*Config, error) {
	if len(data) > MaxConfig {
		return nil, fmt.Errorf("boot file is larger than %d bytes", MaxConfig)
	}
	p := &configParser{cfg: &Config{}, seen: map[string]bool{}}
	for i, line := range strings.Split(string(data), "\n") {
		if err := p.line(strings.TrimSuffix(line, "\r")); err != nil {
			return nil, fmt.Errorf("boot file, line %d: %w", i+1, err)
		}
	}
	if p.inText {
		return nil, errors.New("boot file: TEXT without ENDTEXT")
	}
	return p.cfg, nil
}

func (p *configParser) line(s string) error {
	if len(s) > maxConfigLine {
		return fmt.Errorf("longer than %d bytes", maxConfigLine)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		return fmt.Errorf("control character 0x%02x", s[i])
	}
	key, value := cutWord(strings.Trim(s, " \t"))
	key = strings.ToUpper(key)
	switch {
	case p.inText:
		p.inText = key != "ENDTEXT"
		return nil
	case key == "" || key[0] == '#':
		return nil
	case key == "TEXT":
		p.inText = strings.EqualFold(value, "help")
		return check(p.inText, "TEXT %q is not TEXT HELP", value)
	case key == "LABEL":
		return p.newLabel(value)
	case key == "MENU":
		return p.menu(value)
	case key == "INCLUDE":
		p.cfg.Includes = append(p.cfg.Includes, value)
		return check(value != "", "INCLUDE without a file")
	case looks[key]:
		return nil
	}
	if p.seen[key] {
		return fmt.Errorf("%s is there twice", key)
	}
	p.seen[key] = true
	if p.label != nil && !fileWide[key] {
		return p.label.set(key, value)
	}
	return p.cfg.set(key, value)
}

// cutWord splits s at its first blanks.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.Trim(s[i:], " \t")
}

// looks are directives that change what people see, not what is booted.
var looks = map[string]bool{
	"SAY": true, "DISPLAY": true, "FONT": true, "KBDMAP": true, "SERIAL": true, "CONSOLE": true, "IMPLICIT": true,
	"ALLOWOPTIONS": true, "NOESCAPE": true, "NOCOMPLETE": true, "NOHALT": true, "SENDCOOKIES": true, "F0": true, "F1": true, "F2": true,
	"F3": true,
	"F4": true, "F5": true, "F6": true, "F7": true, "F8": true, "F9": true, "F10": true, "F11": true, "F12": true,
}

// fileWide are directives that mean the same at every place of the file.
var fileWide = map[string]bool{
	"PATH": true, "DEFAULT": true, "UI": true, "PROMPT": true, "TIMEOUT": true, "TOTALTIMEOUT": true, "ONTIMEOUT": true, "ONERROR": true,
}

func (c *Config) set(key, value string) (err error) {
	if value == "" {
		return fmt.Errorf("%s without a value", key)
	}
	switch key {
	case "PATH":
		c.Path = value
	case "DEFAULT":
		c.Default = strings.Join(strings.Fields(value), " ")
	case "UI":
		c.UI = value
	case "PROMPT":
		c.Prompt, err = parseNumber(value, 2)
	case "TIMEOUT":
		c.Timeout, err = parseNumber(value, 35996)
	case "TOTALTIMEOUT":
		c.TotalTimeout, err = parseNumber(value, 1<<31-1)
	case "ONTIMEOUT":
		c.OnTimeout = strings.Join(strings.Fields(value), " ")
	case "ONERROR":
		c.OnError = strings.Join(strings.Fields(value), " ")
	case "APPEND":
		c.Append = value
	case "IPAPPEND", "SYSAPPEND":
		c.IPAppend, err = parseNumber(value, 1<<20-1)
	default:
		return misplaced(key, "outside a label")
	}
	return err
}

// newLabel starts a label. The lines up to the next LABEL belong to it.
func (p *configParser) newLabel(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, " \t"):
		return fmt.Errorf("LABEL %q is not one word", name)
	case p.cfg.label(name) != nil:
		return fmt.Errorf("label %s is there twice", name)
	case len(p.cfg.Labels) == maxLabels:
		return fmt.Errorf("more than %d labels", maxLabels)
	}
	p.cfg.Labels = append(p.cfg.Labels, Label{Name: name})
	p.label = &p.cfg.Labels[len(p.cfg.Labels)-1]
	for key := range p.seen {
		if !fileWide[key] {
			delete(p.seen, key)
		}
	}
	return nil
}

func (l *Label) set(key, value string) (err error) {
	switch key {
	case "KERNEL", "LINUX", "BOOT", "BSS", "PXE", "FDIMAGE", "COMBOOT", "COM32", "CONFIG":
		if l.Type != "" || l.Local {
			return fmt.Errorf("label %s boots two things", l.Name)
		}
		l.Type, l.Kernel = key, value
		err = check(value != "", "%s without a file", key)
	case "INITRD":
		l.Initrd, err = value, check(value != "", "INITRD without a file")
	case "APPEND":
		l.Append, err = value, check(value != "", "APPEND without a value")
	case "IPAPPEND", "SYSAPPEND":
		l.IPAppend, err = parseNumber(value, 1<<20-1)
	case "LOCALBOOT":
		if l.Type != "" {
			return fmt.Errorf("label %s boots two things", l.Name)
		}
		l.Local, l.LocalArg, err = true, value, validLocalArg(value)
	default:
		err = misplaced(key, "in a label")
	}
	return err
}

func misplaced(key, where string) error {
	return fmt.Errorf("%s is not a directive of PXELINUX, or has no effect %s", key, where)
}

// menu reads what follows MENU. It ignores everything but a label's title and
// the default. The rest is looks, or belongs to a menu that UI starts.
func (p *configParser) menu(value string) error {
	key, rest := cutWord(value)
	switch key = strings.ToUpper(key); {
	case key == "":
		return errors.New("MENU without what")
	case key == "INCLUDE":
		p.cfg.Includes = append(p.cfg.Includes, rest)
		return check(rest != "", "MENU INCLUDE without a file")
	case key == "LABEL" && p.label != nil:
		p.label.Menu = rest
	case key == "DEFAULT" && p.label != nil:
		p.label.MenuDefault = true
	}
	return nil
}

func parseNumber(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, most)
	}
	return n, nil
}

// validLocalArg reports why s cannot follow LOCALBOOT. The value -1 returns to
// the firmware, 0 goes to the firmware's next boot entry, and other values are
// BIOS numbers of drives, such as 0x80.
func validLocalArg(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseInt(s, 0, 32)
	return check(err == nil && n >= -1 && n <= 0xffff, "LOCALBOOT %q is not a number like -1, 0 or 0x80", s)
}
