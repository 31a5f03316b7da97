package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"testbox-imaging/internal/image"
)

// Marshal returns the JSON of a message.
func Marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the fields are plain
	}
	return b
}

// decode parses JSON that has exactly the fields of v. The text has at most so many
// bytes, and the lists of the outermost object have at most so many elements in all.
// Lists further in may only have elements of some length. Otherwise a list of empty
// elements would take a hundred times as much memory as its text.
func decode(what string, b []byte, most, elements int, v any) error {
	if len(b) > most {
		return fmt.Errorf("%s has more than %d bytes", what, most)
	}
	outer, inner, err := countElements(b)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if outer > elements || inner > len(b)/minElement {
		return fmt.Errorf("%s has more elements in its lists than it may", what)
	}
	return image.DecodeStrict(what, b, v)
}

const (
	// maxDepth is how deep a message is nested at most.
	maxDepth = 16
	// minElement is how many bytes an element of an inner list stands for at least, of
	// the whole text.
	minElement = 16
)

// countElements counts the elements of the lists that the outermost object has, and of
// all lists further in. If the text is not JSON, the numbers mean nothing.
func countElements(b []byte) (outer, inner int, err error) {
	var open [maxDepth]byte
	depth := 0
	begun := false // a list, with no element yet
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			continue
		}
		if element := begun && c != ']' || c == ',' && depth > 0 && open[depth-1] == '['; element {
			if depth <= 2 {
				outer++
			} else {
				inner++
			}
		}
		begun = c == '['
		switch c {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			if depth == maxDepth {
				return 0, 0, errors.New("it is nested too deeply")
			}
			open[depth] = c
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return outer, inner, nil
}
