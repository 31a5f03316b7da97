package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/ledger"
)

func newBoxesCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var group, label, health, state string
	var asJSON, fresh bool
	cmd := &cobra.Command{
		Use:   "boxes",
		Short: "List the boxes that a server knows",
		Long: `Lists the boxes that a server knows, by their addresses, with the state of the latest job of each.
HOLDER is who has reserved the box. LAST SEEN is when it asked for its boot files last, or its agent was
heard of. LAST BACKUP is when its latest backup was made. Times are UTC. NOTE says that a box is SILENT,
which means that it was not seen for longer than is usual for it, that its machine has MOVED to another
address, or that another machine SHARES its address.

With --new it lists the machines that are no boxes and asked for boot files: what they are known by, when
they were seen, and what they asked for last. ` + "`testbox box add`" + ` makes a box of one. Nothing is armed for them.`,
		Example: `  testbox boxes
  testbox boxes --new
  testbox boxes --group rack3 --health bad
  testbox boxes --state held --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			query := url.Values{"limit": {"1000"}}
			for name, value := range map[string]string{"group": group, "label": label, "health": health, "state": state} {
				if cmd.Flags().Changed(name) {
					query.Set(name, value)
				}
			}
			some := len(query) > 1
			if fresh && some {
				return wrong("the other filters are for boxes, and --new lists machines that are none")
			}
			return f.with(func(c *apiclient.Client) error {
				if fresh {
					return listNew(cmd.Context(), c, p, asJSON)
				}
				all, unknown := []api.Box{}, ""
				for {
					var page api.BoxList
					if err := c.Do(cmd.Context(), "GET", apiclient.Path("boxes")+"?"+query.Encode(), nil, &page); err != nil {
						return err
					}
					unknown = cmp.Or(unknown, page.Unknown)
					if all = append(all, page.Boxes...); page.Next == "" {
						break
					}
					query.Set("after", page.Next)
				}
				if asJSON {
					return printJSON(p, all)
				}
				if unknown != "" {
					p.warnf("the latest backups are not known: %s", printable(unknown))
				}
				printBoxes(p, all, some)
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&fresh, "new", false, "list the machines that nobody knows")
	fl.StringVar(&group, "group", "", "only boxes of this `GROUP`")
	fl.StringVar(&label, "label", "", "only boxes with this `LABEL`")
	fl.StringVar(&health, "health", "", "only boxes of this `HEALTH`: good, suspect, bad, maintenance or retired")
	fl.StringVar(&state, "state", "", "only boxes whose latest job is in this `STATE`, such as held")
	fl.BoolVar(&asJSON, "json", false, "print the boxes as JSON")
	f.add(cmd)
	return cmd
}

// printBoxes prints a list of boxes. some says that not all boxes were asked for.
func printBoxes(p printer, all []api.Box, some bool) {
	switch {
	case len(all) > 0:
	case some:
		p.tellf("there is no such box")
		return
	default:
		p.tellf("there is no box yet; a box is known from its first job on, such as `testbox refresh-info ADDRESS`, or by `testbox box add`. " +
			"`testbox boxes --new` lists machines that asked for boot files")
		return
	}
	var rows []string
	for _, v := range all {
		holder := ""
		if v.Holder != nil {
			holder = v.Holder.Name
		}
		last := ""
		if v.Last != nil {
			last = fmt.Sprintf("%s: %s", v.Last.Action, lastText(v.Last))
		}
		backup := ""
		if v.LastBackup != nil {
			backup = shortTime(v.LastBackup.Time)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Address, printable(v.Name),
			printable(strings.Join(v.Groups, ",")), printable(strings.Join(v.Labels, ",")), printable(string(v.Health)), printable(holder),
			shortTime(v.LastSeen), printable(noteOf(v)), backup, printable(last)))
	}
	table(p, "BOX\tNAME\tGROUPS\tLABELS\tHEALTH\tHOLDER\tLAST SEEN\tNOTE\tLAST BACKUP\tLATEST JOB", rows)
}

// lastText says how the latest job of a box stands. A job that is held has an outcome
// already, and that it is held is what matters then.
func lastText(l *api.LastJob) string {
	if l.State == job.Held {
		return "HELD"
	}
	return cmp.Or(string(l.Outcome), string(l.State))
}

func shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func newBoxCmd(w world) *cobra.Command {
	return newGroupCmd("box", "Show and change what a server knows of a box",
		`Shows and changes what a server knows of a box. BOX is an address, a name, a MAC or a UUID.`,
		newBoxShowCmd(w), newBoxAddCmd(w), newBoxSetCmd(w), newBoxLabelCmd(w), newBoxHoldCmd(w), newBoxUnholdCmd(w), newBoxHealthCmd(w),
		newBoxRatesCmd(w),
		newBoxAcceptCmd(w), newBoxReaddressCmd(w), newBoxPowerCmd(w), newBoxForgetCmd(w))
}

// boxCmd makes a command about one box, which prints the box as it is then.
func boxCmd(w world, use, short, long, example string, args cobra.PositionalArgs,
	do func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error) *cobra.Command {
	return thingCmd(w, "box", printBox, &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: args}, do)
}

// thingCmd makes of cmd a command about one thing that a server knows. do reads it, and it is
// printed as it is then, for people or as JSON.
func thingCmd[T any](w world, what string, print func(printer, T), cmd *cobra.Command,
	do func(cmd *cobra.Command, c *apiclient.Client, args []string, v *T) error) *cobra.Command {
	f := serverFlag{world: w}
	var asJSON bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p := printerOf(cmd)
		return f.with(func(c *apiclient.Client) error {
			var v T
			if err := do(cmd, c, args, &v); err != nil {
				return err
			}
			if asJSON {
				return printJSON(p, v)
			}
			print(p, v)
			return nil
		})
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the "+what+" as JSON")
	f.add(cmd)
	return cmd
}

func printBox(p printer, b api.Box) {
	line := func(name, value string) {
		if value != "" {
			p.printf("%-12s %s\n", name+":", printable(value))
		}
	}
	line("box", b.Address)
	line("name", b.Name)
	line("MACs", strings.Join(b.MACs, ", "))
	line("UUID", b.UUID)
	line("groups", strings.Join(b.Groups, ", "))
	line("labels", strings.Join(b.Labels, ", "))
	health := string(b.Health)
	if b.HealthReason != "" {
		health += " (" + b.HealthReason + ")"
	}
	line("health", health)
	if h := b.Holder; h != nil {
		text := h.Name
		if h.Reason != "" {
			text += " (" + h.Reason + ")"
		}
		if !h.Expires.IsZero() {
			text += " until " + h.Expires.UTC().Format(time.RFC3339)
		}
		line("holder", text)
	}
	if e := b.Effective; e != nil {
		set := func(name, value, why string) {
			if why != "" { // else nothing is set
				line(name, fmt.Sprintf("%s (%s)", value, why))
			}
		}
		set("power", e.Power, e.PowerWhy)
		set("keep", e.Keep, e.KeepWhy)
		set("peers", e.Peers, e.PeersWhy)
	}
	if b.Disks != nil {
		line("disks", strings.Join(strings.Fields(*b.Disks), ", "))
	}
	line("first seen", shortTime(b.FirstSeen))
	line("last seen", shortTime(b.LastSeen))
	printSight(line, b)
	printBoxFirmware(line, b)
	if l := b.LastBackup; l != nil {
		line("last backup", fmt.Sprintf("%s, made %s", l.ID, shortTime(l.Time)))
	}
	for _, v := range b.Schedules {
		line("next "+string(v.Action), fmt.Sprintf("%s, by the schedule %s", cmp.Or(zoned(v.Next), "paused"), v.Name))
	}
	if l := b.Last; l != nil {
		line("latest job", fmt.Sprintf("%s %s, %s since %s", l.ID, l.Action, lastText(l), shortTime(l.Since)))
	}
}

func newBoxShowCmd(w world) *cobra.Command {
	return boxCmd(w, "show BOX", "Show a box", "Shows what a server knows of a box, and the state of its latest job.",
		"  testbox box show 10.40.41.42\n  testbox box show 52:54:00:12:34:56 --json", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			return c.Do(cmd.Context(), "GET", apiclient.Path("boxes", args[0]), nil, b)
		})
}

func newBoxAddCmd(w world) *cobra.Command {
	var q api.NewBox
	cmd := boxCmd(w, "add MACHINE", "Tell a server of a box",
		`Tells a server of a box. MACHINE is an address, or the MAC or UUID of a machine that asked for its boot
files (`+"`testbox boxes --new`"+`). What the machine told is filled in. That is not needed for a backup: a box
is known from its first job on. Where the server gives the addresses by DHCP, the machine with the network
card of --mac gets this one.`,
		"  testbox box add 10.40.41.42 --name web-1 --groups rack3\n  testbox box add 52:54:00:12:34:56 --name web-2\n"+
			"  testbox box add 10.40.41.43 --mac 52:54:00:12:34:56", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			if _, err := box.ParseAddr(args[0]); err == nil {
				q.Address = args[0]
			} else if q.Machine = args[0]; len(q.MACs) > 0 {
				return wrong("--mac goes with the address that the box is to have, and %s is none", args[0])
			}
			return c.Do(cmd.Context(), "POST", apiclient.Path("boxes"), q, b)
		})
	cmd.Flags().StringVar(&q.Name, "name", "", "the `NAME` of the box")
	cmd.Flags().StringSliceVar(&q.MACs, "mac", nil, "hardware `ADDRESSES` of the network cards of the box, comma-separated")
	cmd.Flags().StringSliceVar(&q.Groups, "groups", nil, "the `GROUPS` of the box, comma-separated")
	cmd.Flags().StringSliceVar(&q.Labels, "labels", nil, "the `LABELS` of the box, comma-separated")
	cmd.Flags().StringVar(&q.Why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

func newBoxSetCmd(w world) *cobra.Command {
	var name, disks, why string
	var groups, labels []string
	cmd := boxCmd(w, "set BOX", "Change the name, groups, labels, disks or settings of a box",
		`Changes the name, groups, labels, disks or settings of a box. The given groups and labels are all that it
has then. Groups must exist: `+"`testbox group set NAME`"+` makes one. --disks says which of the box's disks are
used, as disk-devices.lst does; --disks=all takes that back.

--power names the power command of the box, from the server's configuration, and --power=none says that it
has none. --keep says which of its backups are kept: last, daily, weekly and monthly, each with a number, or
all. The word default takes either back. Then the box's groups decide, and then the configuration. Groups
that say different things keep what one of them keeps, and switch no power.

--peers says whether the box gets chunks of images from other boxes that restore the same backup, and gives
them: on, off or default. One group that says off is enough. All three need the role admin.`,
		"  testbox box set 10.40.41.42 --name web-1 --groups rack3,nightly\n  testbox box set web-1 --disks sda,nvme0n1\n"+
			"  testbox box set web-1 --disks all\n  testbox box set web-1 --power bmc --keep last=3,daily=7", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			q := api.SetBox{Why: why}
			given := cmd.Flags().Changed
			if given("name") {
				q.Name = &name
			}
			if given("groups") {
				q.Groups = &groups
			}
			if given("labels") {
				q.Labels = &labels
			}
			for flag, to := range map[string]*string{"power": &q.Power, "keep": &q.Keep, "peers": &q.Peers} {
				if err := givenSetting(cmd, flag, to); err != nil {
					return err
				}
			}
			switch list := ""; {
			case !given("disks"):
			case disks == "":
				return wrong("--disks is empty; say all, or name disks")
			case disks == "all":
				q.Disks = &list
			default:
				list = strings.ReplaceAll(disks, ",", "\n") + "\n"
				q.Disks = &list
			}
			return c.Do(cmd.Context(), "PATCH", apiclient.Path("boxes", args[0]), q, b)
		})
	cmd.Flags().StringVar(&name, "name", "", "the new `NAME`; an empty one takes it away")
	cmd.Flags().StringSliceVar(&groups, "groups", nil, "the `GROUPS`, comma-separated")
	cmd.Flags().StringSliceVar(&labels, "labels", nil, "the `LABELS`, comma-separated")
	cmd.Flags().StringVar(&disks, "disks", "", "the disks, comma-separated `LIST`, or all")
	cmd.Flags().String("power", "", powerUsage)
	cmd.Flags().String("keep", "", keepUsage)
	cmd.Flags().String("peers", "", peersUsage)
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

// The flags of settings that boxes and groups have.
const (
	powerUsage = "the power command, a `NAME` of the configuration, or none, or default"
	keepUsage  = "the backups that are `KEPT`, such as last=3,daily=7, or all, or default"
	peersUsage = "whether chunks of images come from other boxes too: `WORD` on, off or default"
)

// givenSetting takes the value of a flag, if it is given.
func givenSetting(cmd *cobra.Command, flag string, to *string) error {
	f := cmd.Flags().Lookup(flag)
	if f.Changed && f.Value.String() == "" {
		return wrong("--%s is empty; say default to take it back", flag)
	}
	*to = f.Value.String()
	return nil
}

func newBoxLabelCmd(w world) *cobra.Command {
	var remove bool
	cmd := boxCmd(w, "label BOX LABEL...", "Give labels to a box, or take them away", `Gives labels to a box, besides those that it has.`,
		"  testbox box label web-1 ssd nightly\n  testbox box label web-1 nightly --remove", takesWords(2, 0),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			if err := c.Do(cmd.Context(), "GET", apiclient.Path("boxes", args[0]), nil, b); err != nil {
				return err
			}
			labels := append([]string{}, b.Labels...)
			if remove {
				labels = slices.DeleteFunc(labels, func(l string) bool { return slices.Contains(args[1:], l) })
			} else {
				labels = append(labels, args[1:]...)
			}
			address := b.Address
			*b = api.Box{}
			return c.Do(cmd.Context(), "PATCH", apiclient.Path("boxes", address), api.SetBox{Labels: &labels}, b)
		})
	cmd.Flags().BoolVar(&remove, "remove", false, "take these labels away")
	return cmd
}

func newBoxHoldCmd(w world) *cobra.Command {
	var q api.Holder
	var span time.Duration
	cmd := boxCmd(w, "hold BOX", "Reserve a box",
		`Reserves a box for you: jobs of others are refused, and those that wait go on waiting. An admin can
reserve it for somebody else, and take it from somebody.

Programs that share a login, such as the runs of a CI system, each set $`+runEnv+` to a name of their own,
for this and all other commands. Then the box is reserved for that run: other runs are refused, also
if they are an admin's. The same run may reserve it again, as to have it longer.`,
		"  testbox box hold web-1 --for 4h --why \"a long test\"\n  TESTBOX_RUN=pipeline-17 testbox box hold web-1 --for 2h", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			if cmd.Flags().Changed("for") {
				if span < time.Second {
					return wrong("--for %s is no time of at least a second", span)
				}
				q.For = int64(span / time.Second) // the server's clock counts
			}
			return c.Do(cmd.Context(), "PUT", apiclient.Path("boxes", args[0], "holder"), q, b)
		})
	cmd.Flags().DurationVar(&span, "for", 0, "for this `TIME`, such as 4h (default: until `testbox box unhold`)")
	cmd.Flags().StringVar(&q.Name, "holder", "", "who has the box, a `NAME` (default: you)")
	cmd.Flags().StringVar(&q.Reason, "why", "", "the `REASON`")
	return cmd
}

