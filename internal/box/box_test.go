package box

import (
	"strings"
	"testing"
)

func TestAddr(t *testing.T) {
	a, err := ParseAddr("10.40.41.42")
	if err != nil || a.String() != "10.40.41.42" || a.Hex() != "0A28292A" || a.IsZero() {
		t.Fatalf("got %q %q, %v", a, a.Hex(), err)
	}
	back, err := ParseHex("0A28292A")
	if err != nil || back != a {
		t.Fatalf("ParseHex gives %v, %v", back, err)
	}
	if !(Addr{}).IsZero() || (Addr{}).String() != "" || (Addr{}).Hex() != "" {
		t.Error("the zero Addr is not empty")
	}
}

func TestAddrAsText(t *testing.T) {
	a, _ := ParseAddr("10.40.41.42")
	for _, want := range []Addr{a, {}} {
		text, err := want.MarshalText()
		got := a
		if err != nil || got.UnmarshalText(text) != nil || got != want {
			t.Errorf("%q becomes %q", want, got)
		}
	}
	if err := a.UnmarshalText([]byte("127.0.0.1")); err == nil || !a.IsZero() {
		t.Errorf("%q is taken", a)
	}
}

func TestAddrRefused(t *testing.T) {
	for _, s := range []string{"", "box1", "10.1.2", "10.1.2.3.4", "010.1.2.3", "10.1.2.3 ", "::1", "::ffff:10.1.2.3", "127.0.0.1",
		"127.9.9.9", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.1.2.3"} {
		if a, err := ParseAddr(s); err == nil {
			t.Errorf("ParseAddr(%q) = %v", s, a)
		}
	}
	for _, s := range []string{"", "0a28292a", "0A28292", "0A28292A0", "7F000001", "zzzzzzzz", "default"} {
		if a, err := ParseHex(s); err == nil {
			t.Errorf("ParseHex(%q) = %v", s, a)
		}
	}
}

func TestAction(t *testing.T) {
	for _, a := range Actions {
		if got, err := ParseAction(string(a)); err != nil || got != a {
			t.Errorf("ParseAction(%q) = %q, %v", a, got, err)
		}
	}
	_, err := ParseAction("format")
	if err == nil || !strings.Contains(err.Error(), "backup-again") {
		t.Errorf("an unknown action gives %v, which does not list the actions", err)
	}
}

func TestArming(t *testing.T) {
	a, b := NewArming(), NewArming()
	if a == b {
		t.Error("two armings are equal")
	}
	if got, err := ParseArming(string(a)); err != nil || got != a {
		t.Errorf("ParseArming(%q) = %q, %v", a, got, err)
	}
	for _, s := range []string{"", "12", "0123456789ABCDEF", "0123456789abcdex", "0123456789abcdef00"} {
		if _, err := ParseArming(s); err == nil {
			t.Errorf("ParseArming(%q) is taken", s)
		}
	}
}

func TestValidHost(t *testing.T) {
	for s, want := range map[string]bool{"box1": true, "box-1.lab.example": true, "unknown": true, "": false, "..": false, "a/b": false,
		"-x": false, "a b": false, strings.Repeat("a", 254): false} {
		if ValidHost(s) != want {
			t.Errorf("ValidHost(%q) = %v", s, !want)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	f.Add("10.40.41.42")
	f.Add("0A28292A")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAddr(s); err == nil {
			if back, err := ParseHex(a.Hex()); err != nil || back != a || a.String() != s {
				t.Fatalf("%q: %v, %v, %v", s, a, back, err)
			}
		}
		if a, err := ParseHex(s); err == nil && a.Hex() != s {
			t.Fatalf("%q: %v", s, a)
		}
	})
}

// No outcome that is not known may be taken for success, and no two outcomes
// may be mistaken for each other.
func TestOutcomes(t *testing.T) {
	codes := map[int]Outcome{ExitWrong: "wrong use"}
	for _, o := range Outcomes() {
		if !o.Known() || codes[o.ExitCode()] != "" {
			t.Errorf("%s has the exit code %d, as %s", o, o.ExitCode(), codes[o.ExitCode()])
		}
		codes[o.ExitCode()] = o
		if again := o == Failed || o == Refused; again != (o.Class() == Again) || (o == Rescuing) != (o.Class() == StaysUp) {
			t.Errorf("%s is of class %d", o, o.Class())
		}
	}
	for _, o := range []Outcome{"", "done "} {
		if o.Known() || o.ExitCode() != ExitFailed || o.Class() != Again {
			t.Errorf("%q is known or has the exit code %d, class %d", o, o.ExitCode(), o.Class())
		}
	}
}
