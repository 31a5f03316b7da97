package maintenance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBusy: what takes long is told of again, with how much has come, until it ends.
func TestBusy(t *testing.T) {
	defer func(d time.Duration) { busyEvery = d }(busyEvery)
	busyEvery = time.Millisecond
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.deb"), make([]byte, 3e6), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1000)
	opt := Options{Say: func(format string, args ...any) {
		select {
		case said <- fmt.Sprintf(format, args...):
		default:
		}
	}}
	end := opt.busy(dir, "downloading %s", "a")
	if first := <-said; first != "downloading a" {
		t.Errorf("it begins with %q", first)
	}
	if again := <-said; !strings.HasPrefix(again, "still downloading a, for ") || !strings.HasSuffix(again, ", 3 MB so far") {
		t.Errorf("it goes on with %q", again)
	}
	end()
	for len(said) > 0 {
		<-said
	}
	time.Sleep(5 * time.Millisecond)
	if len(said) > 0 {
		t.Errorf("after its end it says %q", <-said)
	}
}

func TestToolSays(t *testing.T) {
	var said []string
	w := &toolSays{name: "tool", say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	const text = "I: running\r\nnoise\nI: installing \nE: I: no\nI: not whole"
	for _, b := range []byte(text) {
		w.Write([]byte{b})
	}
	if want := []string{"tool: running", "tool: installing"}; !slices.Equal(said, want) || w.all.String() != text {
		t.Errorf("it says %q, want %q, and keeps %q", said, want, w.all.String())
	}
}