func newBoxUnholdCmd(w world) *cobra.Command {
	var why string
	cmd := boxCmd(w, "unhold BOX", "Give a reserved box back",
		`Gives a reserved box back. Only an admin can give back what somebody else has reserved.
With $`+runEnv+` it gives back what that run has; without it, also what any run of yours has.`,
		"  testbox box unhold web-1", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			return c.Do(cmd.Context(), "DELETE", apiclient.Path("boxes", args[0], "holder")+"?"+url.Values{"why": {why}}.Encode(), nil, b)
		})
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

func newBoxHealthCmd(w world) *cobra.Command {
	var why string
	cmd := boxCmd(w, "health BOX HEALTH", "Say what a box is fit for",
		`Says what a box is fit for: good, suspect, bad, maintenance or retired. All but good want a reason.
A retired box gets no jobs. The server itself sets boxes to suspect after failures.`,
		"  testbox box health web-1 bad --why \"its fan is loud\"\n  testbox box health web-1 good", takesWords(2, 2),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			if !slices.Contains(ledger.Healths, ledger.Health(args[1])) {
				return wrong("the health of a box is good, suspect, bad, maintenance or retired, and not %q", args[1])
			}
			if why == "" && args[1] != string(ledger.Good) {
				return wrong("say by --why why the box is %s", args[1])
			}
			q := api.SetBox{Health: &args[1]}
			if why != "" {
				q.HealthReason = &why
			}
			return c.Do(cmd.Context(), "PATCH", apiclient.Path("boxes", args[0]), q, b)
		})
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, which is shown with the box")
	return cmd
}

