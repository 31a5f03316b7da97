// Package power switches boxes on, off, and off and on again. It does that by a command of the
// admin's, such as ipmitool, or by a packet that wakes a box.
//
// # Commands
//
// A command is a line of words. It is split once, when the configuration is read, and no shell
// is ever asked. Words are separated by blanks. Single and double quotes and the backslash
// are as in a shell, and everything else that a shell would understand in its own way is refused.
// In a word, {address}, {name}, {mac}, {uuid} and {action} stand for what is known of the box, and {label:KEY} for what
// follows "KEY=" in one of its labels. {{ and }} are braces. Whatever a fact is, it stays within its word. It
// can never become an option, since a fact that begins with "-" is refused at the beginning of a word. What
// a program makes of its words is its own affair. Shells, ssh and curl are known to make more of them, so
// there is no fact in a script of a shell, and ssh and curl get facts of plain characters only.
//
// A command has no terminal and no input. Its environment is PATH, LC_ALL and what the configuration
// adds. A password belongs into a file that the program reads, or into Spec.EnvFiles. On a
// command line every user of the machine could read it.
//
// When a command has ended, all processes of its session are killed. A process that left the session on purpose lives
// on, as ssh with ControlPersist does, but nobody waits for it.
//
// # Ready-made ways and examples
//
//   - "wake" sends a packet that wakes a box. No program is needed. It is On alone.
//   - "ipmitool" speaks with the BMC whose address is the label bmc= of the box. The user is testbox, and the password is
//     in /etc/testbox/ipmi.secret.
//   - "ssh-reboot" restarts a box that runs, as root with the key /etc/testbox/power_key.
//
// For anything else, there is a command. A socket of an APC PDU, with the number of the socket in the label
// outlet= of the box, and the password in /etc/testbox/snmp/snmp.conf:
//
//	Command: "snmpset -v 3 10.40.99.1 1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.{label:outlet} i {action}"
//	Actions: on = "1", off = "2", cycle = "3"
//	Env:     SNMPCONFPATH = "/etc/testbox/snmp"
//
// A PDU with a page for each socket, and the password in a file:
//
//	Command: "curl -fsS -m 20 --netrc-file /etc/testbox/pdu.netrc 'http://10.40.99.1/relay/{label:outlet}?turn={action}'"
//	Actions: on = "on", off = "off"
//
// A command that can do On and Off, but not Cycle, is run twice for it, with a pause between, since the capacitors of
// a power supply last for some seconds.
//
// # What the caller must do
//
// Make one Runner for the whole server, since it bounds how many commands run at once. Call Power.Check
// after the start, and log what it says: a missing program is a mistake that should not wait for the night.
//
// Do runs a command once. If Result.Again says so, it may be tried once more after a pause. Not every BMC can
// cycle a box that is off, so after a cycle that has failed On is worth a try. Waking is On alone.
//
// Nobody learns from here whether a box has started. Only its agent's hello says that.
package power

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/problem"
)

// Action is what is to be done.
type Action string

// The actions.
const (
	On    Action = "on"
	Off   Action = "off"
	Cycle Action = "cycle" // off, and on again
)

var allActions = []Action{On, Off, Cycle}

const (
	// DefaultTimeout is how long a command may take if a Spec does not say it.
	DefaultTimeout = time.Minute
	// MaxTimeout is the longest time that a Spec may give to a command.
	MaxTimeout = 10 * time.Minute

	// offTime is how long a box stays off between Off and On.
	offTime = 5 * time.Second
	// rescueTime is what On may take after Off if the server is about to end.
	rescueTime = 10 * time.Second

	maxFact = 253 // bytes
	maxEnv  = 32
)

// Spec is a way to switch boxes, as it is configured.
type Spec struct {
	// Template is the name of a ready-made way (Templates). Command and Actions are empty then.
	Template string
	Command  string
	// Actions are the words that {action} stands for. What is left out, the command cannot do. Without
	// Actions a command with {action} can do all, in the words of this package. A command without {action}
	// does one thing, which is Cycle, or the only key in Actions.
	Actions map[Action]string
	// Env is added to the environment of the command. The values of EnvFiles are files that have the value.
	Env, EnvFiles map[string]string
	// Broadcast is where packets that wake a box are sent, as "10.40.41.255" or "10.40.41.255:9". "" is
	// every box in the network of the default route.
	Broadcast string
	// PasswordFile is a file with the SecureOn password of such a packet, as "00:11:22:33:44:55" or "1.2.3.4".
	PasswordFile string
	Timeout      time.Duration // 0 is DefaultTimeout
}

// Power is a Spec that was understood. It does not change.
type Power struct {
	spec    Spec
	words   []word // none is a packet that wakes a box
	actions map[Action]string
	plain   bool // facts must have plain characters only
	to      netip.AddrPort
	timeout time.Duration
}

