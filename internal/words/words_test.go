package words

import "testing"

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
