package proc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// The examples of contrib are used here as their schedulers use them. What calls them
// stands at the server's host, and knows the server by its URL and a token.
//
//	gitlab, groovy, pytest, labgrid ── contrib/* ── testbox ── HTTPS ──> testbox server
//	                                                                        ^
//	the box starts whenever it is armed: testbox-maintenance ───────────────┘

// contrib is the path of an example.
func contrib(name ...string) string {
	return filepath.Join(append([]string{testenv.Top(), "contrib"}, name...)...)
}

// scheduler is a user of a server with a token of an operator.
type scheduler struct {
	site       *serverSite
	env        []string
	key, token string
}

func (s *serverSite) scheduler() *scheduler {
	t := s.t
	t.Helper()
	const url = "https://" + serverIP + ":8443"
	home := tempDir(t)
	u := &scheduler{site: s, env: append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "XDG_STATE_HOME=", "TESTBOX_SERVER="+url,
		"PYTHONDONTWRITEBYTECODE=1", "PATH="+filepath.Dir(s.prog.testbox)+":"+contrib("shell")+":/usr/sbin:"+os.Getenv("PATH"))}
	key := regexp.MustCompile(`admins' key"=([0-9a-f]{64})`).FindStringSubmatch(s.said())
	if key == nil {
		t.Fatalf("the server does not say its key:\n%s", s.said())
	}
	out := strings.Fields(s.does(done, []string{"token", "add", "ci"}))
	u.key, u.token = key[1], out[len(out)-1]
	login := u.command(nil, "testbox", "login", url, "--key", u.key)
	login.Stdin = strings.NewReader(u.token + "\n")
	if said, err := login.CombinedOutput(); err != nil {
		t.Fatalf("log in: %v\n%s", err, said)
	}
	return u
}

// command makes a command of the scheduler.
func (u *scheduler) command(env []string, argv ...string) *exec.Cmd {
	argv = u.site.host.in(append([]string{"env"}, append(env, argv...)...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = u.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ends runs a command that must end with the code and print each of says.
func (u *scheduler) ends(t *testing.T, code int, env, argv []string, says ...string) {
	t.Helper()
	out, err := u.command(env, argv...).CombinedOutput()
	is := 0
	if exit, ok := err.(*exec.ExitError); ok {
		is = exit.ExitCode()
	} else {
		must(t, err)
	}
	if is != code {
		t.Fatalf("%q ended with %d instead of %d:\n%s\nthe server says\n%s", argv, is, code, out, u.site.said())
	}
	for _, want := range says {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("%q does not say %q:\n%s", argv, want, out)
		}
	}
}

// lives makes the box start as a machine does that somebody restarts whenever it is armed,
// and starts its own system when that is over. Nothing happens before ready says so.
func (b *servedBox) lives(ready func() bool) {
	b.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			if !b.armed() || !ready() {
				continue
			}
			b.boot()
			a := b.start()
			select {
			case <-a.ended:
			case <-ctx.Done():
				a.cmd.Process.Kill()
				return
			}
			if !b.armed() {
				if _, err := b.tftp("pxelinux.cfg/default"); err != nil {
					b.t.Errorf("%s does not start its own system: %v", b.addr, err)
				}
			}
		}
	})
	b.t.Cleanup(func() { stop(); running.Wait() })
}

func always() bool { return true }

// given checks that nobody has the box and that it has no job.
func (b *servedBox) given(t *testing.T) {
	t.Helper()
	b.site.until("the box is given back", serverLimit, func() bool {
		return !strings.Contains(b.site.does(done, []string{"box", "show", b.addr}), "holder:")
	})
	b.site.until("the box has no job", serverLimit, func() bool {
		return !strings.Contains(b.site.does(done, []string{"jobs"}), b.addr)
	})
}

// TestContrib: each example takes a box, which is then as it was, uses it, and gives it
// back. It takes no box that another run has, and fails then.
func TestContrib(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "bash", "curl", "groovy", "ping", "timeout", "/usr/bin/python3")
	s := newServerSite(t, "api = \":8443\"\n")
	u := s.scheduler()
	for n, test := range map[int]func(t *testing.T, u *scheduler, b *servedBox){
		11: contribShell, 12: contribGitLab, 13: contribJenkins, 14: contribPytest, 15: contribLabgrid,
	} {
		sda := disk("sda", scattered(uint64(n)))
		b := s.box(n, sda)
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b.act(done, "backup")
			want := sda.hash(t)
			sda.wreck(t)
			test(t, u, b)
			if sda.hash(t) != want {
				t.Error("the disk is not as it was")
			}
			b.given(t)
		})
	}
}

// taken lets another run of the same token have the box while do works.
func (u *scheduler) taken(t *testing.T, b *servedBox, do func()) {
	t.Helper()
	other := []string{"TESTBOX_RUN=other-run"}
	u.ends(t, 0, other, []string{"testbox", "box", "hold", b.addr})
	do()
	u.ends(t, 0, other, []string{"testbox", "box", "unhold", b.addr})
}

