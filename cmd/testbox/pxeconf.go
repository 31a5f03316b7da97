package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/follow"
	"testbox-imaging/internal/site"
)

// pxeOptions are the flags of pxe-conf.
type pxeOptions struct {
	dir      string
	disks    string
	mapped   string
	shrink   bool
	replace  bool
	show     bool
	wait     bool
	limit    time.Duration // how long wait waits; 0 is no limit
	expire   time.Duration // 0 is the site's value
	precheck string
	accept   bool
	raw      bool
	image    string
	failing  bool
	from     string
	hooks    string
}

func newPxeConfCmd(w world) *cobra.Command {
	var o pxeOptions
	cmd := &cobra.Command{
		Use:   "pxe-conf [-c DIR] BOX [BOX...] ACTION",
		Short: "Arm boxes: what they do at their next start from the network",
		Long: `Arms boxes. An armed box boots the maintenance system at its next start from the network,
does the action, disarms itself and starts its own disk again. This command does not restart
the box.

BOX is the IPv4 address that the box boots with, or a host name that resolves to it.
ACTION is one of:
  backup         save all disks; refused at the box if it has a backup already
  backup-again   save all disks; the images before are kept as .old
  restore        write the images back
  verify         say what differs between disks and images; writes nothing
  refresh-info   take the inventory only
  rescue         keep the box up, with ssh and console; needs a maintenance system of the form debian

Everything is checked for all boxes before the first is armed. Where the backup area is at hand,
beside the TFTP area, a warning says what a box will refuse, such as a restore without an image, a
disk that its inventory does not have, or files that it may not read; it is armed all the same, for
that can be put right. An arming expires, so that a forgotten restore does not wipe a box weeks
later. What is the same for all boxes (server, network, version of the maintenance system) stands in
site.conf in the folder of boot files.

In the area of a storage server the command asks the server for jobs, as ` + "`testbox backup`" + ` and its
like do. --image=old is the backup before the latest there.

With --wait it goes on after arming: it prints what the boxes log of this arming, and ends when
each has said how its action ended. Somebody has to restart the boxes. Interrupted, it leaves them
armed; ` + "`testbox pxe-conf status BOX`" + ` says how they go on. The exit code is that of the action, of
several boxes that of the worst:
  5  the arming expired before the box began
  7  the box is up for rescue
  8  a box has not ended yet: --wait was interrupted, or its time is over`,
		Example: `  testbox pxe-conf 10.165.98.220 backup
  testbox pxe-conf box1 box2 box3 restore --expire 2h
  testbox pxe-conf 10.165.98.220 restore --disks sda,/dev/disk/by-id/wwn-0x5000c500a1b2c3d4
  testbox pxe-conf 10.165.98.220 restore --map sda=nvme0n1
  testbox pxe-conf 10.165.98.220 restore --image=old --replace
  testbox pxe-conf web-2 restore --from web-1 --hooks hostname,machine-id,ssh-keys
  testbox pxe-conf 10.165.98.220 restore --show
  testbox pxe-conf box1 box2 backup-again --wait
  testbox pxe-conf list
  testbox pxe-conf status box1
  testbox pxe-conf disarm box1`,
		Args: pxeArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completePxe(w, o.dir, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Flags().Changed, args); err != nil {
				return err
			}
			return runArm(cmd.Context(), printerOf(cmd), w, o, args[:len(args)-1], args[len(args)-1])
		},
	}
	cmd.PersistentFlags().StringVarP(&o.dir, "config", "c", "",
		"folder of boot files, `DIR` (default: this program's own folder if it is one, "+strings.Join(w.configDirs, ", ")+")")
	f := cmd.Flags()
	f.StringVar(&o.disks, "disks", "", "only these disks, comma-separated `LIST`: kernel names, /dev paths, by-id and by-path names, serials")
	f.StringVar(&o.mapped, "map", "", mapHelp)
	f.BoolVar(&o.shrink, "shrink-table", false, shrinkHelp)
	f.BoolVar(&o.replace, "replace", false, "arm boxes that are armed already; what they were armed for is forgotten")
	f.BoolVar(&o.show, "show", false, "check everything and print the boot files, but write nothing")
	f.DurationVar(&o.limit, "wait", 0,
		"arm, then follow the boxes' logs until their actions have ended; with a `TIME` such as --wait=2h no longer than that")
	f.Lookup("wait").NoOptDefVal = "0s"
	f.DurationVar(&o.expire, "expire", 0, "how long the arming counts, such as 90m or 48h (default: expire in site.conf)")
	f.StringVar(&o.precheck, "precheck", "",
		"with `size`, restore checks only the sizes of the images before it begins to write, and not every byte")
	f.BoolVar(&o.accept, "accept-machine", false, "restore although the images were made on another machine")
	f.BoolVar(&o.failing, "accept-failing", false,
		"back up a disk of which much, or the partition table, cannot be read; what cannot is zeros in its image")
	f.BoolVar(&o.raw, "raw", false, "restore or verify images without a sidecar, whatever their content looks like")
	f.StringVar(&o.image, "image", "", "with `old`, restore or verify takes the .old images")
	f.StringVar(&o.from, "from", "", "use the images of another `BOX`, whose folder is only read; with --image=old its .old images")
	f.StringVar(&o.hooks, "hooks", "", hooksHelp)
	mustComplete(cmd.MarkPersistentFlagDirname("config"))
	mustComplete(cmd.RegisterFlagCompletionFunc("precheck", cobra.FixedCompletions([]string{"size"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("image", cobra.FixedCompletions([]string{"old"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("from", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return completeBoxes(w, o.dir)
	}))
	mustComplete(cmd.RegisterFlagCompletionFunc("hooks",
		cobra.FixedCompletions([]string{box.JoinHooks(box.Hooks)}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(newPxeListCmd(w, &o.dir), newPxeStatusCmd(w, &o.dir), newPxeDisarmCmd(w, &o.dir))
	return cmd
}

// hooksHelp is the help of --hooks.
var hooksHelp = "make the restored system that of this box, by a comma-separated `LIST` of " + box.JoinHooks(box.Hooks)

// mapHelp is the help of --map.
const mapHelp = "where images go, as comma-separated `IMAGE=DISK` such as sda=nvme0n1, with the DISK spelled as for --disks; " +
	"other images find their disks by themselves"

// shrinkHelp is the help of --shrink-table.
const shrinkHelp = "take a disk that is smaller than the image, if it is proved that nothing uses the image's end; " +
	"no partition is changed"

// mustComplete panics on an error that only a misspelled flag in the source
// causes.
func mustComplete(err error) {
	if err != nil {
		panic(err)
	}
}

func pxeArgs(_ *cobra.Command, args []string) error {
	if len(args) < 2 {
		return errors.New("give one box or more, then the action: " + box.ActionList())
	}
	return nil
}

// check refuses flags that make no sense together. given reports whether a flag
// was given.
func (o *pxeOptions) check(given func(flag string) bool, args []string) error {
	if given("expire") && !site.ValidExpire(o.expire) {
		return wrong("--expire %s is shorter than 1m or longer than 2160h (90 days)", o.expire)
	}
	// An empty variable in a user's script must not mean all disks.
	for flag, value := range map[string]string{"disks": o.disks, "map": o.mapped, "image": o.image, "precheck": o.precheck,
		"from": o.from, "hooks": o.hooks} {
		if given(flag) && value == "" {
			return wrong("--%s is empty; give it a value or leave it out", flag)
		}
	}
	o.wait = given("wait")
	for _, arg := range args {
		if d, err := time.ParseDuration(arg); err == nil && o.wait && o.limit == 0 {
			return wrong("%s is neither a box nor an action; the time of --wait stands behind an equals sign: --wait=%s", arg, d)
		}
	}
	switch {
	case o.wait && o.show:
		return wrong("--show arms nothing, so there is nothing for --wait to wait for")
	case o.limit < 0:
		return wrong("--wait=%s is negative", o.limit)
	}
	return nil
}

// options makes the part of the kernel command line that the flags decide.
func (o pxeOptions) options(action box.Action) (c bootcfg.Cmdline, err error) {
	switch {
	case o.precheck != "" && o.precheck != "size":
		return c, wrong("--precheck=%s: only size is possible", o.precheck)
	case o.image != "" && o.image != "old":
		return c, wrong("--image=%s: only old is possible", o.image)
	}
	c = bootcfg.Cmdline{
		Action: action, PrecheckSize: o.precheck != "", AcceptMachine: o.accept, OldImages: o.image != "",
		ShrinkTable: o.shrink, AcceptFailing: o.failing, Raw: o.raw,
	}
	if o.disks != "" {
		if c.Disks, err = bootcfg.ParseDisks(o.disks); err != nil {
			return c, wrong("--disks: %w", err)
		}
	}
	if o.mapped != "" {
		if c.Map, err = bootcfg.ParseMap(o.mapped); err != nil {
			return c, wrong("--map: %w", err)
		}
	}
	if o.hooks != "" {
		if c.Hooks, err = box.ParseHooks(o.hooks); err != nil {
			return c, wrong("--hooks: %w", err)
		}
	}
	return c, nil
}

func runArm(ctx context.Context, p printer, w world, o pxeOptions, boxes []string, actionName string) error {
	action, err := box.ParseAction(actionName)
	if err != nil {
		return wrong("%w; the action comes last", err)
	}
	c, err := o.options(action)
	if err != nil {
		return err
	}
	place, err := w.place(o.dir)
	if err != nil {
		return err
	}
	if ofServer(place) {
		return runPxeJob(ctx, p, w, o, boxes, action)
	}
	plan, err := place.Plan(ctx, arming.Request{Boxes: boxes, Cmdline: c, From: o.from, Replace: o.replace, Expire: o.expire})
	if err != nil {
		return err
	}
	var wait *follow.Waiter
	if o.wait {
		if wait, err = newWaiter(p, w, place, plan); err != nil {
			return err
		}
	}
	if o.show {
		for _, b := range plan.Boxes {
			p.printf("# %s, for %s; not written\n%s", place.Boot.BootFile(b.Addr), b.Target, b.Text)
		}
	} else if err := writePlan(p, place, plan, o.replace); err != nil {
		return err
	}
	for _, warning := range place.Foresee(plan) { // printed last, where people see it
		p.warnf("%s", warning)
	}
	if o.wait {
		return waitErr(wait.Wait(ctx, o.limit))
	}
	return nil
}

// writePlan arms the boxes one after the other. If it returns an error, the
// boxes that were printed before it are armed and the others are not.
func writePlan(p printer, place *arming.Place, plan *arming.Plan, replace bool) error {
	for i, b := range plan.Boxes {
		if err := place.Arm(b, replace); err != nil {
			return notArmed(plan, i, err)
		}
		c := b.Cmdline
		p.printf("%s: armed for %s until %s, arming %s, maintenance system %s (%s); restart the box\n",
			b.Target, c.What(), c.Expires.Format(time.RFC3339), c.Arming, plan.Version.Version, plan.Version.Form)
		if skew := place.Skew(b.Addr); skew.Abs() > follow.MaxSkew {
			p.notef("the storage server's clock is %s away from this machine's, and the arming expires by the server's",
				skew.Abs().Round(time.Second))
		}
	}
	return nil
}

// notArmed says that the i-th box of a plan and those after it are not armed. A
// refusal is one only if no box is armed yet.
func notArmed(plan *arming.Plan, i int, err error) error {
	what := fmt.Sprintf("%s is not armed for %s", plan.Boxes[i].Target, plan.Boxes[i].Cmdline.Action)
	if i < len(plan.Boxes)-1 {
		what += ", and the boxes after it are not armed"
	}
	err = fmt.Errorf("%s: %w", what, asRoot(err))
	if i > 0 {
		err = &exitError{exitFailed, err}
	}
	return err
}

// newWaiter makes a Waiter for the boxes of a plan. They must not be armed yet.
func newWaiter(p printer, w world, place *arming.Place, plan *arming.Plan) (*follow.Waiter, error) {
	area, err := place.Backup()
	if err != nil {
		return nil, err
	}
	wait := &follow.Waiter{
		Boot: place.Boot, Now: w.now, Poll: w.poll,
		Say:  func(line string) { p.printf("%s\n", line) },
		Warn: func(line string) { p.notef("%s", line) },
	}
	for _, b := range plan.Boxes {
		if err := wait.Add(follow.Box{Name: b.Target.String(), Cmdline: b.Cmdline}, area); err != nil {
			return nil, err
		}
	}
	return wait, nil
}

// waitErr joins the ends of all boxes into one error. It returns nil if all are
// done.
func waitErr(ends []follow.End) error {
	var codes []int
	var lines []string
	for _, end := range ends {
		code := outcomeCode(end.Outcome)
		if codes = append(codes, code); code != exitDone {
			lines = append(lines, fmt.Sprintf("%s: %s", end.Name, end.Text))
		}
	}
	return worst(codes, lines)
}
