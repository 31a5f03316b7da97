package proc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// fakeTestbox stands for the command testbox: `box hold` ends with $HOLD, `restore` with the next
// word of $RESTORE, and all calls are in the file $CALLS.
const fakeTestbox = `#!/bin/bash
echo "$*" >>"$CALLS"
case "$1 $2" in
"box hold") echo "box: 10.0.0.7"; exit "${HOLD:-0}" ;;
"box unhold") exit "${UNHOLD:-0}" ;;
"box show") echo "holder: token ci#$TESTBOX_RUN until tomorrow" ;;
restore*)
	n=$(grep -c '^restore' "$CALLS")
	exit "$(echo "$RESTORE" | cut -d ' ' -f "$n")" ;;
esac
`

// beside makes a command that finds a fake testbox, and whose files are in a folder.
func beside(t *testing.T, env []string, argv ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	testenv.Tools(t, "bash", "timeout")
	dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "testbox"), []byte(fakeTestbox), 0o755))
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), "PATH="+dir+":"+contrib("shell")+":"+os.Getenv("PATH"), "CALLS="+filepath.Join(dir, "calls"),
		"TESTBOX_LEASES="+dir, "TESTBOX_RUN=run-1", "RESTORE=0"), env...)
	return cmd, dir
}

// lease runs testbox-lease beside a fake testbox, and returns its exit code, what it
// printed, and what it called.
func lease(t *testing.T, env []string, args ...string) (int, string, string) {
	t.Helper()
	cmd, dir := beside(t, env, append([]string{contrib("shell", "testbox-lease")}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	called, _ := os.ReadFile(filepath.Join(dir, "calls"))
	left, _ := os.ReadFile(filepath.Join(dir, "run-1"))
	if args[0] == "run" && (len(left) > 0) != strings.Contains(string(out), "tries again") {
		t.Errorf("a run left %q:\n%s", left, out)
	}
	return cmd.ProcessState.ExitCode(), string(out), string(called)
}

// TestLeaseCodes: whatever a restore ends with but 0, the command is not run, the exit code
// says so, and the box is given back.
func TestLeaseCodes(t *testing.T) {
	t.Parallel()
	for code := 1; code <= 20; code++ {
		if code == 9 {
			continue // it is asked again
		}
		is, out, calls := lease(t, []string{fmt.Sprintf("RESTORE=%d", code)}, "run", "web-1", "--", "echo", "the test ran")
		if is != 100+code || strings.Contains(out, "the test ran") || !strings.Contains(calls, "box unhold -- web-1") ||
			!strings.Contains(calls, "cancel --job-key run-1-") {
			t.Errorf("after %d it ends with %d:\n%s\n%s", code, is, out, calls)
		}
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	run := []string{"run", "--for", "90s", "web-1", "--", "sh", "-c", `echo "on $TESTBOX_BOX"; exit ${CODE:-0}`}
	for _, c := range []struct {
		env  []string
		args []string
		code int
		says string // of the output
		call string // of the calls
	}{
		{nil, run, 0, "on 10.0.0.7\n", "restore --wait=up --timeout 90s --job-key run-1-"},
		{nil, run, 0, "", "box hold --for 90s --why a run of "},
		{[]string{"CODE=5"}, run, 5, "on 10.0.0.7\n", "box unhold -- web-1"},
		{[]string{"RESTORE=9 0"}, run, 0, "on 10.0.0.7\n", ""}, // asked again with the same key
		{[]string{"HOLD=3"}, run, 103, "no box is free: web-1", ""},
		{[]string{"HOLD=2"}, run, 102, "the command was not run", ""},
		{[]string{"UNHOLD=1"}, run, 0, "could not be given back", ""},
		{[]string{"UNHOLD=3"}, run, 0, "on 10.0.0.7\n", ""},
		{nil, []string{"run", "--for", "22s", "web-1", "--", "sleep", "60"}, 124, "", "box unhold"},
		{nil, []string{"run", "--image", "a'b c", "web-1", "--", "true"}, 0, "", "--image a'b c -- 10.0.0.7\n"},
		{nil, []string{"take", "web-1", "web-2"}, 0, "10.0.0.7\n", ""},
		{[]string{"RESTORE=10"}, []string{"take", "web-1"}, 110, "no box was taken", "box unhold -- web-1"},
		{nil, []string{"give"}, 0, "", ""},
		{nil, []string{"box"}, 103, "this run has no box", ""},
		{nil, []string{"--help"}, 0, "TESTBOX_RUN", ""},
		{nil, nil, 102, "say run, take", ""},
		{nil, []string{"run", "web-1"}, 102, "say the command", ""},
		{nil, []string{"run", "--", "true"}, 102, "name a box", ""},
		{nil, []string{"run", "", "--", "true"}, 102, "is empty", ""},
		{nil, []string{"run", "--image", "", "web-1", "--", "true"}, 102, "--image is empty", ""},
		{nil, []string{"run", "--for", "4d", "web-1", "--", "true"}, 102, "--for wants a time", ""},
		{nil, []string{"run", "--for", "0s", "web-1", "--", "true"}, 102, "--for wants a time", ""},
		{nil, []string{"take", "--wait"}, 102, "--wait wants a time", ""},
		{nil, []string{"take", "--all", "web-1"}, 102, "no option --all", ""},
		{[]string{"TESTBOX_RUN="}, []string{"take", "web-1"}, 102, "TESTBOX_RUN must be", ""},
		{[]string{"TESTBOX_RUN=../x"}, run, 102, "TESTBOX_RUN must be", ""},
	} {
		if c.code == 124 && !testenv.All() {
			t.Log("the end of a box's time takes 7 seconds; `make test` as root waits for it")
			continue
		}
		args := c.args
		if len(args) == 0 {
			args = []string{""}
		}
		code, out, calls := lease(t, c.env, args...)
		if code != c.code || !strings.Contains(out, c.says) || !strings.Contains(calls, c.call) {
			t.Errorf("%q, %q: %d, %q; it called\n%s", c.env, c.args, code, out, calls)
		}
		if strings.Contains(fmt.Sprint(c.env), "9 0") {
			keys := regexp.MustCompile(`restore .*--job-key (\S+)`).FindAllStringSubmatch(calls, -1)
			if len(keys) != 2 || keys[0][1] != keys[1][1] {
				t.Errorf("a server that was away was asked with the keys %q", keys)
			}
		}
	}
}

// TestContribShell: shellcheck has nothing to say about the scripts of contrib.
func TestContribShell(t *testing.T) {
	t.Parallel()
	testenv.Tools(t, "shellcheck")
	scripts, err := filepath.Glob(contrib("*", "*.sh"))
	must(t, err)
	cmd := exec.Command("shellcheck", append(scripts, "--external-sources", contrib("shell", "testbox-lease"))...)
	cmd.Dir = testenv.Top()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || len(scripts) < 4 {
		t.Errorf("%v, %q\n%s", err, scripts, &out)
	}
}

// TestContribPytestEnds: a session that gets SIGTERM, or whose time is over, ends in the
// middle of a test, and gives its box back.
func TestContribPytestEnds(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	const interrupted = 2
	for what, span := range map[string]string{"SIGTERM": "1h", "its time is over": "25s"} {
		cmd, dir := beside(t, []string{"PYTHONPATH=" + contrib("pytest"), "PYTHONDONTWRITEBYTECODE=1"}, "/usr/bin/python3", "-m", "pytest",
			"-p", "no:cacheprovider", "-p", "pytest_testbox", "--testbox", "web-1", "--testbox-for", span, "test_long.py")
		cmd.Dir = dir
		must(t, os.WriteFile(filepath.Join(dir, "test_long.py"), []byte(
			"import time\ndef test_long(testbox):\n    open('began', 'w').close()\n    time.sleep(600)\n"), 0o644))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill() })
		for end := time.Now().Add(time.Minute); what == "SIGTERM"; time.Sleep(50 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "began")); err == nil {
				must(t, cmd.Process.Signal(syscall.SIGTERM))
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the test does not begin:\n%s", &out)
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s, and the session goes on", what)
		}
		calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
		if cmd.ProcessState.ExitCode() != interrupted || !strings.Contains(string(calls), "box unhold -- web-1") {
			t.Errorf("%s: %v\n%s\n%s", what, cmd.ProcessState, &out, calls)
		}
	}
}