func contribShell(t *testing.T, u *scheduler, b *servedBox) {
	lease := func(more ...string) []string {
		return append([]string{"testbox-lease", "run", "--for", "10m", b.addr, "--"}, more...)
	}
	u.taken(t, b, func() { u.ends(t, 103, nil, lease("echo", "the test ran"), "other-run has reserved the box") })

	// A run is ended while its box waits to be restarted.
	cmd := u.command(nil, lease("echo", "the test ran")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	b.site.until("the box is armed", serverLimit, b.armed)
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 143 || strings.Contains(out.String(), "the test ran") {
		t.Errorf("a run that was ended: %v\n%s", cmd.ProcessState, &out)
	}
	b.given(t)

	b.lives(always)
	// While one run has the box, another with the same token gets none.
	inner := "testbox-lease run --for 1m " + b.addr + " -- echo the other ran; echo code $?; ping -c 1 $TESTBOX_BOX; exit 7"
	u.ends(t, 7, nil, lease("env", "-u", "TESTBOX_RUN", "sh", "-c", inner), "its own system is up", "code 103", "1 received")

	// The same without the command, as docs/schedulers.md says it.
	u.ends(t, 0, []string{"FINGERPRINT=" + u.key, "token=" + u.token}, []string{"bash", "-c",
		`key=sha256//$(echo $FINGERPRINT | tr a-f A-F | basenc --base16 --decode | base64)
		curl --insecure --pinnedpubkey "$key" -H "Authorization: Bearer $token" -H 'Testbox-Run: pipeline-17' -H 'Content-Type: application/json' \
		--fail-with-body -d '{"action": "restore", "targets": ["` + b.addr + `"], "waitUp": true, "key": "pipeline-17-restore"}' \
		'https://` + serverIP + `:8443/api/v1/jobs?wait=60'`}, `"state":"ended"`, `"outcome":"done"`, `"up":"yes"`, `"by":"token ci#pipeline-17"`)
}

func contribGitLab(t *testing.T, u *scheduler, b *servedBox) {
	const buildFails, systemFails = 41, 42
	dir := tempDir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o755))
		return path
	}
	env := []string{"BUILD_FAILURE_EXIT_CODE=41", "SYSTEM_FAILURE_EXIT_CODE=42", "BUILD_EXIT_CODE_FILE=" + filepath.Join(dir, "code"),
		"JOB_RESPONSE_FILE=" + file("response.json", `{"id": 4711, "token": "x"}`), "CUSTOM_ENV_CI_JOB_ID=1",
		// Its box has no ssh server, so the script runs where the test does.
		"TESTBOX_SSH=" + file("ssh", "#!/bin/sh\n[ \"$1\" != -q ] || exit 255\necho \"on $1\"\nshift\nexec \"$@\"\n")}
	stage := func(code int, script string, args []string, says ...string) {
		t.Helper()
		u.ends(t, code, env, append([]string{contrib("gitlab", script)}, args...), says...)
	}
	good, bad := file("good", "echo it works\n"), file("bad", "exit 3\n")
	stage(0, "config.sh", nil, `"builds_dir": "/tmp/builds"`)
	stage(systemFails, "run.sh", []string{good, "build_script"}, "this run has no box")
	u.taken(t, b, func() {
		stage(systemFails, "prepare.sh", []string{"--for", "10m", b.addr}, "other-run has reserved the box")
		stage(0, "cleanup.sh", nil)
	})
	b.lives(always)
	stage(0, "prepare.sh", []string{"--for", "10m", b.addr}, "The box is "+b.addr)
	if out := b.site.does(done, []string{"box", "show", b.addr}); !strings.Contains(out, "token ci#gitlab-4711 (GitLab job 4711) until") {
		t.Errorf("the box is held by another: %s", out)
	}
	stage(0, "run.sh", []string{good, "build_script"}, "on "+b.addr+"\nit works")
	stage(buildFails, "run.sh", []string{bad, "build_script"})
	if code, err := os.ReadFile(filepath.Join(dir, "code")); err != nil || string(code) != "3\n" {
		t.Errorf("the runner is told %q, %v", code, err)
	}
	env[len(env)-1] += " -q"
	stage(systemFails, "run.sh", []string{good, "build_script"}, "does not answer by ssh")
	stage(0, "cleanup.sh", nil)
	stage(0, "cleanup.sh", nil)
}

func contribJenkins(t *testing.T, u *scheduler, b *servedBox) {
	build := []string{"groovy", filepath.Join(testenv.Top(), "internal/e2e/proc/testdata/jenkins.groovy"),
		contrib("jenkins", "vars", "withTestbox.groovy"), `echo "with $TESTBOX_BOX"`, b.addr}
	b.lives(always)
	u.taken(t, b, func() {
		u.ends(t, 1, nil, build, "other-run has reserved", "the build failed: script returned exit code 103")
	})
	u.ends(t, 0, nil, build, "the body has "+b.addr, "may use it for 35[0-9][0-9] SECONDS", "with "+b.addr, "the build succeeded")
	build[3] = "exit 9"
	u.ends(t, 1, nil, build, "the body has", "the build failed: script returned exit code 9")
}

