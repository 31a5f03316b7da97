package lvm

import (
	"fmt"
	"strings"
)

// The text of LVM's metadata is in the language of lvm.conf. Its grammar is
// described at the parser in LVM2's libdm/libdm-config.c:
//
//	section: (key '{' section '}' | key '=' value)*
//	value:   string | number | '[' (value (',' value)*)? ']'
//
// Comments go from # to the end of the line. This parser only accepts the forms
// that LVM itself writes (lib/format_text/export.c). It refuses keys in quotes,
// strings without quotes or in single quotes, paths as keys, and a key that
// occurs twice.
const (
	maxDepth    = 8       // LVM uses five: group, volumes, volume, segment, settings of a cache
	maxEntries  = 1 << 18 // keys and values together; a linear volume has 32
	sectionCost = 4       // a section counts as so many entries, since it takes more memory
)

type parser struct {
	text string
	at   int
	left int // how many entries may still come
}

// parseText parses metadata. On the disk the text ends with a NUL.
func parseText(text string) (*section, error) {
	text = strings.TrimRight(text, "\x00")
	if strings.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("the metadata have a NUL in the text")
	}
	p := &parser{text: text, left: maxEntries}
	s, err := p.section(0)
	if err != nil {
		line := 1 + strings.Count(text[:min(p.at, len(text))], "\n")
		return nil, fmt.Errorf("the metadata cannot be parsed: line %d: %w", line, err)
	}
	return s, nil
}

// next skips space and comments. It returns the byte that follows, or 0 at the
// end, and does not consume it.
func (p *parser) next() byte {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; c {
		case ' ', '\t', '\n', '\r', '\v', '\f':
			p.at++
		case '#':
			n := strings.IndexByte(p.text[p.at:], '\n')
			if n < 0 {
				n = len(p.text) - p.at
			}
			p.at += n
		default:
			return c
		}
	}
	return 0
}

// section parses up to the closing brace, or to the end if depth is 0.
func (p *parser) section(depth int) (*section, error) {
	s := &section{}
	for {
		switch c := p.next(); {
		case c == 0 && depth == 0:
			return s, nil
		case c == '}' && depth > 0:
			p.at++
			return s, nil
		}
		e, err := p.entry(depth)
		if err != nil {
			return nil, err
		}
		if !s.add(e) {
			return nil, fmt.Errorf("%q is there twice", e.key)
		}
	}
}

func (p *parser) entry(depth int) (e entry, err error) {
	if e.key, err = p.key(); err != nil {
		return e, err
	}
	switch p.next() {
	case '{':
		if p.at++; depth == maxDepth {
			return e, fmt.Errorf("sections lie too deep in each other")
		}
		if err = p.count(sectionCost - 1); err == nil {
			e.sub, err = p.section(depth + 1)
		}
	case '=':
		p.at++
		e.values, err = p.values()
	default:
		err = fmt.Errorf("%q has neither a value nor a section", e.key)
	}
	return e, err
}

// key parses a word of the characters that names in LVM may have (validate_name
// in lib/misc/lvm-string.c).
func (p *parser) key() (string, error) {
	from := p.at
	for p.at < len(p.text) && (isAlnum(p.text[p.at]) || strings.IndexByte("_.+-", p.text[p.at]) >= 0) {
		p.at++
	}
	if from == p.at {
		return "", fmt.Errorf("there is no name where one is expected")
	}
	return p.text[from:p.at], p.count(1)
}

func (p *parser) count(n int) error {
	if p.left -= n; p.left < 0 {
		return fmt.Errorf("there are more than %d entries", maxEntries)
	}
	return nil
}

func (p *parser) values() ([]value, error) {
	if p.next() != '[' {
		v, err := p.value()
		return []value{v}, err
	}
	p.at++
	var all []value
	for p.next() != ']' {
		if len(all) > 0 {
			if p.next() != ',' {
				return nil, fmt.Errorf("a list has no comma where one is expected")
			}
			p.at++
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	p.at++
	return all, nil
}

func (p *parser) value() (value, error) {
	if err := p.count(1); err != nil {
		return value{}, err
	}
	if p.next() == '"' {
		s, err := p.quoted()
		return value{text: s}, err
	}
	from := p.at
	for p.at < len(p.text) && strings.IndexByte("+-.0123456789", p.text[p.at]) >= 0 {
		p.at++
	}
	if from == p.at {
		return value{}, fmt.Errorf("there is no value where one is expected")
	}
	return value{p.text[from:p.at], true}, nil
}

// quoted parses a string. A backslash makes the next byte a plain one.
func (p *parser) quoted() (string, error) {
	p.at++
	var unescaped []byte
	for from := p.at; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			s := p.text[from:p.at]
			p.at++
			return string(unescaped) + s, nil
		case c == '\\' && p.at+1 < len(p.text):
			unescaped = append(unescaped, p.text[from:p.at]...)
			p.at++
			from = p.at
		}
	}
	return "", fmt.Errorf("a string has no end")
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
