package lvm

import (
	"fmt"
	"strings"
)

// The text of LVM's metadata is in the language of lvm.conf, whose grammar is
// told at the parser of LVM2's libdm/libdm-config.c:
//
//	section: (key '{' section '}' | key '=' value)*
//	value:   string | number | '[' (value (',' value)*)? ']'
//
// with comments from # to the end of the line. Of its freedoms only those are
// taken here that LVM uses when it writes metadata (lib/format_text/export.c):
// there are no keys in quotes, no strings without or in single quotes, no
// paths as keys, and no key twice.
const (
	maxDepth    = 8       // LVM has five levels: group, volumes, volume, segment, settings of a cache
	maxEntries  = 1 << 18 // keys and values together: a linear volume takes 32
	sectionCost = 4       // a section counts as so many: the memory is bounded by this
)

type parser struct {
	text string
	at   int
	left int // of maxEntries
}

// parseText parses metadata; the text on the disk ends with a NUL.
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

// next skips space and comments; it gives the byte that follows, 0 at the end.
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

// section parses up to the closing brace, or the outermost one to the end.
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

// key takes a word of the letters that names in LVM have (validate_name in
// lib/misc/lvm-string.c).
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

// quoted takes a string; a backslash makes the byte behind it a plain one.
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
