package sharedir

import "strings"

// Line is a line of a log, taken apart.
type Line struct {
	All     string // the whole line, made safe for a terminal
	Time    string // as written; "" of a line that is none of an event
	Text    string // what is said; of other lines all of it
	Session bool   // begins a session
}

// ParseLine takes a line of a box's log apart.
func ParseLine(line string) Line {
	line = visible(strings.TrimRight(line, "\r\n"))
	if strings.HasPrefix(line, sessionRule) {
		return Line{All: line, Text: line, Session: true}
	}
	// Time and address have no colon followed by a blank.
	parts := strings.SplitN(line, ": ", 4)
	if len(parts) == 4 && (parts[2] == "info" || parts[2] == "error") {
		return Line{All: line, Time: parts[0], Text: parts[3]}
	}
	return Line{All: line, Text: line}
}
