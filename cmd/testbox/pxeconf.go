package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/site"
)

// pxeOptions are the flags of pxe-conf.
type pxeOptions struct {
	dir     string
	disks   string
	replace bool
	show    bool
	wait    bool
	limit   time.Duration // of wait; 0 is none
	expire  time.Duration // 0 is the site's
	check   string
	accept  bool
	raw     bool
	image   string
	failing bool
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

With --wait it goes on after arming: it prints what the boxes log of this arming, and ends when
each has said how its action ended. Somebody has to restart the boxes. Interrupted, it leaves them
armed; 'testbox pxe-conf status BOX' says how they go on. The exit code is that of the action, of
several boxes that of the worst:
  5  the arming expired before the box began
  7  the box is up for rescue
  8  a box has not ended yet: --wait was interrupted, or its time is over`,
		Example: `  testbox pxe-conf 10.165.98.220 backup
  testbox pxe-conf box1 box2 box3 restore --expire 2h
  testbox pxe-conf 10.165.98.220 restore --disks sda,/dev/disk/by-id/wwn-0x5000c500a1b2c3d4
  testbox pxe-conf 10.165.98.220 restore --image=old --replace
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
			if cmd.Flags().Changed("expire") && (o.expire < site.MinExpire || o.expire > site.MaxExpire) {
				return wrong("--expire %s is shorter than 1m or longer than 2160h (90 days)", o.expire)
			}
			// An empty variable in somebody's script must not mean all disks.
			for _, name := range []string{"disks", "image", "precheck"} {
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return wrong("--%s is empty; give it a value or leave it out", name)
				}
			}
			o.wait = cmd.Flags().Changed("wait")
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
			return runPxeConf(cmd, w, o, args[:len(args)-1], args[len(args)-1])
		},
	}
	cmd.PersistentFlags().StringVarP(&o.dir, "config", "c", "", "folder of boot files, `DIR` (default: this program's own folder if it is one, "+strings.Join(w.configDirs, ", ")+")")
	f := cmd.Flags()
	f.StringVar(&o.disks, "disks", "", "only these disks, comma-separated `LIST`: kernel names, /dev paths, by-id and by-path names, serials")
	f.BoolVar(&o.replace, "replace", false, "arm boxes that are armed already; what they were armed for is forgotten")
	f.BoolVar(&o.show, "show", false, "check everything and print the boot files, but write nothing")
	f.DurationVar(&o.limit, "wait", 0, "arm, then follow the boxes' logs until their actions have ended; with a `TIME` such as --wait=2h no longer than that")
	f.Lookup("wait").NoOptDefVal = "0s"
	f.DurationVar(&o.expire, "expire", 0, "how long the arming counts, such as 90m or 48h (default: expire in site.conf)")
	f.StringVar(&o.check, "precheck", "", "with `size`, restore checks only the sizes of the images before it begins to write, and not every byte")
	f.BoolVar(&o.accept, "accept-machine", false, "restore although the images were made on another machine")
	f.BoolVar(&o.failing, "accept-failing", false, "back up a disk of which much, or the partition table, cannot be read; what cannot is zeros in its image")
	f.BoolVar(&o.raw, "raw", false, "restore or verify images without a sidecar, whatever their content looks like")
	f.StringVar(&o.image, "image", "", "with `old`, restore or verify takes the .old images")
	mustComplete(cmd.MarkPersistentFlagDirname("config"))
	mustComplete(cmd.RegisterFlagCompletionFunc("precheck", cobra.FixedCompletions([]string{"size"}, cobra.ShellCompDirectiveNoFileComp)))
	mustComplete(cmd.RegisterFlagCompletionFunc("image", cobra.FixedCompletions([]string{"old"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(newPxeListCmd(w, &o.dir), newPxeStatusCmd(w, &o.dir), newPxeDisarmCmd(w, &o.dir))
	return cmd
}

// mustComplete is for errors that only a flag misspelled in the source gives.
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

// options makes the part of the command line that the flags decide.
func (o pxeOptions) options(action box.Action) (c bootcfg.Cmdline, err error) {
	writes, reads := action == box.Restore, action == box.Restore || action == box.Verify
	images := reads || action == box.Backup || action == box.BackupAgain
	switch {
	case o.disks != "" && !images:
		return c, wrong("--disks means nothing to %s", action)
	case o.check != "" && o.check != "size":
		return c, wrong("--precheck=%s: only size is possible", o.check)
	case o.check != "" && !writes:
		return c, wrong("--precheck is for restore, not for %s", action)
	case o.accept && !writes:
		return c, wrong("--accept-machine is for restore, not for %s", action)
	case o.raw && !reads:
		return c, wrong("--raw is for restore and verify, not for %s", action)
	case o.image != "" && o.image != "old":
		return c, wrong("--image=%s: only old is possible", o.image)
	case o.failing && action != box.Backup && action != box.BackupAgain:
		return c, wrong("--accept-failing is for backup and backup-again, not for %s", action)
	case o.image != "" && !reads:
		return c, wrong("--image is for restore and verify, not for %s", action)
	}
	c = bootcfg.Cmdline{
		Action: action, PrecheckSize: o.check != "", AcceptMachine: o.accept, OldImages: o.image != "", AcceptFailing: o.failing, Raw: o.raw,
	}
	if o.disks != "" {
		if c.Disks, err = bootcfg.ParseDisks(o.disks); err != nil {
			return c, wrong("--disks: %w", err)
		}
	}
	return c, nil
}

// armPlan is a boot file to be written.
type armPlan struct {
	target target
	file   bootcfg.BootFile
	text   []byte
}

func runPxeConf(cmd *cobra.Command, w world, o pxeOptions, boxes []string, actionName string) error {
	action, err := box.ParseAction(actionName)
	if err != nil {
		return wrong("%w; the action comes last", err)
	}
	common, err := o.options(action)
	if err != nil {
		return err
	}
	folder, err := openFolder(w, o.dir)
	if err != nil {
		return err
	}
	base, form, err := folder.template(common, action)
	if err != nil {
		return err
	}
	plan, err := makePlan(cmd.Context(), w, folder, o, base, boxes)
	if err != nil {
		return err
	}
	if o.show {
		for _, p := range plan {
			fmt.Fprintf(cmd.OutOrStdout(), "# %s, for %s; not written\n%s", folder.path(p.target.addr.Hex()), p.target, p.text)
		}
	}
	var wt *waiter
	if o.wait {
		if wt, err = newWaiter(cmd, w, folder, plan); err != nil {
			return err
		}
	}
	if !o.show {
		if err := writePlan(cmd, w, folder, plan, form); err != nil {
			return err
		}
	}
	for _, warning := range folder.foresee(plan, base.site) { // last, where it is seen
		cmd.PrintErrf("testbox: WARNING: %s\n", warning)
	}
	if o.wait {
		return wt.wait(cmd.Context(), o.limit)
	}
	return nil
}

// armTemplate is what the boot files of one command have in common.
type armTemplate struct {
	file bootcfg.BootFile
	site *site.Site
}

// template checks the folder and reads what is the same for all boxes. It also
// gives the maintenance system's version.
func (f *pxeFolder) template(c bootcfg.Cmdline, action box.Action) (*armTemplate, *bootcfg.Version, error) {
	if err := f.checkDefault(); err != nil {
		return nil, nil, err
	}
	if err := f.checkDisarm(); err != nil {
		return nil, nil, err
	}
	s, err := f.site()
	if err != nil {
		return nil, nil, err
	}
	v, err := f.version(s.Maintenance, action)
	if err != nil {
		return nil, nil, err
	}
	if err := f.checkServed(v.KernelPath(), v.InitrdPath()); err != nil {
		return nil, nil, err
	}
	c.TFTP = bootcfg.NFSPath{Server: s.Server, Path: s.TFTPPath}
	c.Backup = bootcfg.NFSPath{Server: s.Server, Path: s.BackupPath}
	if v.Form == bootcfg.FormDebian {
		c.Root = bootcfg.NFSPath{Server: s.Server, Path: path.Join(s.RootPath, v.Version)}
	}
	c.Retry = s.Retry
	return &armTemplate{bootcfg.BootFile{Cmdline: c, Kernel: v.KernelPath(), Initrd: v.InitrdPath(), Args: s.KernelArgs, LocalBoot: s.LocalBoot}, s}, v, nil
}

// makePlan checks every box and makes its boot file. All that is wrong with
// any box is one error, and then nothing is written for any.
func makePlan(ctx context.Context, w world, f *pxeFolder, o pxeOptions, base *armTemplate, boxes []string) ([]armPlan, error) {
	targets, err := resolveAll(ctx, w, boxes)
	if err != nil {
		return nil, err
	}
	plan := make([]armPlan, len(targets))
	errs := make([]error, len(targets))
	for i, t := range targets {
		if errs[i] = f.checkBox(w, t, o.replace); errs[i] == nil {
			plan[i], errs[i] = base.plan(t, w.now(), o.expire)
		}
	}
	return plan, errors.Join(errs...)
}

// resolveAll finds the boxes' addresses and names, many at a time because
// name servers can be slow. A box that is named twice is an error.
func resolveAll(ctx context.Context, w world, boxes []string) ([]target, error) {
	targets, errs := make([]target, len(boxes)), make([]error, len(boxes))
	var g errgroup.Group
	g.SetLimit(16)
	for i, given := range boxes {
		g.Go(func() error {
			if targets[i], errs[i] = w.resolve(ctx, given); errs[i] == nil {
				targets[i].host = w.name(ctx, targets[i])
			}
			return nil
		})
	}
	g.Wait() // what failed is in errs
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	seen := map[box.Addr]target{}
	for _, t := range targets {
		if first, twice := seen[t.addr]; twice {
			return nil, wrong("%s and %s are the same box", first, t)
		}
		seen[t.addr] = t
	}
	return targets, nil
}

// checkBox refuses a box that is armed, and one that would not take its file.
func (f *pxeFolder) checkBox(w world, t target, replace bool) error {
	a, err := f.arming(t.addr)
	if err != nil {
		return err
	}
	switch {
	case a == nil:
	case a.cmd == nil:
		return refused("%s has a boot file that is not ours, %s (%w); move it away first", t, f.path(t.addr.Hex()), a.err)
	case !replace && a.expired(w.now()):
		return refused("%s is still armed for %s, which expired; add --replace, or disarm it with `testbox pxe-conf disarm %s`", t, a.cmd.Action, t.addr)
	case !replace:
		return refused("%s is armed already, for %s (arming %s); add --replace, or disarm it with `testbox pxe-conf disarm %s`", t, a.cmd.Action, a.cmd.Arming, t.addr)
	}
	if err := f.checkShadows(w, t); err != nil {
		return err
	}
	return f.checkLater(t)
}

// plan makes the boot file of one box.
func (b *armTemplate) plan(t target, now time.Time, expire time.Duration) (armPlan, error) {
	p := armPlan{target: t, file: b.file}
	c := &p.file.Cmdline
	if expire == 0 {
		expire = b.site.Expire
	}
	c.Arming, c.Address, c.Host, c.Expires = box.NewArming(), t.addr, t.host, now.Add(expire).UTC().Truncate(time.Second)
	c.Net = bootcfg.IPConfig{DHCP: true, Device: b.site.Device}
	if b.site.Static {
		c.Net = bootcfg.IPConfig{Address: t.addr.IP(), Server: b.site.Server, Gateway: b.site.Gateway, Netmask: b.site.Netmask, Host: "maintenance", Device: b.site.Device}
	}
	var err error
	if p.text, err = bootcfg.Generate(p.file); err != nil {
		return p, wrong("%s: %w; see --disks and site.conf", t, err)
	}
	return p, nil
}

// maxSkew is how far the clocks of this machine and the storage server may be
// apart before it is said: the box counts the expiry by the server's.
const maxSkew = 5 * time.Minute

// writePlan arms the boxes one after the other. If that fails, what was said
// before the error is armed and the rest is not.
func writePlan(cmd *cobra.Command, w world, f *pxeFolder, plan []armPlan, v *bootcfg.Version) error {
	for _, p := range plan {
		name := f.path(p.target.addr.Hex())
		if err := durable.WriteFile(f.fsys, name, p.text, 0o644); err != nil {
			return fmt.Errorf("%s is not armed, nor are the boxes after it: %w", p.target, asRoot(err))
		}
		if err := tftpError(f.unserved(filepath.Join(bootcfg.ConfigDir, p.target.addr.Hex()))); err != nil {
			return errors.Join(fmt.Errorf("%s is not armed, nor are the boxes after it: %w", p.target, err), durable.Remove(f.fsys, name))
		}
		c := p.file.Cmdline
		fmt.Fprintf(cmd.OutOrStdout(), "%s: armed for %s until %s, arming %s, maintenance system %s (%s); restart the box\n",
			p.target, c.Action, c.Expires.Format(time.RFC3339), c.Arming, v.Version, v.Form)
		if st, err := os.Stat(name); err == nil && st.ModTime().Sub(w.now()).Abs() > maxSkew {
			cmd.PrintErrf("testbox: the storage server's clock is %s away from this machine's, and the arming expires by the server's\n",
				st.ModTime().Sub(w.now()).Abs().Round(time.Second))
		}
	}
	return nil
}
