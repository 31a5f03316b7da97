package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// ports gives each server of a program a port of its own.
var ports atomic.Int32

func init() { ports.Store(8443) }

// Site is a server with its state folder.
type Site struct {
	testbox string // the program
	Dir     string // the state folder
	port    int32  // for agents
	// API is the address and port for admins by HTTPS. With "", which it is at first, there is none. Configure
	// takes it over, and More, which is the rest of the configuration.
	API, More string
	Admin     *apiclient.Client
	cmd       *exec.Cmd
	log       *os.File
	ended     chan error
}

// NewSite makes a state folder in dir, and starts a server. The caller closes it. env
// is added to the server's environment.
func NewSite(testbox, dir string, env ...string) (*Site, error) {
	s, err := MakeSite(testbox, dir)
	if err != nil {
		return nil, err
	}
	return s, s.Start(env...)
}

// MakeSite makes a state folder in dir. The caller starts the server, and closes it.
func MakeSite(testbox, dir string) (*Site, error) {
	s := &Site{testbox: testbox, Dir: dir, port: ports.Add(1)}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.Configure(""); err != nil {
		return nil, err
	}
	if err := measure.Command(testbox, "server", "init", "--address", ServerIP, "--config", s.path("server.toml")); err != nil {
		return nil, err
	}
	if err := s.makeVersion(); err != nil {
		return nil, err
	}
	var err error
	s.Admin, err = apiclient.New(apiclient.Config{Server: s.Socket()})
	return s, err
}

// Configure writes the configuration of a server that is not running. Upkeep begins at
// a time of day, or never if that is "".
func (s *Site) Configure(upkeep string) error {
	text := fmt.Sprintf("state = %q\nsocket = %q\nagents = \":%d\"\napi = %q\ntftp = \"\"\n[upkeep]\nat = %q\nscrub = \"\"\n",
		s.Dir, s.Socket(), s.port, s.API, upkeep) + s.More
	return os.WriteFile(s.path("server.toml"), []byte(text), 0o644)
}

// Socket is where the server listens for admins.
func (s *Site) Socket() string { return s.path("testbox.sock") }

func (s *Site) path(name string) string { return filepath.Join(s.Dir, name) }

// Store is the folder of the server's store.
func (s *Site) Store() string { return s.path("store") }

// Log is what the server has printed.
func (s *Site) Log() string {
	text, _ := os.ReadFile(s.path("server.log"))
	return string(text)
}

// makeVersion makes a maintenance system that nothing boots.
func (s *Site) makeVersion() error {
	v := bootcfg.Version{Format: bootcfg.VersionFormat, Version: "1.0", Form: bootcfg.FormRAM, Kernel: "6.1.0-37-amd64",
		Built: time.Now().UTC()}
	text, err := v.Marshal()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.path(bootcfg.TFTPArea), bootcfg.MaintDir, v.Version)
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, bootcfg.KernelFile), []byte("kernel"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.InitrdFile), []byte("initrd"), 0o644),
		os.WriteFile(filepath.Join(dir, bootcfg.VersionFile), text, 0o644))
}

// startLimit is far more than a server needs to start or to end.
const startLimit = time.Minute

// Start starts the server, and waits until it is ready.
func (s *Site) Start(env ...string) (err error) {
	if s.log, err = os.OpenFile(s.path("server.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return err
	}
	before := strings.Count(s.Log(), ready)
	s.cmd = exec.Command(s.testbox, "server", "--config", s.path("server.toml"))
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.cmd.Wait() }()
	for end := time.Now().Add(startLimit); strings.Count(s.Log(), ready) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the server is not ready:\n%s", s.Log())
		}
	}
	return nil
}

const ready = "The server is ready."

// Close ends the server, and waits for that. It leaves the state folder.
func (s *Site) Close() error {
	if s.cmd == nil {
		return nil
	}
	defer s.log.Close()
	s.cmd.Process.Signal(syscall.SIGTERM)
	cmd := s.cmd
	s.cmd = nil
	select {
	case err := <-s.ended:
		return err
	case <-time.After(startLimit):
		cmd.Process.Kill()
		return errors.New("the server did not end")
	}
}

// Used is what the server has used so far: processor time, and the most memory it had.
func (s *Site) Used() (cpu time.Duration, rss int64, err error) {
	u, err := measure.Process(s.cmd.Process.Pid)
	return u.CPU(), u.RSS, err
}

// Ask asks a box for an action, and returns the id of the job.
func (s *Site) Ask(ctx context.Context, addr box.Addr, action box.Action) (id string, err error) {
	var jobs api.JobList
	ask := api.NewJobs{Action: action, Targets: []string{addr.String()}}
	if err := s.Admin.Do(ctx, http.MethodPost, apiclient.Path("jobs"), ask, &jobs); err != nil {
		return "", err
	}
	if len(jobs.Jobs) != 1 {
		return "", fmt.Errorf("%s: %d jobs were made", addr, len(jobs.Jobs))
	}
	return jobs.Jobs[0].ID, nil
}

// Job is a job as it is now.
func (s *Site) Job(ctx context.Context, id string) (j api.Job, err error) {
	err = s.Admin.Do(ctx, http.MethodGet, apiclient.Path("jobs", id), nil, &j)
	return j, err
}

// BootFile is the path of a box's boot file.
func (s *Site) BootFile(addr box.Addr) string {
	return filepath.Join(s.path(bootcfg.TFTPArea), bootcfg.ConfigDir, addr.Hex())
}

// Boot waits until a box is armed, and returns the kernel command line that its loader
// reads in the boot file.
func (s *Site) Boot(ctx context.Context, addr box.Addr) (words string, err error) {
	for ; ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(s.BootFile(addr))
		if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			continue
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return "", err
		}
		m := appendLine.FindSubmatch(text)
		if m == nil {
			return "", fmt.Errorf("boot file without APPEND:\n%s", text)
		}
		return string(m[1]), nil
	}
}

var appendLine = regexp.MustCompile(`(?m)^\s*APPEND\s+\S+\s+(.*)$`)
