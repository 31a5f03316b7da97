package testenv

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// GoProgram returns the path of a program from another Go module. The program
// is built once and kept in the user's cache. The build needs the network, so
// without TESTBOX_TEST=all it is not started, and the test is skipped.
func GoProgram(t testing.TB, pkg, version string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "testbox")
	path := filepath.Join(dir, filepath.Base(pkg)+"@"+version)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	need(t, All(), path+" (built with the network's help)")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := install(dir, path, pkg+"@"+version); err != nil {
		t.Fatal(err)
	}
	return path
}

// install builds a program. A lock makes sure that only one process does so at
// a time.
func install(dir, path, pkg string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil { // another process has built it meanwhile
		return nil
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.Command("go", "install", "-ldflags", "-s -w", pkg)
	cmd.Dir, cmd.Env = tmp, append(os.Environ(), "GOBIN="+tmp, "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install %s: %w\n%s", pkg, err, msg)
	}
	name, _, _ := strings.Cut(filepath.Base(path), "@")
	return os.Rename(filepath.Join(tmp, name), path)
}

// S3 is an S3 server on the loopback interface, with one empty bucket.
type S3 struct {
	Addr    string // host:port
	program string
	dir     string // folder of the buckets
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	log     bytes.Buffer
}

const s3Bucket = "testbox"

// StartS3 starts a server that runs until the test ends, and sets the
// environment variables with its credentials.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	s := &S3{program: GoProgram(t, "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"), dir: t.TempDir()}
	for _, dir := range []string{"buckets/" + s3Bucket, "meta"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "testbox-key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testbox-secret")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	l.Close()
	t.Cleanup(s.Kill)
	s.Start(t)
	return s
}

// URL is the address of a prefix in the bucket. addr is the server's address,
// or that of a proxy.
func (s *S3) URL(addr, prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=http://%s&region=us-east-1", s3Bucket, prefix, addr)
}

// Start starts the server again after Kill.
func (s *S3) Start(t testing.TB) {
	t.Helper()
	s.log.Reset()
	s.cmd = exec.Command(s.program, "--access", "testbox-key", "--secret", "testbox-secret", "--port", s.Addr, "--keep-alive", "--quiet",
		"posix", "--sidecar", filepath.Join(s.dir, "meta"), filepath.Join(s.dir, "buckets"))
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
	for range 1200 { // a minute
		if c, err := net.Dial("tcp", s.Addr); err == nil {
			c.Close()
			return
		}
		select {
		case <-s.done:
			t.Fatalf("the S3 server ends at its start:\n%s", &s.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("the S3 server does not listen")
}

// Kill ends the server at once.
func (s *S3) Kill() {
	s.cmd.Process.Kill()
	<-s.done
}
