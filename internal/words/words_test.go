package words

import (
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0, "backup"), "0 backups"},
		{Count(1, "backup"), "1 backup"},
		{Count(int64(2), "backup"), "2 backups"},
		{Count(uint32(1), "box", "boxes"), "1 box"},
		{Count(3, "box", "boxes"), "3 boxes"},
		{Verb(1, "is", "are"), "is"},
		{Verb(0, "is", "are"), "are"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		24 * time.Hour: "24h", time.Hour + time.Second: "1h0m1s", -2 * time.Hour: "-2h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestASCII(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain ~": "plain ~", "a\x1b[2J\n\x7f": "a?[2J??", "é\xff": "??", "0123456789abc": "0123456789",
	} {
		if got := ASCII(in, 10); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
