package sharedir

import "strings"

// Line is a parsed line of a log.
type Line struct {
	All     string // the complete line, made safe for a terminal
	Time    string // as written; "" if the line is no event
	Text    string // the event's text; the complete line if it is no event
	Session bool   // the line begins a session
}

// ParseLine parses a line of a box's log.
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
