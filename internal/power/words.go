package power

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine  = 4096 // bytes of a command
	maxWords = 64
)

// word is a word of a command. It is made of spans.
type word []span

// span is text, or the name of a fact.
type span struct{ text, fact string }

// fixed is the text of a word without its facts.
func (w word) fixed() string {
	var b strings.Builder
	for _, s := range w {
		b.WriteString(s.text)
	}
	return b.String()
}

// hasFact reports whether a fact of the box is in a word.
func (w word) hasFact() bool {
	return slices.ContainsFunc(w, func(s span) bool { return s.fact != "" })
}

// String is a word with the names of its facts.
func (w word) String() string {
	var b strings.Builder
	for _, s := range w {
		b.WriteString(s.text)
		if s.fact != "" {
			b.WriteString("{" + s.fact + "}")
		}
	}
	return b.String()
}

// shellOnly are characters that do something in a shell when they stand outside of quotes.
const shellOnly = "|&;<>()$`"

// splitter reads a command.
type splitter struct {
	words []word
	word  word
	begun bool // a word, which may be empty
}

// split splits a command into words.
func split(line string) ([]word, error) {
	if len(line) > maxLine {
		return nil, fmt.Errorf("it has %d bytes, and may have at most %d", len(line), maxLine)
	}
	if !utf8.ValidString(line) {
		return nil, errors.New("it is not text in UTF-8")
	}
	var s splitter
	for rest := line; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		var err error
		switch {
		case r == ' ' || r == '\t' || r == '\n':
			s.end()
			rest = rest[size:]
		case r == '\'' || r == '"':
			rest, err = s.quoted(rest[1:], r)
		case r == '\\':
			r, n := utf8.DecodeRuneInString(rest[1:])
			if n == 0 || unicode.IsControl(r) {
				return nil, fmt.Errorf("after the word %q stands a backslash with nothing behind it", s.before())
			}
			s.add(rest[1 : 1+n])
			rest = rest[1+n:]
		case strings.ContainsRune(shellOnly, r):
			return nil, fmt.Errorf("%q in the word %q means something in a shell, and no shell is there; "+
				"put the word into single quotes if the character itself is meant", r, first(s.before()+rest))
		case !s.begun && (r == '~' || r == '#'):
			return nil, fmt.Errorf("the word %q begins with %q, which means something in a shell, and no shell is there; "+
				"write a whole path, or put the word into single quotes", first(rest), r)
		default:
			rest, err = s.plain(rest, "")
		}
		if err != nil {
			return nil, err
		}
	}
	s.end()
	switch {
	case len(s.words) == 0:
		return nil, errors.New("it is empty; write a program and its words")
	case len(s.words) > maxWords:
		return nil, fmt.Errorf("it has %d words, and may have at most %d", len(s.words), maxWords)
	}
	return s.words, nil
}

// first is the first word of a text, for an error.
func first(text string) string {
	if i := strings.IndexAny(text, " \t\n"); i >= 0 {
		text = text[:i]
	}
	return fmt.Sprintf("%.80s", text)
}

// before is what is read of this word.
func (s *splitter) before() string { return fmt.Sprintf("%.80s", s.word) }

// add adds text to the word.
func (s *splitter) add(text string) {
	s.begun = true
	if n := len(s.word); n > 0 && s.word[n-1].fact == "" {
		s.word[n-1].text += text
	} else {
		s.word = append(s.word, span{text: text})
	}
}

func (s *splitter) end() {
	if s.begun {
		s.words = append(s.words, s.word)
	}
	s.word, s.begun = nil, false
}

