package page

import (
	"fmt"
	"testing"
	"time"
)

func TestTries(t *testing.T) {
	var tr tries
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	a, b := addressOf("10.0.0.1:999"), addressOf("10.0.0.2:999")
	for n := range 3 * maxTries {
		if wait := tr.begin(a, now); (wait > 0) != (n >= maxTries) || wait > tryWindow {
			t.Fatalf("try %d has to wait for %s", n, wait)
		}
	}
	for range 3 * maxTries { // right ones do not count
		if tr.begin(b, now) > 0 {
			t.Fatal("another address has to wait")
		}
		tr.right(b)
	}
	if tr.begin(a, now.Add(tryWindow)) > 0 || tr.begin(a, now.Add(-24*time.Hour)) > 0 {
		t.Error("it does not end, or a clock that was set back keeps people out")
	}
	for n := range 3 * maxTried {
		tr.begin(addressOf(fmt.Sprintf("10.1.%d.%d:1", n/256, n%256)), now)
	}
	if len(tr.by) > maxTried {
		t.Errorf("%d addresses are kept", len(tr.by))
	}
	for in, want := range map[string]string{"10.0.0.1:1": "10.0.0.1/32", "[::ffff:10.0.0.1]:1": "10.0.0.1/32",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64", "@": "invalid Prefix"} {
		if got := addressOf(in).String(); got != want {
			t.Errorf("%s is %s, not %s", in, got, want)
		}
	}
}
