package maintenance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// busyEvery is how often a line says that something still goes on.
var busyEvery = 10 * time.Second

// busy says that something begins, and every busyEvery that it still goes on.
// If grows is not "", it is a folder, and the lines have the number of bytes in
// it. Call end when the work has ended.
func (opt Options) busy(grows, format string, args ...any) (end func()) {
	what := fmt.Sprintf(format, args...)
	opt.Say("%s", what)
	begun, stop := time.Now(), make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		tick := time.NewTicker(busyEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				line := fmt.Sprintf("still %s, for %s", what, time.Since(begun).Round(time.Second))
				if n := folderSize(grows); n > 0 {
					line += fmt.Sprintf(", %d MB so far", n/1e6)
				}
				opt.Say("%s", line)
			}
		}
	})
	return func() {
		close(stop)
		ticking.Wait()
	}
}

// folderSize is the size in bytes of the files directly in a folder.
func folderSize(dir string) (n int64) {
	if dir == "" {
		return 0
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
	}
	return n
}

// oneAtATime returns a say that several goroutines may call at once.
func oneAtATime(say func(string, ...any)) func(string, ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		say(format, args...)
	}
}

// toolSays is the output of a program of Debian. It passes on lines that begin
// with "I: ", and keeps everything that the program prints.
type toolSays struct {
	name string
	say  func(string, ...any)
	all  bytes.Buffer
	done int // bytes of all that were already searched for lines
}

func (t *toolSays) Write(p []byte) (int, error) {
	t.all.Write(p)
	for {
		line, _, whole := strings.Cut(string(t.all.Bytes()[t.done:]), "\n")
		if !whole {
			return len(p), nil
		}
		t.done += len(line) + 1
		if told, ok := strings.CutPrefix(strings.TrimRight(line, "\r "), "I: "); ok {
			t.say("%s: %s", t.name, told)
		}
	}
}
