package agent_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/conform/agentside"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/sharedir"
)

// shareSide is share mode for the suite: two folders.
type shareSide struct {
	dir  string
	addr box.Addr
}

func TestShareConforms(t *testing.T) {
	agentside.Conforms(t, func(t *testing.T) agentside.Side {
		s := &shareSide{dir: t.TempDir()}
		s.addr, _ = box.ParseAddr("10.88.0.11")
		for name, text := range map[string]string{
			"tftp/pxelinux.0": "loader", "tftp/pxelinux.cfg/default": string(bootcfg.DefaultConfig()), "backup/" + sharedir.Marker: "",
		} {
			s.write(t, name, []byte(text))
		}
		return s
	})
}

func (s *shareSide) write(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *shareSide) Cmdline() bootcfg.Cmdline {
	tftp, _ := bootcfg.ParseNFSPath("10.88.0.1:/t")
	backup, _ := bootcfg.ParseNFSPath("10.88.0.1:/b")
	return bootcfg.Cmdline{Address: s.addr, Host: "box11", TFTP: tftp, Backup: backup}
}

func (s *shareSide) Arm(t *testing.T, cmd bootcfg.Cmdline) {
	t.Helper()
	file, err := bootcfg.Generate(bootcfg.BootFile{Cmdline: cmd, Kernel: "maintenance-boot/v/vmlinuz",
		Initrd: "maintenance-boot/v/initrd.img"})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "tftp/pxelinux.cfg/"+s.addr.Hex(), file)
}

func (s *shareSide) Start(t *testing.T, cmd *bootcfg.Cmdline, now func() time.Time, voice agent.Voice) agent.Arming {
	return &agent.Share{
		FS: durable.OS{}, TFTP: filepath.Join(s.dir, "tftp"), Backup: filepath.Join(s.dir, "backup"),
		Cmd: cmd, Console: io.Discard, Now: now, Voice: voice,
	}
}

func (s *shareSide) ReadLog(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "backup", s.addr.String(), box.LogFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// serverSide is server mode for the suite.
type serverSide struct {
	*agent.Rig
	addr box.Addr
}

func TestServerConforms(t *testing.T) {
	agentside.Conforms(t, func(t *testing.T) agentside.Side {
		addr, _ := box.ParseAddr("10.88.0.11")
		return &serverSide{agent.NewRig(t, addr), addr}
	})
}

func (s *serverSide) Cmdline() bootcfg.Cmdline {
	return bootcfg.Cmdline{Mode: bootcfg.ServerMode, Address: s.addr, Host: "box11"}
}

func (s *serverSide) Arm(_ *testing.T, cmd bootcfg.Cmdline) { s.Rig.Arm(cmd) }

func (s *serverSide) ReadLog(*testing.T) string { return s.Rig.ReadLog() }

// Start is a start of the box, so it has a secret and a token of its own.
func (s *serverSide) Start(t *testing.T, cmd *bootcfg.Cmdline, now func() time.Time, voice agent.Voice) agent.Arming {
	started := s.Started(*cmd)
	a, err := agent.NewServer(agent.ServerConfig{Cmd: &started, Console: io.Discard, Now: now, Voice: voice, Away: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}