func newBoxAcceptCmd(w world) *cobra.Command {
	var q api.AcceptBox
	cmd := boxCmd(w, "accept BOX", "Accept another machine as this box",
		`Accepts another machine as this box: the next one that comes from its address is taken for it. The
server knows a machine by its network cards and its UUID, and refuses a stranger. Where the server gives the
addresses by DHCP, --mac says which card the machine starts with, since it gets the address by that.`,
		"  testbox box accept web-1 --why \"a new board\"\n  testbox box accept web-1 --mac 52:54:00:12:34:56", takesWords(1, 1),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			return c.Do(cmd.Context(), "POST", apiclient.Path("boxes", args[0], "accept"), q, b)
		})
	cmd.Flags().StringSliceVar(&q.MACs, "mac", nil, "hardware `ADDRESSES` of the network cards of the machine, comma-separated")
	cmd.Flags().StringVar(&q.Why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

func newBoxReaddressCmd(w world) *cobra.Command {
	var why string
	cmd := boxCmd(w, "readdress BOX ADDRESS", "Give a box another address",
		`Gives a box another address. Its jobs, logs, settings and backups go with it. No job of the box may be
under way, and no other machine may have logs or backups under the new address. The machine itself gets
its address elsewhere, as by DHCP. If the command fails in the middle, it goes on when it is called again.`,
		"  testbox box readdress 10.40.41.42 10.40.41.99 --why \"another rack\"\n  testbox box readdress web-1 10.40.41.99", takesWords(2, 2),
		func(cmd *cobra.Command, c *apiclient.Client, args []string, b *api.Box) error {
			return c.Do(cmd.Context(), "POST", apiclient.Path("boxes", args[0], "readdress"), api.NewAddress{Address: args[1], Why: why}, b)
		})
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

func newBoxForgetCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var why string
	cmd := &cobra.Command{
		Use: "forget BOX", Short: "Make a server forget a box", Long: "Makes a server forget a box. Its jobs, logs and backups stay.",
		Example: "  testbox box forget web-1 --why scrapped",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *apiclient.Client) error {
				return c.Do(cmd.Context(), "DELETE", apiclient.Path("boxes", args[0])+"?"+url.Values{"why": {why}}.Encode(), nil, nil)
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	f.add(cmd)
	return cmd
}

func newLogCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var follow, all bool
	cmd := &cobra.Command{
		Use:   "log BOX",
		Short: "Print the log of a box",
		Long: `Prints the end of the log that a server keeps of a box. With --follow it goes on with what comes
later, until it is interrupted.`,
		Example: "  testbox log web-1\n  testbox log 10.40.41.42 --follow\n  testbox log web-1 --all",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			offset := int64(-16 << 10)
			if all {
				offset = 0
			}
			out := &lineWriter{to: cmd.OutOrStdout()}
			return f.with(func(c *apiclient.Client) error {
				if !follow {
					err := c.Get(cmd.Context(), fmt.Sprintf("%s?offset=%d", apiclient.Path("boxes", args[0], "log"), offset), out)
					return errors.Join(err, out.flush())
				}
				err := c.FollowLog(cmd.Context(), args[0], offset, out)
				if errors.Is(err, context.Canceled) {
					return out.flush()
				}
				return errors.Join(err, out.flush())
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes later")
	cmd.Flags().BoolVar(&all, "all", false, "print the log from its beginning")
	f.add(cmd)
	return cmd
}

// lineWriter makes lines from elsewhere safe for a terminal.
type lineWriter struct {
	to   io.Writer
	part []byte
}

// maxLine is the length in bytes at which a longer line is split.
const maxLine = 64 << 10

func (l *lineWriter) Write(b []byte) (int, error) {
	l.part = append(l.part, b...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			break
		}
		if err := l.line(line); err != nil {
			return 0, err
		}
		l.part = append(l.part[:0], rest...)
	}
	if len(l.part) > maxLine {
		return len(b), l.flush()
	}
	return len(b), nil
}

func (l *lineWriter) flush() error {
	if len(l.part) == 0 {
		return nil
	}
	line := l.part
	l.part = nil
	return l.line(line)
}

func (l *lineWriter) line(b []byte) error {
	_, err := fmt.Fprintln(l.to, printable(strings.ToValidUTF8(string(b), string(utf8.RuneError))))
	return err
}

func newInfoCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var form, file string
	var changes bool
	cmd := &cobra.Command{
		Use:   "info BOX",
		Short: "Print the inventory of a box",
		Long: `Prints the inventory that the box's latest action has taken: the machine, its disks, its network
cards. ` + "`testbox refresh-info BOX`" + ` takes a new one. The form zip has the raw sources too, and needs
--output. --changes says what is different from the latest inventory that told of another machine: other
parts, disks or firmware, or more errors of a disk.`,
		Example: "  testbox info web-1\n  testbox info web-1 --changes\n" +
			"  testbox info web-1 --form json\n  testbox info web-1 --form zip --output web-1.zip",
		Args: takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "json", "zip"}, form) {
				return wrong("--form %s: the forms are text, json and zip", form)
			}
			if form == "zip" && file == "" {
				return wrong("the form zip is no text; say --output FILE")
			}
			return f.with(func(c *apiclient.Client) error {
				if changes {
					return printChanges(cmd, c, args[0], form == "json")
				}
				path := apiclient.Path("boxes", args[0], "inventory") + "?form=" + form
				if file == "" {
					out := &lineWriter{to: cmd.OutOrStdout()}
					return errors.Join(c.Get(cmd.Context(), path, out), out.flush())
				}
				var b bytes.Buffer
				if err := c.Get(cmd.Context(), path, &b); err != nil {
					return err
				}
				return os.WriteFile(file, b.Bytes(), 0o644)
			})
		},
	}
	cmd.Flags().BoolVar(&changes, "changes", false, "say only what has changed")
	cmd.Flags().StringVar(&form, "form", "text", "the `FORM`: text, json or zip")
	cmd.Flags().StringVar(&file, "output", "", "write it to this `FILE`")
	forms := cobra.FixedCompletions([]string{"text", "json", "zip"}, cobra.ShellCompDirectiveNoFileComp)
	mustComplete(cmd.RegisterFlagCompletionFunc("form", forms))
	f.add(cmd)
	return cmd
}

func printChanges(cmd *cobra.Command, c *apiclient.Client, box string, asJSON bool) error {
	p := printerOf(cmd)
	var changes api.InventoryChanges
	if err := c.Do(cmd.Context(), "GET", apiclient.Path("boxes", box, "inventory", "changes"), nil, &changes); err != nil {
		return err
	}
	switch {
	case asJSON:
		return printJSON(p, changes)
	case changes.Before.IsZero():
		p.tellf("no other machine was seen in this box since the server keeps inventories")
		return nil
	}
	p.tellf("%s, and before that, %s:", changes.Time.Format(time.RFC3339), changes.Before.Format(time.RFC3339))
	var rows []string
	for _, d := range changes.Changes {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\n", printable(d.What), printable(d.Is), printable(d.Was)))
	}
	table(p, "WHAT\tNOW\tBEFORE", rows)
	if changes.More {
		p.tellf("more has changed than is listed")
	}
	return nil
}