// Facts are what is known of a box.
type Facts struct {
	Address, Name, UUID string
	MACs                []string // {mac} is the first one, and a packet is sent to each
	Labels              []string // such as "bmc=10.0.0.1"
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Parse understands a way to switch boxes. It touches no file. Errors are of package problem, and
// name the word that is wrong.
func Parse(spec Spec) (*Power, error) {
	p, err := parse(spec)
	if err != nil {
		return nil, problem.Wrongf("%w", err)
	}
	return p, nil
}

func parse(spec Spec) (*Power, error) {
	if spec.Template != "" {
		if spec.Command != "" || len(spec.Actions) > 0 {
			return nil, fmt.Errorf("power has the template %q and a command of its own; leave one of them out", spec.Template)
		}
		t, ok := templates[spec.Template]
		if !ok {
			return nil, fmt.Errorf("there is no power template %.40q; there are %s", spec.Template, strings.Join(Templates(), ", "))
		}
		spec.Command, spec.Actions = t.Command, t.Actions
	}
	p := &Power{spec: spec, timeout: spec.Timeout}
	if p.timeout == 0 {
		p.timeout = DefaultTimeout
	}
	if p.timeout < time.Second || p.timeout > MaxTimeout {
		return nil, fmt.Errorf("the time-out of power is %v; write a time from 1s to 10m", spec.Timeout)
	}
	if err := p.parseEnv(); err != nil {
		return nil, err
	}
	if spec.Template == wake {
		return p, p.parseWake()
	}
	if spec.Broadcast != "" || spec.PasswordFile != "" {
		return nil, fmt.Errorf("a broadcast address and a password file are for the power template %q alone", wake)
	}
	return p, p.parseCommand()
}

func (p *Power) parseEnv() error {
	if len(p.spec.Env)+len(p.spec.EnvFiles) > maxEnv {
		return fmt.Errorf("power has more than %d variables", maxEnv)
	}
	for _, name := range slices.Sorted(maps.Keys(p.spec.Env)) {
		if !envName.MatchString(name) {
			return fmt.Errorf("%.64q cannot be the name of a variable of the environment", name)
		}
		if v := p.spec.Env[name]; len(v) > maxLine || strings.ContainsRune(v, 0) {
			return fmt.Errorf("the value of the variable %s is too long, or has a zero byte", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.spec.EnvFiles)) {
		if !envName.MatchString(name) {
			return fmt.Errorf("%.64q cannot be the name of a variable of the environment", name)
		}
		if _, twice := p.spec.Env[name]; twice {
			return fmt.Errorf("the variable %s has a value and a file; leave one of them out", name)
		}
		if f := p.spec.EnvFiles[name]; !strings.HasPrefix(f, "/") {
			return fmt.Errorf("the file %.100q of the variable %s is no whole path; write one like /etc/testbox/bmc.secret", f, name)
		}
	}
	return nil
}

func (p *Power) parseCommand() error {
	var err error
	if p.words, err = split(p.spec.Command); err != nil {
		return fmt.Errorf("the power command is wrong: %w", err)
	}
	if err := checkWords(p.words); err != nil {
		return fmt.Errorf("the power command is wrong: %w", err)
	}
	p.plain = needsPlain(p.words)
	uses := slices.ContainsFunc(p.words, func(w word) bool {
		return slices.ContainsFunc(w, func(s span) bool { return s.fact == "action" })
	})
	for a, text := range p.spec.Actions {
		switch {
		case !slices.Contains(allActions, a):
			return fmt.Errorf("%.40q is no action of power; there are on, off and cycle", a)
		case uses && text == "":
			return fmt.Errorf("the action %s has no word in the power command; leave it out if the command cannot do it", a)
		case !uses && text != "":
			return fmt.Errorf("the action %s has the word %.40q, but {action} is not in the power command", a, text)
		}
		if err := checkFact("word for an action", text); err != nil {
			return err
		}
	}
	switch p.actions = p.spec.Actions; {
	case len(p.actions) > 1 && !uses:
		return fmt.Errorf("the power command has several actions, but not {action}, and so does the same for all of them")
	case len(p.actions) > 0:
	case uses:
		p.actions = map[Action]string{On: "on", Off: "off", Cycle: "cycle"}
	default:
		p.actions = map[Action]string{Cycle: ""}
	}
	return nil
}

// Can reports whether an action can be done.
func (p *Power) Can(a Action) bool { return p.has(a) || a == Cycle && p.has(On) && p.has(Off) }

// has reports whether one command does an action.
func (p *Power) has(a Action) bool {
	_, ok := p.actions[a]
	return ok
}

// Facts are the facts of a box that a way depends on, by their names in a command. Whoever can change one of
// them can decide which machine is switched.
func (p *Power) Facts() (all []string) {
	for _, w := range p.words {
		for _, s := range w {
			if s.fact != "" && s.fact != "action" {
				all = append(all, s.fact)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// String is the program, or the name of the template.
func (p *Power) String() string {
	if p.spec.Template != "" {
		return p.spec.Template
	}
	return p.words[0].fixed()
}

// Files are the files that a way reads by itself.
func (p *Power) Files() []string {
	all := slices.Sorted(maps.Values(p.spec.EnvFiles))
	if p.spec.PasswordFile != "" {
		all = append(all, p.spec.PasswordFile)
	}
	return all
}

// fact returns a fact by its name in a command.
func (f *Facts) fact(name string) (string, error) {
	var value string
	switch key, isLabel := strings.CutPrefix(name, "label:"); {
	case isLabel:
		for _, l := range f.Labels {
			v, ok := strings.CutPrefix(l, key+"=")
			if ok && value != "" {
				return "", fmt.Errorf("the box has several labels %s=", key)
			}
			if ok {
				value = v
			}
		}
		if value == "" {
			return "", fmt.Errorf("the box has no label %s=", key)
		}
		name = "label " + key
	case name == "address":
		value = f.Address
	case name == "name":
		value = f.Name
	case name == "uuid":
		value = f.UUID
	case name == "mac" && len(f.MACs) > 0:
		value = f.MACs[0]
	}
	if value == "" {
		return "", fmt.Errorf("nothing is known of the %s of the box", name)
	}
	return value, checkFact(name, value)
}

// checkFact refuses what no program gets.
func checkFact(name, value string) error {
	if len(value) > maxFact {
		return fmt.Errorf("the %s has %d bytes, and may have at most %d", name, len(value), maxFact)
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("the %s %.80q has a character that cannot be printed", name, value)
	}
	return nil
}

// args puts the facts into the words.
func (p *Power) args(a Action, f Facts) (out []string, err error) {
	for _, w := range p.words {
		var b strings.Builder
		for _, s := range w {
			if s.fact == "" {
				b.WriteString(s.text)
				continue
			}
			v := p.actions[a]
			if s.fact != "action" {
				if v, err = f.fact(s.fact); err != nil {
					return nil, err
				}
			}
			switch {
			case s.fact == "action": // a word of the admin's
			case b.Len() == 0 && strings.HasPrefix(v, "-"):
				return nil, fmt.Errorf("%.80q, which is {%s} in the power command, begins with \"-\" and would be an option", v, s.fact)
			case p.plain && !plainText.MatchString(v):
				return nil, fmt.Errorf("%.80q, which is {%s} in the power command, has other characters than letters, digits and .:_-, "+
					"of which %s could make something else", v, s.fact, p)
			}
			b.WriteString(v)
		}
		out = append(out, b.String())
	}
	return out, nil
}

// Check returns an error if a program or a file that a way needs is not there.
func (p *Power) Check() error {
	if len(p.words) > 0 {
		if _, err := find(p.words[0].fixed()); err != nil {
			return problem.Refusef("%w", err)
		}
	} else if _, err := p.password(); err != nil {
		return problem.Refusef("%w", err)
	}
	_, err := p.env()
	if err != nil {
		return problem.Refusef("%w", err)
	}
	return nil
}

// Do does an action for a box, once. The error is nil if it is done. Otherwise it is a sentence for
// people, and of package problem if it was refused. The Result is there in any case.
//
// A command may have to wait until others have ended, and meanwhile somebody may have begun to work at the box. So may
// is asked right before something is begun, and its error refuses it. It can be nil.
func (r *Runner) Do(ctx context.Context, p *Power, a Action, f Facts, may func() error) (Result, error) {
	refuse := func(err error) (Result, error) { return Result{Reason: Refused}, problem.Refusef("%w", err) }
	if !p.Can(a) {
		return refuse(fmt.Errorf("%s cannot do %q", p, a))
	}
	if len(p.words) == 0 {
		return r.wake(ctx, p, f, may)
	}
	if !p.has(a) {
		return r.offAndOn(ctx, p, f, may)
	}
	args, err := p.args(a, f)
	if err != nil {
		return refuse(err)
	}
	env, err := p.env()
	if err != nil {
		return refuse(err)
	}
	if args[0], err = find(args[0]); err != nil {
		return refuse(err)
	}
	res, err := r.run(ctx, args, env, p.timeout, may)
	if err != nil && res.Reason != Refused {
		err = fmt.Errorf("the power command %s %w", p, err)
	}
	return res, err
}

// offAndOn does Cycle by Off and On. A box that was switched off is switched on in any case.
func (r *Runner) offAndOn(ctx context.Context, p *Power, f Facts, may func() error) (Result, error) {
	off, err := r.Do(ctx, p, Off, f, may)
	if err != nil {
		return off, fmt.Errorf("switch it off: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(r.off):
	}
	onCtx := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		onCtx, cancel = context.WithTimeout(context.WithoutCancel(ctx), rescueTime)
		defer cancel()
	}
	on, err := r.Do(onCtx, p, On, f, nil)
	on.Output = strings.Trim(off.Output+"\n"+on.Output, "\n")
	on.LeftOut, on.Took = on.LeftOut+off.LeftOut, on.Took+off.Took
	if err != nil {
		err = fmt.Errorf("it is off, and was not switched on again: %w", err)
	}
	if on.Reason == Refused { // something was done all the same, and On is worth another try
		on.Reason, err = Failed, errors.New(err.Error())
	}
	return on, err
}
