package box

import (
	"fmt"
	"slices"
	"strings"
)

// Hook is a change of a restored system, by which it becomes that of its box. Nothing is
// changed unless an admin names it.
type Hook string

// The hooks, in the order in which they are done.
const (
	HookHostname  Hook = "hostname"   // the box's name, in /etc/hostname and /etc/hosts
	HookMachineID Hook = "machine-id" // /etc/machine-id is emptied, so that the system makes a new one
	HookSSHKeys   Hook = "ssh-keys"   // the host keys of the ssh server are made anew
)

// Hooks has all hooks.
var Hooks = []Hook{HookHostname, HookMachineID, HookSSHKeys}

// SharesMachineID reports whether a system may have the machine-id of another box, since it
// is that of the box from, and the hook that takes the id away is not among hooks. from is
// "" if it is the box's own.
func SharesMachineID(from string, hooks []Hook) bool {
	return from != "" && !slices.Contains(hooks, HookMachineID)
}

// ParseHooks reads a comma-separated list of hooks. It returns them in the order of Hooks.
func ParseHooks(s string) ([]Hook, error) {
	var all []Hook
	for word := range strings.SplitSeq(s, ",") {
		all = append(all, Hook(word))
	}
	return CheckHooks(all)
}

// CheckHooks returns some hooks in the order of Hooks. A hook that is not known, or that is
// named twice, is an error.
func CheckHooks(some []Hook) (sorted []Hook, err error) {
	for i, h := range some {
		switch {
		case !slices.Contains(Hooks, h):
			return nil, fmt.Errorf("there is no hook %.40q; the hooks are %s", h, JoinHooks(Hooks))
		case slices.Contains(some[:i], h):
			return nil, fmt.Errorf("the hook %s is named twice", h)
		}
	}
	for _, h := range Hooks {
		if slices.Contains(some, h) {
			sorted = append(sorted, h)
		}
	}
	return sorted, nil
}

// JoinHooks is the list that ParseHooks reads.
func JoinHooks(some []Hook) string {
	words := make([]string, len(some))
	for i, h := range some {
		words[i] = string(h)
	}
	return strings.Join(words, ",")
}
