package agent

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/testenv"
)

// childEnv makes this test program an agent. It names the folder of a bench.
const childEnv = "TESTBOX_TEST_AGENT"

func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	at := func(name string) string { return dir + "/" + name }
	cmdline, _ := os.ReadFile(at("cmdline"))
	cmd, err := bootcfg.ParseCmdline(string(cmdline))
	if err != nil {
		panic(err)
	}
	os.Exit(Run(context.Background(), Config{
		Cmdline: string(cmdline), Sys: os.DirFS(at("sys")), Proc: os.DirFS(at("proc")), Dev: at("dev"), Address: cmd.Address,
		Console: os.Stdout, Run: at("run"),
	}).ExitCode())
}

// process is a start of the box as a process of its own. kill says at which request of
// it the power is lost, and 0 means never. It returns the number of requests, and the
// exit code, which is -1 after a loss of power.
func (b *serverBench) process(c bootcfg.Cmdline, kill int64) (requests int64, code int) {
	b.t.Helper()
	b.must(os.RemoveAll(b.path("run"))) // it is in memory
	b.mkdir("run")
	c = b.rig.Started(c)
	b.write("cmdline", c.Words())
	exe, err := os.Executable()
	b.must(err)
	agent := exec.Command(exe)
	agent.Env = append(os.Environ(), childEnv+"="+b.dir)
	agent.Stdout, agent.Stderr = &b.console, &b.console
	var n atomic.Int64
	b.rig.Refuse(func(*http.Request) bool {
		if n.Add(1) != kill {
			return false
		}
		agent.Process.Kill()
		return true
	})
	b.must(agent.Start())
	agent.Wait()
	b.rig.Refuse(nil)
	return n.Load(), agent.ProcessState.ExitCode()
}

// TestServerKilledAtEveryRequest loses power at each request of an action. The next
// start does what is left to do. No disk boots half restored.
func TestServerKilledAtEveryRequest(t *testing.T) {
	step := testenv.Effort[int64](7, 1)
	for _, action := range []box.Action{box.Backup, box.Restore} {
		t.Run(string(action), func(t *testing.T) {
			killed := true
			for kill := int64(1); killed; kill += step {
				b := newServerBench(t)
				b.disk("vda", "S1", 1)
				good := b.read("dev/vda")
				if action == box.Restore {
					b.do(box.Backup, box.Done)
					b.wreck("vda")
				}
				before := b.read("dev/vda")
				cmd := b.arm(action, nil)
				n, code := b.process(cmd, kill)
				if killed = n >= kill; killed && code >= 0 || !killed && (code != box.ExitDone || kill < 8) {
					t.Fatalf("killed at request %d of %d, it ended with %d:\n%s", kill, n, code, b.console.String())
				}
				if now := b.read("dev/vda"); now != before && now != good && strings.Trim(now[:1<<20], "\x00") != "" {
					t.Fatalf("killed at request %d, the disk may boot", kill)
				}
				if killed && b.rig.Armed() { // otherwise its own disk starts
					if _, code = b.process(cmd, 0); code != box.ExitDone {
						t.Fatalf("killed at request %d, the next start ends with %d:\n%s", kill, code, b.console.String())
					}
				}
				j, backups := b.rig.Job(), len(b.rig.Records())
				if j.State != job.Ended || j.Outcome != box.Done || b.rig.Armed() || backups != 1 {
					t.Fatalf("killed at request %d: the job is %s, %q, armed %v, %d backups", kill, j.State, j.Outcome, b.rig.Armed(), backups)
				}
				if b.read("dev/vda") != good {
					t.Fatalf("killed at request %d, the disk is not what it was", kill)
				}
			}
		})
	}
}