// quoted reads up to the closing quote.
func (s *splitter) quoted(rest string, quote rune) (string, error) {
	s.begun = true
	for rest != "" {
		var err error
		switch r, _ := utf8.DecodeRuneInString(rest); {
		case r == quote:
			return rest[1:], nil
		case quote == '"' && (r == '$' || r == '`'):
			return "", fmt.Errorf("%q in the word %q means something in a shell, and no shell is there; use single quotes",
				r, s.before()+first(rest))
		case quote == '"' && r == '\\' && len(rest) > 1 && strings.IndexByte("\"\\$`", rest[1]) >= 0:
			s.add(rest[1:2])
			rest = rest[2:]
		default:
			rest, err = s.plain(rest, string(quote))
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("the quote %c in the word %q is not closed", quote, s.before())
}

var factName = regexp.MustCompile(`^(address|name|mac|uuid|action|label:[A-Za-z0-9_.-]{1,64})$`)

// plain reads one character, or a fact in braces.
func (s *splitter) plain(rest, quote string) (string, error) {
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}"):
		s.add(rest[:1])
		return rest[2:], nil
	case r == '}':
		return "", fmt.Errorf("the word %q has a } without {; write }} if the brace itself is meant", s.before()+"}")
	case r == '{':
		name, after, closed := strings.Cut(rest[1:], "}")
		if !closed || !factName.MatchString(name) {
			return "", fmt.Errorf("the word %q has {%.40s}, and known are {address}, {name}, {mac}, {uuid}, {action} and {label:KEY}; "+
				"write {{ if the brace itself is meant", s.before()+first(rest), name)
		}
		s.begun = true
		s.word = append(s.word, span{fact: name})
		return after, nil
	case unicode.IsControl(r) && r != '\t' && (r != '\n' || quote == ""):
		return "", fmt.Errorf("the word %q has the character %q, which cannot be printed", s.before(), r)
	}
	s.add(rest[:size])
	return rest[size:], nil
}

var (
	// shells are programs that take a script from the command line by -c.
	shells = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox", "fish", "su", "runuser", "python", "python3"}
	// makesMore are programs that make something else of some characters, such as another shell or a URL.
	makesMore = []string{"ssh", "curl", "wget"}
	// scriptInOption is an option with its script, as su -c'SCRIPT' and su --command=SCRIPT have it.
	scriptInOption = regexp.MustCompile(`^(-[A-Za-z]*c|--c[a-z-]*=)`)

	plainText = regexp.MustCompile(`^[A-Za-z0-9.:_-]+$`)
)

// checkWords refuses a command that cannot run, or in which a fact would not stay a fact.
func checkWords(words []word) error {
	program := words[0].fixed()
	switch {
	case words[0].hasFact():
		return fmt.Errorf("the program %q depends on the box; write its name or path", words[0])
	case program == "":
		return errors.New("the name of its program is empty")
	case strings.HasPrefix(program, "-"):
		return fmt.Errorf("its program %.80q begins with \"-\"", program)
	case strings.Contains(program, "/") && !path.IsAbs(program):
		return fmt.Errorf("its program %.80q is no whole path; write one that begins with /, or the name alone", program)
	case strings.Contains(program, "="):
		return fmt.Errorf("its first word %.80q is no program; variables of the environment are a setting of their own", program)
	}
	for i, w := range words {
		if slices.Contains(shells, path.Base(w.fixed())) {
			if err := checkScript(words[i+1:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkScript refuses a fact in what a shell takes for a script: the first word behind an option with c that is no
// option, nor what belongs to -o.
func checkScript(words []word) error {
	script, ofOption := false, false
	for _, w := range words {
		text := w.fixed()
		switch {
		case ofOption:
			ofOption = false
		case w.hasFact() && scriptInOption.MatchString(text):
			return fmt.Errorf("the word %q has a script of a shell, and a fact in it could become a command", w)
		case text == "-o" || text == "+o" || text == "-O" || text == "+O":
			ofOption = true
		case strings.HasPrefix(text, "-") && !w.hasFact() || strings.HasPrefix(text, "+"):
			script = script || strings.Contains(text, "c")
		case script && w.hasFact():
			return fmt.Errorf("the word %q is a script of a shell, and a fact in it could become a command; "+
				"write \"$1\" there, and the fact as a word behind: sh -c 'script \"$1\"' sh {name}", w)
		default:
			script = false
		}
	}
	return nil
}

// needsPlain reports whether a program is known to make more of its words than others do.
func needsPlain(words []word) bool {
	return slices.ContainsFunc(words, func(w word) bool { return slices.Contains(makesMore, path.Base(w.fixed())) })
}
