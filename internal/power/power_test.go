package power

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/testenv"
)

var someBox = Facts{
	Address: "10.40.41.42", Name: "web-2", UUID: "aaaaaaaa-0000-0000-0000-000000000001",
	MACs:   []string{"52:54:00:12:34:56", "52:54:00:12:34:57"},
	Labels: []string{"ssd", "bmc=10.40.99.42", "outlet=3"},
}

func parsed(t testing.TB, spec Spec) *Power {
	t.Helper()
	p, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// script is a command that runs a script of a file, with facts as its words.
func script(t testing.TB, text, words string) Spec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Spec{Command: "sh " + file + " " + words}
}

// nothingLeft fails if this process has children, or more goroutines or other descriptors than before.
func nothingLeft(t *testing.T) {
	t.Helper()
	count := func() (goroutines int, others string) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		var kids []byte
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			kids = append(kids, b...)
		}
		return runtime.NumGoroutine(), fmt.Sprintf("%d descriptors, children %q", len(fds), kids)
	}
	exec.Command("true").Run() // what the runtime opens once is open now
	before, others := count()
	t.Cleanup(func() {
		after, now := count()
		for i := 0; i < 50 && (after > before || now != others); i++ {
			time.Sleep(20 * time.Millisecond)
			after, now = count()
		}
		if after > before || now != others {
			t.Errorf("before: %d goroutines, %s; after: %d goroutines, %s", before, others, after, now)
		}
	})
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{`a b	c`, []string{"a", "b", "c"}},
		{"  a \n b ", []string{"a", "b"}},
		{`a 'b c' "d e" f\ g`, []string{"a", "b c", "d e", "f g"}},
		{`a '' ""`, []string{"a", "", ""}},
		{`a 'b'"c"d`, []string{"a", "bcd"}},
		{`a '$(x) | \ ~ #' "\"\\\$x\n"`, []string{"a", `$(x) | \ ~ #`, `"\$x\n`}},
		{`a b#c b~c \~ \# x=1`, []string{"a", "b#c", "b~c", "~", "#", "x=1"}},
		{`a -H{address}:80 {{x}} '{{"a":"{name}"}}'`, []string{"a", "-H{address}:80", "{x}", `{"a":"{name}"}`}},
		{`a {label:bmc.x-1_y}`, []string{"a", "{label:bmc.x-1_y}"}},
		{`a ä"ö ü"`, []string{"a", "äö ü"}},
		{"a 'b\n\tc'", []string{"a", "b\n\tc"}},
	} {
		words, err := split(c.line)
		var got []string
		for _, w := range words {
			got = append(got, w.String())
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.line, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{}, "it is empty"},
		{Spec{Command: " \t\n"}, "it is empty"},
		{Spec{Command: "''"}, "its program is empty"},
		{Spec{Command: "a 'b"}, `the quote ' in the word "b" is not closed`},
		{Spec{Command: `a "b`}, `the quote " in the word "b" is not closed`},
		{Spec{Command: `a b\`}, "backslash with nothing behind"},
		{Spec{Command: "a b\\\nc"}, "backslash with nothing behind"},
		{Spec{Command: "a && b"}, `'&' in the word "&&"`},
		{Spec{Command: "a b;c d"}, `';' in the word "b;c"`},
		{Spec{Command: "a >b"}, `'>' in the word ">b"`},
		{Spec{Command: "a $HOME"}, `'$' in the word "$HOME"`},
		{Spec{Command: `a "$HOME/x y"`}, `'$' in the word "$HOME/x"`},
		{Spec{Command: "a `b`"}, "no shell is there"},
		{Spec{Command: "a http://x/?a=1&b=2"}, `'&' in the word "http://x/?a=1&b=2"`},
		{Spec{Command: "a ~/key"}, `the word "~/key" begins with '~'`},
		{Spec{Command: "a b # c"}, `the word "#" begins with '#'`},
		{Spec{Command: "a {adress}"}, `has {adress}, and known are {address}`},
		{Spec{Command: "a x{address"}, `the word "x{address" has {address}, and known are`},
		{Spec{Command: "a {}"}, "known are"},
		{Spec{Command: "a {label:}"}, "known are"},
		{Spec{Command: "a {address }"}, "known are"},
		{Spec{Command: "a b}"}, `the word "b}" has a } without {`},
		{Spec{Command: "a b\x07"}, "cannot be printed"},
		{Spec{Command: "a 'b\x00'"}, "cannot be printed"},
		{Spec{Command: "a \xff"}, "UTF-8"},
		{Spec{Command: strings.Repeat("a ", 65)}, "65 words"},
		{Spec{Command: strings.Repeat("a", 4097)}, "4097 bytes"},
		{Spec{Command: "{name} x"}, `the program "{name}" depends on the box`},
		{Spec{Command: "-x y"}, `begins with "-"`},
		{Spec{Command: "./x y"}, `"./x" is no whole path`},
		{Spec{Command: "A=1 x"}, "variables of the environment"},
		{Spec{Command: "sh -c 'reboot {name}'"}, `the word "reboot {name}" is a script of a shell`},
		{Spec{Command: "sudo /bin/bash -ec '{name}'"}, "is a script of a shell"},
		{Spec{Command: "sh -o errexit -c -x '{name}'"}, "is a script of a shell"},
		{Spec{Command: "sh -c -o errexit '{name}'"}, "is a script of a shell"},
		{Spec{Command: "busybox sh -c '{name}'"}, "is a script of a shell"},
		{Spec{Command: "su root -c '{name}'"}, "is a script of a shell"},
		{Spec{Command: "su root -c'reboot {name}'"}, "has a script of a shell"},
		{Spec{Command: "su --command='reboot {name}' root"}, "has a script of a shell"},
		{Spec{Command: "x {action}", Actions: map[Action]string{"reset": "x"}}, `"reset" is no action`},
		{Spec{Command: "x {action}", Actions: map[Action]string{On: ""}}, "no word in the power command"},
		{Spec{Command: "x {action}", Actions: map[Action]string{On: "a\n"}}, "cannot be printed"},
		{Spec{Command: "x", Actions: map[Action]string{On: "1"}}, "{action} is not in the power command"},
		{Spec{Command: "x", Actions: map[Action]string{On: "", Off: ""}}, "the same for all"},
		{Spec{Command: "x", Template: "wake"}, "leave one of them out"},
		{Spec{Template: "redfish"}, "there are ipmitool, ssh-reboot, wake"},
		{Spec{Command: "x", Broadcast: "10.0.0.255"}, `for the power template "wake" alone`},
		{Spec{Command: "x", PasswordFile: "/x"}, `for the power template "wake" alone`},
		{Spec{Template: "wake", Broadcast: "lab"}, "is no broadcast address"},
		{Spec{Template: "wake", Broadcast: "ff02::1"}, "is no IPv4 address"},
		{Spec{Template: "wake", Broadcast: "10.0.0.255:0"}, "is no IPv4 address"},
		{Spec{Template: "wake", PasswordFile: "x"}, "is no whole path"},
		{Spec{Template: "wake", Env: map[string]string{"A": ""}}, "has no variables"},
		{Spec{Command: "x", Timeout: time.Millisecond}, "from 1s to 10m"},
		{Spec{Command: "x", Timeout: time.Hour}, "from 1s to 10m"},
		{Spec{Command: "x", Env: map[string]string{"A B": ""}}, "name of a variable"},
		{Spec{Command: "x", Env: map[string]string{"A": "\x00"}}, "variable A"},
		{Spec{Command: "x", EnvFiles: map[string]string{"A=": "/x"}}, "name of a variable"},
		{Spec{Command: "x", EnvFiles: map[string]string{"A": "x"}}, "is no whole path"},
		{Spec{Command: "x", Env: map[string]string{"A": ""}, EnvFiles: map[string]string{"A": "/x"}}, "leave one of them out"},
	} {
		_, err := Parse(c.spec)
		var wrong *problem.Error
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &wrong) || wrong.Kind != problem.Wrong {
			t.Errorf("%+v: %v, want %q", c.spec, err, c.want)
		} else if len(err.Error()) > 500 {
			t.Errorf("%+v: the error has %d characters", c.spec, len(err.Error()))
		}
	}
}

// TestExamples: the templates, and the examples of the documentation, become these words.
func TestExamples(t *testing.T) {
	apc := map[Action]string{On: "1", Off: "2", Cycle: "3"}
	for _, c := range []struct {
		spec   Spec
		can    []Action
		action Action
		words  string // with | between
	}{
		{Spec{Template: "ipmitool"}, allActions, Cycle,
			"ipmitool|-I|lanplus|-L|OPERATOR|-H|10.40.99.42|-U|testbox|-f|/etc/testbox/ipmi.secret|chassis|power|cycle"},
		{Spec{Template: "ssh-reboot"}, []Action{Cycle}, Cycle, "ssh|-F|/dev/null|-i|/etc/testbox/power_key|-o|IdentitiesOnly=yes|" +
			"-o|BatchMode=yes|-o|ConnectTimeout=10|-o|StrictHostKeyChecking=no|-o|UserKnownHostsFile=/dev/null|-o|LogLevel=ERROR|" +
			"-o|ControlPath=none|root@10.40.41.42|(sleep 2; reboot) </dev/null >/dev/null 2>&1 &"},
		{Spec{Command: "snmpset -v 3 10.40.99.1 1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.{label:outlet} i {action}", Actions: apc,
			Env: map[string]string{"SNMPCONFPATH": "/etc/testbox/snmp"}}, allActions, Cycle,
			"snmpset|-v|3|10.40.99.1|1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.3|i|3"},
		{Spec{Command: "curl -fsS -m 20 --netrc-file /etc/testbox/pdu.netrc 'http://10.40.99.1/relay/{label:outlet}?turn={action}&timer=5'",
			Actions: map[Action]string{On: "on", Off: "off"}}, allActions, On,
			"curl|-fsS|-m|20|--netrc-file|/etc/testbox/pdu.netrc|http://10.40.99.1/relay/3?turn=on&timer=5"},
		{Spec{Command: "x {mac} {uuid} {name}", Actions: map[Action]string{On: ""}}, []Action{On}, On,
			"x|52:54:00:12:34:56|aaaaaaaa-0000-0000-0000-000000000001|web-2"},
		{Spec{Command: "x {action} -{action}", Actions: map[Action]string{Off: "--off"}}, []Action{Off}, Off, "x|--off|---off"},
		{Spec{Command: `sh -c 'echo "$1"' sh {name}`}, []Action{Cycle}, Cycle, `sh|-c|echo "$1"|sh|web-2`},
	} {
		p := parsed(t, c.spec)
		got, err := p.args(c.action, someBox)
		if err != nil || strings.Join(got, "|") != c.words {
			t.Errorf("%+v: %q, %v", c.spec, strings.Join(got, "|"), err)
		}
		for _, a := range allActions {
			if p.Can(a) != slices.Contains(c.can, a) {
				t.Errorf("%+v: it can do %s: %v", c.spec, a, p.Can(a))
			}
		}
	}
	for _, name := range Templates() {
		if p := parsed(t, Spec{Template: name}); p.String() != name {
			t.Errorf("%s calls itself %s", name, p)
		}
	}
	if p := parsed(t, Spec{Template: wake}); !p.Can(On) || p.Can(Off) || p.Can(Cycle) {
		t.Error("waking is On, and nothing else")
	}
}

// TestFacts: a fact stays within its word, whatever it is.
func TestFacts(t *testing.T) {
	show := "for w in \"$@\"; do printf '<%s>' \"$w\"; done"
	for _, c := range []struct {
		label, words, want, refused string
	}{
		{label: "two words", words: "{label:x}", want: "<two words>"},
		{label: `'a' "b" \c`, words: "{label:x}", want: `<'a' "b" \c>`},
		{label: "$(touch /tmp/x) `id` $HOME", words: "a{label:x}b", want: "<a$(touch /tmp/x) `id` $HOMEb>"},
		{label: "; reboot | x > y & * ?", words: "{label:x} z", want: "<; reboot | x > y & * ?><z>"},
		{label: "{name} {{", words: "{label:x}", want: "<{name} {{>"},
		{label: "-x", words: "a{label:x} b", want: "<a-x><b>"},
		{label: "-x", words: "{label:x}", refused: "would be an option"},
		{label: "-x", words: "''{label:x}z", refused: "would be an option"},
		{label: "--x=y", words: "{label:x}z", refused: "would be an option"},
		{label: "a\nb", words: "{label:x}", refused: "cannot be printed"},
		{label: "a\x00b", words: "{label:x}", refused: "cannot be printed"},
		{label: "a\u202eb", words: "{label:x}", refused: "cannot be printed"},
		{label: "a\xff", words: "{label:x}", refused: "cannot be printed"},
		{label: "", words: "a{label:x}", refused: "no label x="},
		{label: strings.Repeat("a", 254), words: "{label:x}", refused: "254 bytes"},
		{label: "1", words: "{label:y}", refused: "no label y="},
	} {
		p := parsed(t, script(t, show, c.words))
		res, err := New(1).Do(t.Context(), p, Cycle, Facts{Labels: []string{"xx=1", "x=" + c.label, "y"}}, nil)
		var refused *problem.Error
		switch {
		case c.refused == "":
			if err != nil || res.Output != c.want || res.Reason != Done {
				t.Errorf("%q in %s: %+v, %v", c.label, c.words, res, err)
			}
		case !errors.As(err, &refused) || res.Reason != Refused || res.Again() || !strings.Contains(err.Error(), c.refused):
			t.Errorf("%q in %s: %+v, %v", c.label, c.words, res, err)
		}
	}
	// Programs that make more of their words get plain facts only.
	for _, command := range []string{"ssh root@x reboot {label:x}", "timeout 9 /usr/bin/ssh x {label:x}", "curl http://x/{label:x}"} {
		p := parsed(t, Spec{Command: command})
		for label, ok := range map[string]bool{"a": true, "10.0.0.1:80": true, "$(x)": false, "a b": false, "a&b": false, "a/b": false} {
			if _, err := p.args(Cycle, Facts{Labels: []string{"x=" + label}}); (err == nil) != ok {
				t.Errorf("%s with %q: %v", command, label, err)
			}
		}
	}
	for _, c := range []struct {
		command string
		f       Facts
		want    string
	}{
		{"x {name}", Facts{}, "nothing is known of the name"},
		{"x {mac}", Facts{}, "nothing is known of the mac"},
		{"x {uuid}", Facts{}, "nothing is known of the uuid"},
		{"x {address}", Facts{}, "nothing is known of the address"},
		{"x {label:x}", Facts{Labels: []string{"x=1", "x=2"}}, "several labels x="},
	} {
		_, err := New(1).Do(t.Context(), parsed(t, Spec{Command: c.command}), Cycle, c.f, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.command, err)
		}
	}
	res, err := New(1).Do(t.Context(), parsed(t, Spec{Command: "true"}), Off, someBox, nil)
	if res.Reason != Refused || err == nil || !strings.Contains(err.Error(), `true cannot do "off"`) {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestRuns(t *testing.T) {
	nothingLeft(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3 cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OF_THE_SERVER", "1")
	for _, c := range []struct {
		what, text string
		spec       Spec
		code       int
		output     string
		err        string
	}{
		{what: "works", text: "echo yes; echo no >&2; pwd", output: "yes\nno\n/"},
		{what: "has no input", text: "cat", output: ""},
		{what: "has no terminal", text: "(exec </dev/tty) 2>/dev/null || echo none", output: "none"},
		{what: "has a clean environment", text: "env | sort",
			spec:   Spec{Env: map[string]string{"B": "x y", "LC_ALL": "de_DE"}, EnvFiles: map[string]string{"A": secret}},
			output: "A=s3 cret\nB=x y\nLC_ALL=de_DE\nPATH=" + strings.Join(binaries, ":") + "\nPWD=/"},
		{what: "fails", text: "echo one; echo two; echo; exit 7", code: 7, output: "one\ntwo",
			err: "the power command sh failed with exit code 7; it said: two"},
		{what: "fails silently", text: "exit 1", code: 1, err: "the power command sh failed with exit code 1"},
		{what: "is killed", text: "kill -SEGV $$", code: -1, err: "the power command sh failed: signal: segmentation fault"},
		{what: "writes what cannot be printed", text: `printf 'a\r\nb\tc\033[31md\007\377\0e\342\200\256f\rg'`,
			output: "a\nb c?[31md???e?f\ng"},
		{what: "closes its streams and lives on", text: "exec >&- 2>&- <&-; sleep 0.3; exit 3", code: 3,
			err: "the power command sh failed with exit code 3"},
	} {
		spec := script(t, c.text, "")
		spec.Env, spec.EnvFiles = c.spec.Env, c.spec.EnvFiles
		p := parsed(t, spec)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if res.Code != c.code || res.Output != c.output || said != c.err || (res.Reason == Done) != (err == nil) || res.Again() != (err != nil) {
			t.Errorf("%s: %+v, %v", c.what, res, err)
		}
	}
}

// alive reports whether a process lives whose number is in a file.
func alive(t *testing.T, file string) bool {
	t.Helper()
	var text []byte
	for range 100 {
		text, _ = os.ReadFile(file)
		if strings.HasSuffix(string(text), "\n") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// TestHangs: what hangs is killed with all that it has started, and nothing is waited for that
// holds its output.
func TestHangs(t *testing.T) {
	testenv.Long(t, "5 seconds")
	for _, c := range []struct {
		what, text string
		reason     Reason
	}{
		{what: "hangs", text: "sleep 60 & echo $! >$1; sleep 61", reason: TimedOut},
		{what: "hangs and ignores what asks it to end", text: "trap '' TERM; sleep 60 & echo $! >$1; while :; do sleep 1; done",
			reason: TimedOut},
		{what: "hangs without streams", text: "sleep 60 >/dev/null 2>&1 & echo $! >$1; exec >&- 2>&-; sleep 61", reason: TimedOut},
		{what: "is stopped in its tracks", text: "sleep 60 & echo $! >$1; kill -STOP $$", reason: TimedOut},
		{what: "ends, and leaves a child with its output", text: "sleep 60 & echo $! >$1", reason: Done},
		{what: "ends when it is asked", text: "trap 'exit 0' TERM; sleep 60 & echo $! >$1; wait", reason: TimedOut},
		{what: "ends, and leaves a child of another group", text: "timeout 61 sleep 60 & echo $! >$1; sleep 0.2", reason: Done},
		{what: "hangs in another group", text: "timeout 61 sh -c 'trap \"\" TERM; echo $$ >'$1'; sleep 60; sleep 60'", reason: TimedOut},
		{what: "floods", text: "sleep 60 & echo $! >$1; yes", reason: TimedOut},
	} {
		t.Run(c.what, func(t *testing.T) {
			nothingLeft(t)
			file := filepath.Join(t.TempDir(), "pid")
			p, r := parsed(t, script(t, c.text, file)), New(1)
			p.timeout, r.grace = 400*time.Millisecond, time.Second
			begun := time.Now()
			res, err := r.Do(t.Context(), p, Cycle, someBox, nil)
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if res.Reason != c.reason || res.Again() != (c.reason == TimedOut) || (err == nil) != (c.reason == Done) {
				t.Errorf("%+v, %v", res.Reason, err)
			}
			if err != nil && !strings.Contains(err.Error(), "the power command sh did not end within 400ms") {
				t.Error(err)
			}
			if alive(t, file) {
				t.Error("a child lives on")
			}
			if len(res.Output) > MaxOutput+100 {
				t.Errorf("%d bytes of output are kept", len(res.Output))
			}
		})
	}
}

// TestEscaped: a process that has left the session is not killed, and nobody waits for it although it has the
// output, and fills it.
func TestEscaped(t *testing.T) {
	nothingLeft(t)
	file := filepath.Join(t.TempDir(), "pid")
	begun := time.Now()
	p := parsed(t, script(t, "setsid sh -c 'echo $$ >'$1'; exec yes' & while ! [ -s $1 ]; do sleep 0.02; done; sleep 0.1; exit 5", file))
	res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil)
	if res.Code != 5 || res.Reason != Failed || time.Since(begun) > 30*time.Second || res.LeftOut == 0 {
		t.Errorf("%v, %d, %d, %v", res.Reason, res.Code, res.LeftOut, err)
	}
	if alive(t, file) { // it cannot write any more
		t.Error("it goes on")
	}
}

func TestOutputIsBounded(t *testing.T) {
	nothingLeft(t)
	p := parsed(t, script(t, "echo first; i=0; while [ $i -lt 40 ]; do printf %10000d $i; i=$((i+1)); done; echo; echo last", ""))
	res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil)
	if err != nil || !strings.HasPrefix(res.Output, "first\n") || !strings.HasSuffix(res.Output, "\nlast") || len(res.Output) > MaxOutput+50 {
		t.Errorf("%d bytes, %.20q to %q, %v", len(res.Output), res.Output, res.Output[max(0, len(res.Output)-10):], err)
	}
	if want := int64(40*10000+len("first\n\nlast\n")) - MaxOutput; res.LeftOut != want ||
		!strings.Contains(res.Output, fmt.Sprintf("\n[%d bytes are left out]\n", want)) {
		t.Errorf("%d bytes are left out, and not %d", res.LeftOut, want)
	}
	// Where the parts join, no byte is lost.
	for _, size := range []int{keptHead - 1, keptHead, keptHead + 1, MaxOutput - 1, MaxOutput, MaxOutput + 1, MaxOutput + keptHead} {
		o, text := &output{}, strings.Repeat("0123456789", size/10+1)[:size]
		for i := 0; i < size; i += 777 {
			o.add([]byte(text[i:min(i+777, size)]))
		}
		got := o.text()
		if size <= MaxOutput && (got != text || o.left != 0) {
			t.Errorf("of %d bytes %d are kept", size, len(got))
		}
		if size > MaxOutput && (!strings.HasPrefix(got, text[:keptHead]+"\n[") || !strings.HasSuffix(got, "]\n"+text[size-MaxOutput+keptHead:]) ||
			o.left != int64(size-MaxOutput)) {
			t.Errorf("of %d bytes %d are kept, and %d left out", size, len(got), o.left)
		}
	}
}

func TestStopped(t *testing.T) {
	nothingLeft(t)
	r := New(1)
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			if b, _ := os.ReadFile(file); strings.HasSuffix(string(b), "\n") {
				cancel(errors.New("the server ends"))
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	p := parsed(t, script(t, "echo begun; sleep 60 & echo $! >$1; wait", file))
	res, err := r.Do(ctx, p, Cycle, someBox, nil)
	const want = "the power command sh was stopped: the server ends; it said: begun"
	if res.Reason != Stopped || res.Again() || err == nil || err.Error() != want {
		t.Errorf("%+v, %v", res, err)
	}
	if alive(t, file) {
		t.Error("a child lives on")
	}
	os.Remove(file)
	res, err = r.Do(ctx, p, Cycle, someBox, nil)
	if res.Reason != Stopped || err == nil || !strings.Contains(err.Error(), "was not started") {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was started after the end")
	}
}

// TestOffAndOn: where one command cannot do Cycle, two do. Once a box is off it is switched on, also if the server ends.
func TestOffAndOn(t *testing.T) {
	nothingLeft(t)
	dir := t.TempDir()
	did := filepath.Join(dir, "did")
	spec := script(t, `echo $1 now; echo $1 >>$3; test ! -e $2/$1`, "{action} "+dir+" "+did)
	spec.Actions = map[Action]string{On: "1", Off: "0"}
	p, r := parsed(t, spec), New(1)
	r.off = 200 * time.Millisecond
	log := func() string {
		b, _ := os.ReadFile(did)
		os.Remove(did)
		return strings.ReplaceAll(string(b), "\n", " ")
	}
	res, err := r.Do(t.Context(), p, Cycle, someBox, nil)
	if got := log(); err != nil || res.Reason != Done || got != "0 1 " || res.Output != "0 now\n1 now" {
		t.Errorf("%q, %+v, %v", got, res, err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "1"), nil, 0o600))
	res, err = r.Do(t.Context(), p, Cycle, someBox, nil)
	const want = "it is off, and was not switched on again: the power command sh failed with exit code 1; it said: 1 now"
	if got := log(); err == nil || err.Error() != want || !res.Again() || got != "0 1 " {
		t.Errorf("%q, %+v, %v", got, res, err)
	}
	must(os.Remove(filepath.Join(dir, "1")))
	must(os.WriteFile(filepath.Join(dir, "0"), nil, 0o600))
	res, err = r.Do(t.Context(), p, Cycle, someBox, nil)
	if got := log(); got != "0 " || err == nil || !strings.HasPrefix(err.Error(), "switch it off: the power command sh") || !res.Again() {
		t.Errorf("%q, %+v, %v", got, res, err)
	}
	must(os.Remove(filepath.Join(dir, "0")))
	r.off = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for b, _ := os.ReadFile(did); len(b) == 0; b, _ = os.ReadFile(did) {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second) // Off has ended by then
		cancel()
	}()
	res, err = r.Do(ctx, p, Cycle, someBox, nil)
	if got := log(); err != nil || res.Reason != Done || got != "0 1 " {
		t.Errorf("while the server ends: %q, %+v, %v", got, res, err)
	}
}

func TestFactsOf(t *testing.T) {
	for line, want := range map[string]string{"x": "", "x {action}": "", "x {name} -{label:b}{label:a} {name}": "label:a label:b name"} {
		if got := strings.Join(parsed(t, Spec{Command: line}).Facts(), " "); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// TestManyAtOnce: no more commands run at once than may, and all of them run.
func TestManyAtOnce(t *testing.T) {
	nothingLeft(t)
	dir := t.TempDir()
	p := parsed(t, script(t, "mkdir $1/$$ && ls $1 | wc -l; sleep 0.05; rmdir $1/$$", dir))
	r := New(4)
	var most, done atomic.Int64
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			res, err := r.Do(t.Context(), p, Cycle, someBox, nil)
			n, _ := strconv.ParseInt(res.Output, 10, 64)
			if err != nil || n < 1 {
				t.Errorf("%+v, %v", res, err)
			}
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			done.Add(1)
		})
	}
	all.Wait()
	if most.Load() > 4 || done.Load() != 40 {
		t.Errorf("%d ran at once, and %d in all", most.Load(), done.Load())
	}
}

// TestHangsInKernel: a command that cannot be killed is told of, and keeps its slot until it ends.
func TestHangsInKernel(t *testing.T) {
	nothingLeft(t)
	r := New(1)
	free := make(chan struct{})
	r.await = func(pid int) error { <-free; return await(pid) }
	p := parsed(t, script(t, "echo begun; exec sleep 60", ""))
	p.timeout, r.grace, r.stuck = 400*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	res, err := r.Do(t.Context(), p, Cycle, someBox, nil)
	want := "the power command sh did not end within 400ms, and hangs in the kernel although it was killed; it said: begun"
	if res.Reason != TimedOut || res.Code != -1 || err == nil || err.Error() != want {
		t.Errorf("%+v, %v", res, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	res, err = r.Do(ctx, parsed(t, Spec{Command: "true"}), Cycle, someBox, nil)
	if res.Reason != Stopped || !strings.Contains(err.Error(), "was not started") {
		t.Errorf("it does not keep its slot: %+v, %v", res, err)
	}
	close(free)
	if res, err := r.Do(t.Context(), parsed(t, Spec{Command: "true"}), Cycle, someBox, nil); err != nil {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(path string) Spec { return Spec{Command: "true", EnvFiles: map[string]string{"A": path}} }
	wakes := func(path string) Spec { return Spec{Template: wake, PasswordFile: path} }
	for _, c := range []struct {
		spec Spec
		want string // "" is right
	}{
		{Spec{Command: "true"}, ""},
		{Spec{Command: "/bin/true"}, ""},
		{Spec{Command: "no-such-program"}, "there is no program no-such-program in /usr/local/sbin:"},
		{Spec{Command: "/no/such/program"}, "there is no program /no/such/program"},
		{Spec{Command: write("plain", "x", 0o644)}, "that can be run"},
		{Spec{Command: dir}, "that can be run"},
		{env(write("good", "x\r\n", 0o640)), ""},
		{env(write("open", "x", 0o644)), "chmod o= "},
		{env(write("empty", "\n", 0o600)), "not one line"},
		{env(write("lines", "a\nb\n", 0o600)), "not one line"},
		{env(write("long", strings.Repeat("a", 5000), 0o600)), "not one line"},
		{env(dir + "/missing"), "no such file"},
		{env(fifo), "is no file"},
		{env(dir), "is no file"},
		{wakes(write("hex", "00:11:22:aa:BB:ff\n", 0o600)), ""},
		{wakes(write("four", "1.2.3.4\n", 0o600)), ""},
		{wakes(write("bad", "secret\n", 0o600)), "no SecureOn password"},
		{wakes(write("short", "00:11:22:aa:BB\n", 0o600)), "no SecureOn password"},
		{wakes(""), ""},
	} {
		p := parsed(t, c.spec)
		err := p.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.spec, err, c.want)
		}
		if c.want == "" || c.spec.Template == wake {
			continue
		}
		if res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil); res.Reason != Refused || err == nil {
			t.Errorf("%+v: it is done: %+v, %v", c.spec, res, err)
		}
	}
	// A file that looks like a program and is none.
	p := parsed(t, Spec{Command: write("none", "\x00\x01", 0o755)})
	if res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil); res.Reason != NotStarted || !res.Again() || err == nil ||
		!strings.Contains(err.Error(), "could not be started") {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestWake(t *testing.T) {
	nothingLeft(t)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file := filepath.Join(t.TempDir(), "secureon")
	if err := os.WriteFile(file, []byte("00:11:22:33:44:55\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := parsed(t, Spec{Template: wake, Broadcast: conn.LocalAddr().String(), PasswordFile: file})
	res, err := New(1).Do(t.Context(), p, On, someBox, nil)
	if err != nil || res.Reason != Done {
		t.Fatalf("%+v, %v", res, err)
	}
	got := map[string]int{}
	buf := make([]byte, 2000)
	for range 6 {
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprintf("%x", buf[:n])]++
	}
	for _, mac := range []string{"525400123456", "525400123457"} {
		if want := strings.Repeat("f", 12) + strings.Repeat(mac, 16) + "001122334455"; got[want] != 3 {
			t.Errorf("for %s came %v", mac, got)
		}
	}
	for _, f := range []Facts{{}, {MACs: []string{"52:54:00:12:34"}}, {MACs: []string{"52:54:00:12:34:56", "00:00:00:00:fe:80:00:00"}}} {
		if res, err := New(1).Do(t.Context(), p, On, f, nil); res.Reason != Refused || err == nil {
			t.Errorf("%+v: %+v, %v", f, res, err)
		}
	}
	if res, err := New(1).Do(t.Context(), p, Cycle, someBox, nil); res.Reason != Refused || err == nil {
		t.Errorf("%+v, %v", res, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if res, err := New(1).Do(ended, p, On, someBox, nil); res.Reason != Stopped || err == nil {
		t.Errorf("%+v, %v", res, err)
	}
	// Sending to a broadcast address is allowed. Whether there is a route is another matter.
	all := parsed(t, Spec{Template: wake, Broadcast: "127.255.255.255"})
	if res, err := New(1).Do(t.Context(), all, On, someBox, nil); errors.Is(err, syscall.EACCES) {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := MagicPacket("52:54:00:12:34:56", make([]byte, 5)); err == nil {
		t.Error("a password of 5 bytes is taken")
	}
}

// FuzzCommand: whatever the command and the facts are, the words are those of the command, and facts are no options.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{`a 'b c' "d\"e" f\ g {{x}} {label:x}`, "ipmitool -H {label:bmc} {action}", `sh -c 'x "$1"' sh {name}`,
		"a '", "a {", "a }", `a \`, "a $x", `ssh x {name}`, "a\x00", "sh -o x -c '{name}'", "a ''{name}"} {
		for _, v := range []string{"x", "-x", "a b", "$(x)", "a\nb", "'", "{address}", ""} {
			f.Add(s, v)
		}
	}
	f.Fuzz(func(t *testing.T, line, value string) {
		p, err := Parse(Spec{Command: line})
		if err != nil {
			if len(err.Error()) > 1500 {
				t.Fatalf("the error has %d bytes", len(err.Error()))
			}
			return
		}
		facts := Facts{Address: value, Name: value, UUID: value, MACs: []string{value}, Labels: []string{"x=" + value, "bmc=" + value}}
		for _, a := range allActions {
			args, err := p.args(a, facts)
			if err != nil || !p.has(a) {
				continue
			}
			if len(args) != len(p.words) {
				t.Fatalf("%q with %q: %q", line, value, args)
			}
			for i, arg := range args {
				want := ""
				for _, s := range p.words[i] {
					switch s.fact {
					case "":
						want += s.text
					case "action":
						want += string(a)
					default:
						want += value
					}
				}
				if arg != want || strings.ContainsRune(arg, 0) {
					t.Fatalf("%q with %q: the word %d is %q", line, value, i, arg)
				}
				if strings.HasPrefix(arg, "-") && !strings.HasPrefix(p.words[i].fixed(), "-") {
					t.Fatalf("%q with %q: a fact became the option %q", line, value, arg)
				}
			}
		}
	})
}

// FuzzOutput: what is kept of an output is bounded, and can be printed.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\r\nb\x1b[31m\xff\xe2\x80\xae"), uint16(10))
	f.Fuzz(func(t *testing.T, b []byte, times uint16) {
		o := collect(io.MultiReader(strings.NewReader(strings.Repeat(string(b), min(int(times), 200_000/max(len(b), 1))))))
		text := o.text()
		if len(text) > MaxOutput+100 {
			t.Fatalf("%d bytes", len(text))
		}
		if printable([]byte(text)) != text {
			t.Fatalf("%q", text)
		}
	})
}

// TestOffAndRefused: a box that was switched off is not said to be as it was if On is refused then, and On is worth another try.
func TestOffAndRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "switch")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nrm \"$0\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := New(1)
	r.off = time.Millisecond
	p := parsed(t, Spec{Command: file + " {action}", Actions: map[Action]string{On: "1", Off: "0"}})
	res, err := r.Do(t.Context(), p, Cycle, someBox, nil)
	if err == nil || errors.As(err, new(*problem.Error)) || !strings.Contains(err.Error(), "it is off") || !res.Again() {
		t.Errorf("%+v, %v", res, err)
	}
}
