package lvm

import (
	"fmt"
	"strconv"
)

// section is the content of a pair of braces, or the whole text.
type section struct {
	entries []entry        // in the order of the text
	index   map[string]int // by key; nil while the section is small
}

// entry is a key with either a section or values.
type entry struct {
	key    string
	sub    *section // nil if it has values
	values []value
}

// value is a string without its quotes, or a number as written in the text.
type value struct {
	text   string
	number bool
}

// add adds an entry. It returns false if the key is already there.
func (s *section) add(e entry) bool {
	if s.entry(e.key) != nil {
		return false
	}
	s.entries = append(s.entries, e)
	switch n := len(s.entries); {
	case n == 20:
		s.index = map[string]int{}
		for i, e := range s.entries {
			s.index[e.key] = i
		}
	case n > 20:
		s.index[e.key] = n - 1
	}
	return true
}

func (s *section) entry(key string) *entry {
	if s.index != nil {
		if i, ok := s.index[key]; ok {
			return &s.entries[i]
		}
		return nil
	}
	for i := range s.entries {
		if s.entries[i].key == key {
			return &s.entries[i]
		}
	}
	return nil
}

func (s *section) section(key string) *section {
	if e := s.entry(key); e != nil {
		return e.sub
	}
	return nil
}

// str is the string of a key that must have exactly one.
func (s *section) str(key string) (string, error) {
	e := s.entry(key)
	if e == nil || len(e.values) != 1 || e.values[0].number {
		return "", fmt.Errorf("the metadata have no string %q where one is expected", key)
	}
	return e.values[0].text, nil
}

// strs are the strings of a list, which may be empty.
func (s *section) strs(key string) ([]string, error) {
	e := s.entry(key)
	if e == nil || e.sub != nil {
		return nil, fmt.Errorf("the metadata have no list %q where one is expected", key)
	}
	var all []string
	for _, v := range e.values {
		if v.number {
			return nil, fmt.Errorf("the metadata have a number in the list %q", key)
		}
		all = append(all, v.text)
	}
	return all, nil
}

// num is the number of a key that must have exactly one, from 0 to limit.
func (s *section) num(key string, limit int64) (int64, error) {
	e := s.entry(key)
	if e == nil || len(e.values) != 1 {
		return 0, fmt.Errorf("the metadata have no number %q where one is expected", key)
	}
	n, err := e.values[0].num(limit)
	if err != nil {
		return 0, fmt.Errorf("the metadata have %s = %w", key, err)
	}
	return n, nil
}

// num reads a decimal number. LVM would read a number with a leading zero as
// octal, but never writes one, so it is refused.
func (v value) num(limit int64) (int64, error) {
	n, err := strconv.ParseInt(v.text, 10, 64)
	if !v.number || err != nil || v.text != strconv.FormatInt(n, 10) || n < 0 || n > limit {
		return 0, fmt.Errorf("%.40q, which is no number from 0 to %d", v.text, limit)
	}
	return n, nil
}