func contribPytest(t *testing.T, u *scheduler, b *servedBox) {
	tests := []string{"/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_testbox",
		contrib("pytest", "test_example.py")}
	env := []string{"PYTHONPATH=" + contrib("pytest")}
	u.ends(t, 1, env, tests, "these tests need a box", "2 errors")
	tests = append(tests, "--testbox", b.addr, "--testbox-for", "10m")
	b.lives(always)
	u.taken(t, b, func() {
		u.ends(t, 1, env, tests, "there is no box for these tests: testbox-lease ended with 103", "2 errors")
	})
	u.ends(t, 0, env, tests, "2 passed")
}

func contribLabgrid(t *testing.T, u *scheduler, b *servedBox) {
	dir := tempDir(t)
	text, err := os.ReadFile(contrib("labgrid", "env.yaml"))
	must(t, err)
	cycled := filepath.Join(dir, "cycled")
	// The box has no ssh server, and its power switch is a file.
	for re, with := range map[string]string{`testbox_strategy\.py`: contrib("labgrid", "testbox_strategy.py") + "\n  - labgrid.driver.fake", `SSHDriver`: "FakeCommandDriver",
		`box: web-1`: "box: " + b.addr, `wait: 30m`: "wait: 1s", `cmd_cycle: .*`: "cmd_cycle: touch " + cycled} {
		changed := regexp.MustCompile(re).ReplaceAllLiteral(text, []byte(with))
		if bytes.Equal(changed, text) {
			t.Fatalf("env.yaml has no %q", re)
		}
		text = changed
	}
	must(t, os.WriteFile(filepath.Join(dir, "env.yaml"), text, 0o644))
	tests := []string{"/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "--lg-env", filepath.Join(dir, "env.yaml"),
		contrib("labgrid", "test_example.py")}
	u.taken(t, b, func() { u.ends(t, 1, nil, tests, "testbox-lease ended with 103", "1 error") })
	b.lives(func() bool { _, err := os.Stat(cycled); return err == nil })
	u.ends(t, 0, nil, tests, "1 passed")
}

// TestContribHook: the receiver of contrib is told of each job, also of one that ended
// before a power cut of the server and while the receiver was off. It takes nothing that
// another has signed.
func TestContribHook(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tools(t, "/usr/bin/python3", "curl")
	dir := tempDir(t)
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte("whsec_"+strings.Repeat("c2Vj", 10)+"\n"), 0o600))
	const url = "http://" + serverIP + ":8099/"
	s := newServerSite(t, fmt.Sprintf("[[hooks]]\nurl = %q\nsecret-file = %q\n", url, secret))
	b := s.box(11, disk("sda", scattered(1)))
	first, _ := b.act(done, "refresh-info")
	s.until("the ended job was told of in vain", serverLimit, func() bool {
		text, err := os.ReadFile(filepath.Join(s.state, "hooks.json"))
		return err == nil && strings.Contains(string(text), url)
	})
	s.kill()
	s.start()

	inbox := filepath.Join(dir, "inbox")
	argv := s.host.in("/usr/bin/python3", contrib("hooks", "receive.py"), "--secret-file", secret, "--inbox", inbox,
		"--listen", serverIP+":8099", "--run", "grep -q job.ended")
	receiver := exec.Command(argv[0], argv[1:]...)
	var out, bad bytes.Buffer
	receiver.Stdout, receiver.Stderr = &out, &bad
	receiver.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, receiver.Start())
	ended := sync.OnceFunc(func() { receiver.Process.Kill(); receiver.Wait() })
	t.Cleanup(ended)
	kept := func(id string) bool {
		text, err := os.ReadFile(filepath.Join(inbox, "job-"+id+".json"))
		return err == nil && strings.Contains(string(text), `"outcome":"done"`)
	}
	s.until("the job of before the power cut is told of", 2*serverLimit, func() bool { return kept(first.ID) })
	second, _ := b.act(done, "refresh-info")
	s.until("the next job is told of", serverLimit, func() bool { return kept(second.ID) })

	now := fmt.Sprint(time.Now().Unix())
	for _, c := range []struct{ at, signature, body string }{
		{now, "v1,AAAA", "{}"}, {now, "", "{}"}, {"1", "v1,AAAA", "{}"}, {"x", "v1,AAAA", "{}"}, {now, "v2,AAAA", "{}"}, {now, "v1,AAAA", "x"},
	} {
		argv := s.host.in("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--data-binary", c.body,
			"-H", "webhook-id: job-x", "-H", "webhook-timestamp: "+c.at, "-H", "webhook-signature: "+c.signature, url)
		if code, err := exec.Command(argv[0], argv[1:]...).Output(); err != nil || len(code) != 3 || code[0] != '4' {
			t.Errorf("%q is answered by %q, %v", c, code, err)
		}
	}
	ended()
	files, err := os.ReadDir(inbox)
	must(t, err)
	if len(files) != 2 || strings.Count(out.String(), "10.88.0.11: refresh-info done\n") != 2 {
		t.Errorf("the receiver has %v, and said %q, %q", files, &out, &bad)
	}
}
