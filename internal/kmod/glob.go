package kmod

import "strings"

// glob matches as fnmatch(3) does for a modalias. '*' matches any run of bytes,
// '?' any byte, and [a-c] and [!a-c] one byte of a set. A '[' without a closing
// bracket matches itself. glob goes back to the last star only, so it needs at
// most len(p)*len(s) steps.
func glob(p, s string) bool {
	star, mark := -1, 0
	pi, si := 0, 0
	for si < len(s) {
		if pi < len(p) && p[pi] == '*' {
			star, mark = pi, si
			pi++
			continue
		}
		if n := matchOne(p[pi:], s[si]); n > 0 {
			pi += n
			si++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		pi, si = star+1, mark
	}
	return strings.Trim(p[pi:], "*") == ""
}

// matchOne says how many bytes of the pattern match the byte c. It is 0 if c
// does not match.
func matchOne(p string, c byte) int {
	if p == "" {
		return 0
	}
	if p[0] == '[' {
		if set, n := cutSet(p); n > 0 {
			if inSet(set, c) {
				return n
			}
			return 0
		}
	}
	if p[0] == '?' || p[0] == c {
		return 1
	}
	return 0
}

// cutSet returns the set at the start of the pattern, and how many bytes it has
// with its brackets. n is 0 if there is no closing bracket.
func cutSet(p string) (set string, n int) {
	from := 1
	if strings.HasPrefix(p, "[!") {
		from = 2
	}
	if from >= len(p) {
		return "", 0
	}
	// A ']' right at the beginning belongs to the set.
	end := strings.IndexByte(p[from+1:], ']')
	if end < 0 {
		return "", 0
	}
	end += from + 1
	return p[1:end], end + 1
}

func inSet(set string, c byte) bool {
	set, not := strings.CutPrefix(set, "!")
	in := false
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			in = in || set[i] <= c && c <= set[i+2]
			i += 2
			continue
		}
		in = in || set[i] == c
	}
	return in != not
}
