package power

import (
	"maps"
	"slices"
)

// templates are the ready-made ways. The first word of each says what must be installed.
var templates = map[string]Spec{
	wake: {},

	// A box is asked to restart itself. The answer comes before it does, so that the end of the connection is no failure. The
	// host keys of a box change with each restore. So whoever answers at the address is believed, and hears
	// no secret, only that he should restart.
	"ssh-reboot": {Command: "ssh -F /dev/null -i /etc/testbox/power_key -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=10 " +
		"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ControlPath=none " +
		"root@{address} '(sleep 2; reboot) </dev/null >/dev/null 2>&1 &'"},

	// The address of the BMC is the label bmc= of the box, and the password is in a file. To switch power a user needs
	// the right OPERATOR (IPMI 2.0, appendix G, Chassis Control). Without -L, ipmitool asks for ADMINISTRATOR.
	"ipmitool": {Command: "ipmitool -I lanplus -L OPERATOR -H {label:bmc} -U testbox -f /etc/testbox/ipmi.secret chassis power {action}"},
}

// Templates are the names of the ready-made ways.
func Templates() []string { return slices.Sorted(maps.Keys(templates)) }

// TemplateCommand is the command of a ready-made way, as a beginning for one of the admin's own. It is "" if there
// is none.
func TemplateCommand(name string) string { return templates[name].Command }
