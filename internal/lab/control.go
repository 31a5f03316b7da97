package lab

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"testbox-imaging/internal/box"
)

// controlFile is a socket in a lab's folder, by which other processes can ask
// for something. A question is one line, such as "reset 10.40.41.42". Its
// answer is one line too, "ok" or the reason why not.
const controlFile = "control"

// controlTimeout limits how long a question and its answer may take.
const controlTimeout = qmpTimeout + 10*time.Second

// ErrNoLab says that there is no running lab to ask.
var ErrNoLab = errors.New("no lab is up")

// ErrWhich says that it is not clear which box is meant.
var ErrWhich = errors.New("it is not clear which box is meant")

// Listen answers the Resets and Switches of other processes until the lab is closed. It
// calls done for each box that was switched.
func (l *Lab) Listen(done func(box.Addr)) error {
	path := filepath.Join(l.Dir, controlFile)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return err
	}
	l.control = listener
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.answer(c, done)
		}
	}()
	return nil
}

// answer answers one question.
func (l *Lab) answer(c net.Conn, done func(box.Addr)) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReaderSize(c, 256).ReadSlice('\n')
	if err != nil {
		return
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	for _, m := range l.machines {
		if do := m.switches()[word]; do != nil && rest == m.Addr.String() {
			if err := do(); err != nil {
				fmt.Fprintln(c, err)
				return
			}
			fmt.Fprintln(c, "ok")
			done(m.Addr)
			return
		}
	}
	var boxes []string
	for _, m := range l.machines {
		boxes = append(boxes, m.Addr.String())
	}
	fmt.Fprintf(c, "%s %s, only %s\n", noBox, rest, strings.Join(boxes, ", "))
}

// switches are what can be asked for. As with a real power switch, a box that is on may be switched on.
func (m *Machine) switches() map[string]func() error {
	return map[string]func() error{
		"reset": m.Reset,
		"cycle": m.Restart,
		"off":   func() error { m.PowerOff(); return nil },
		"on": func() error {
			if m.alive() == nil {
				return nil
			}
			return m.PowerOn()
		},
	}
}

const noBox = "the lab has no box"

// Reset presses the reset button of a box of a running lab. The lab's folder
// must be in dir, or in os.TempDir if dir is "".
func Reset(dir string, addr box.Addr) error {
	labs, err := running(dir)
	if err != nil {
		return err
	}
	switch len(labs) {
	case 0: // a lab that was started with another $TMPDIR is in another folder
		return fmt.Errorf("%w in %s", ErrNoLab, cmp.Or(dir, os.TempDir()))
	case 1:
		return Switch(labs[0], addr, "reset")
	default:
		return fmt.Errorf("%w: %d labs run here (%s), with boxes of the same address; press Enter in the terminal of the one that is meant",
			ErrWhich, len(labs), strings.Join(labs, ", "))
	}
}

// Switch switches a box of the lab in a folder: "on", "off", "cycle", or "reset".
func Switch(folder string, addr box.Addr, action string) error {
	text, err := ask(folder, action+" "+addr.String())
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(text, noBox):
		return fmt.Errorf("%w: %s", ErrWhich, text)
	case text != "ok":
		return errors.New(text)
	}
	return nil
}

// running returns the folders of the labs that answer questions.
func running(dir string) (labs []string, err error) {
	if dir == "" {
		dir = os.TempDir()
	}
	marks, err := filepath.Glob(filepath.Join(dir, dirPrefix+"*", ownerFile))
	if err != nil {
		return nil, err
	}
	for _, mark := range marks {
		l := filepath.Dir(mark)
		if o, err := readOwner(mark); err == nil && o.alive() && exists(filepath.Join(l, controlFile)) {
			labs = append(labs, l)
		}
	}
	return labs, nil
}

// ask sends a lab one question and returns the answer.
func ask(dir, question string) (string, error) {
	c, err := net.DialTimeout("unix", filepath.Join(dir, controlFile), controlTimeout)
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("%w; labs belong to root: run this as root", err)
	} else if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(controlTimeout))
	if _, err := fmt.Fprintln(c, question); err != nil {
		return "", err
	}
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the lab in %s does not answer: %w", dir, err)
	}
	return strings.TrimSpace(text), nil
}
