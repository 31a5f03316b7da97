package proc

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tempDir is a folder of the test that every user can reach, as t.TempDir's is
// not.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// server is a FUSE server, seen from the test.
type server struct {
	t   testing.TB
	dir string // the mount point

	mu  sync.Mutex // guards the two below: one message and its answer at a time
	enc *json.Encoder
	dec *json.Decoder
}

// serveFolder mounts source by a FUSE server until the test ends.
func serveFolder(t testing.TB, source string, squash bool) *server {
	t.Helper()
	target := tempDir(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+roleFuse)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	s := &server{t: t, dir: target, enc: json.NewEncoder(stdin), dec: json.NewDecoder(stdout)}
	t.Cleanup(func() { stop(t, cmd, stdin, target) })
	s.tell(serveArgs{source, target, squash})
	return s
}

// stop unmounts and ends a server. A server that is frozen or holds a request
// ends all the same; what waits for it gets an error.
func stop(t testing.TB, cmd *exec.Cmd, stdin io.Closer, target string) {
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		t.Errorf("unmount %s: %v", target, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("fuse server: %v", err)
	}
}

// tell sends a message and gives the answer.
func (s *server) tell(message any) serverState {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var state serverState
	must(s.t, s.enc.Encode(message))
	must(s.t, s.dec.Decode(&state))
	if state.Err != "" {
		s.t.Fatalf("fuse server: %s", state.Err)
	}
	return state
}

// set gives the server new faults and starts its counts again.
func (s *server) set(f faultSet) { s.t.Helper(); s.tell(control{Set: &f}) }

// state asks for the server's counts.
func (s *server) state() serverState { s.t.Helper(); return s.tell(control{}) }

// release lets the held request fail.
func (s *server) release() { s.t.Helper(); s.tell(control{Release: true}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
