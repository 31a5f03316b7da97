package arming

import (
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// options are what an admin may add to an action, and the actions that each is
// for. The names are those of the command line.
var options = []struct {
	name    string
	given   func(c *bootcfg.Cmdline) bool
	actions []box.Action
}{
	{"disks", func(c *bootcfg.Cmdline) bool { return len(c.Disks) > 0 }, []box.Action{box.Backup, box.BackupAgain, box.Restore, box.Verify}},
	{"map", func(c *bootcfg.Cmdline) bool { return len(c.Map) > 0 }, []box.Action{box.Restore, box.Verify}},
	{"shrink-table", func(c *bootcfg.Cmdline) bool { return c.ShrinkTable }, []box.Action{box.Restore, box.Verify}},
	{"precheck", func(c *bootcfg.Cmdline) bool { return c.PrecheckSize }, []box.Action{box.Restore}},
	{"accept-machine", func(c *bootcfg.Cmdline) bool { return c.AcceptMachine }, []box.Action{box.Restore}},
	{"accept-failing", func(c *bootcfg.Cmdline) bool { return c.AcceptFailing }, []box.Action{box.Backup, box.BackupAgain}},
	{"from", func(c *bootcfg.Cmdline) bool { return c.From != "" }, []box.Action{box.Restore, box.Verify}},
	{"hooks", func(c *bootcfg.Cmdline) bool { return len(c.Hooks) > 0 }, []box.Action{box.Restore}},
	{"raw", func(c *bootcfg.Cmdline) bool { return c.Raw }, []box.Action{box.Restore, box.Verify}},
	{"image", func(c *bootcfg.Cmdline) bool { return c.OldImages }, []box.Action{box.Restore, box.Verify}},
}

// checkOptions refuses an option that has no effect on the action, because
// whoever gave it expects an effect.
func checkOptions(c *bootcfg.Cmdline) error {
	for _, o := range options {
		if !o.given(c) || slices.Contains(o.actions, c.Action) {
			continue
		}
		var names []string
		for _, a := range o.actions {
			names = append(names, string(a))
		}
		list := strings.Join(names, ", ")
		if i := strings.LastIndex(list, ", "); i >= 0 {
			list = list[:i] + " and " + list[i+2:]
		}
		return problem.Wrongf("--%s is for %s, not for %s", o.name, list, c.Action)
	}
	return nil
}
