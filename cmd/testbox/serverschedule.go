package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
)

func newScheduleCmd(w world) *cobra.Command {
	return newGroupCmd("schedule", "Show, run, pause and resume the schedules of a server",
		`Shows, runs, pauses and resumes the schedules of a server: what it does again and again to boxes, such as
the backups of each night. Schedules are made in the server's configuration, as [schedules.NAME].`,
		newScheduleListCmd(w), newScheduleShowCmd(w), newScheduleRunCmd(w), newSchedulePauseCmd(w, true), newSchedulePauseCmd(w, false))
}

func newScheduleListCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List schedules, with their next and last starts",
		Long: `Lists schedules, with their next and last starts, by the clock of each schedule's time zone. LATEST JOBS is
how the latest job of each box stands that the schedule has made. MISSED is when starts were missed last.`,
		Example: "  testbox schedule list\n  testbox schedule list --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var all []api.Schedule
				if err := c.Do(cmd.Context(), "GET", apiclient.Path("schedules"), nil, &all); err != nil {
					return err
				}
				if asJSON {
					return printJSON(p, all)
				}
				if len(all) == 0 {
					p.tellf("there is no schedule; [schedules.NAME] in the server's configuration makes one")
					return nil
				}
				var rows []string
				for _, v := range all {
					missed := ""
					if v.Missed != nil {
						missed = zoned(v.Missed.At)
					}
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", printable(v.Name), printable(v.When), printable(v.Zone),
						printable(string(v.Action)), v.Boxes, nextText(v), zoned(v.Last), printable(outcomesText(v.Outcomes)), missed))
				}
				table(p, "SCHEDULE\tWHEN\tZONE\tACTION\tBOXES\tNEXT\tLAST\tLATEST JOBS\tMISSED", rows)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the schedules as JSON")
	f.add(cmd)
	return cmd
}

// zoned is a time by the clock of the zone that it was given in.
func zoned(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02 15:04 -0700")
}

func nextText(v api.Schedule) string {
	if v.Paused != nil {
		return "paused"
	}
	return zoned(v.Next)
}

// outcomesText says how many jobs ended how.
func outcomesText(all map[string]int) string {
	var parts []string
	for _, word := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d %s", all[word], word))
	}
	return strings.Join(parts, ", ")
}

func printSchedule(p printer, v api.Schedule) {
	line := func(name, value string) {
		if value != "" {
			p.printf("%-12s %s\n", name+":", printable(value))
		}
	}
	note := func(name string, n *api.ScheduleNote) {
		if n != nil {
			line(name, zoned(n.At)+": "+n.Text)
		}
	}
	line("schedule", v.Name)
	line("action", string(v.Action))
	line("boxes", fmt.Sprintf("%d, of %s", v.Boxes, strings.Join(v.Targets, ", ")))
	for _, text := range v.Problems {
		line("problem", text)
	}
	line("when", v.When+" in the time zone "+cmp.Or(v.Zone, "of the server"))
	line("in words", v.Text)
	if d := v.Paused; d != nil {
		text := fmt.Sprintf("by %s since %s", d.By, zoned(d.Since))
		if d.Why != "" {
			text += " (" + d.Why + ")"
		}
		line("paused", text)
	}
	line("next", zoned(v.Next))
	line("last", zoned(v.Last))
	line("latest jobs", outcomesText(v.Outcomes))
	note("missed", v.Missed)
	note("left out", v.Left)
}

// scheduleCmd makes a command about one schedule, which prints it as it is then.
func scheduleCmd(w world, use, short, long, example string,
	do func(ctx context.Context, c *apiclient.Client, name string, v *api.Schedule) error) *cobra.Command {
	return thingCmd(w, "schedule", printSchedule, &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: takesWords(1, 1)},
		func(cmd *cobra.Command, c *apiclient.Client, args []string, v *api.Schedule) error {
			return do(cmd.Context(), c, args[0], v)
		})
}

func newScheduleShowCmd(w world) *cobra.Command {
	return scheduleCmd(w, "show SCHEDULE", "Show a schedule, and what it has missed",
		`Shows a schedule: its next starts in words, how its latest jobs stand, what it has missed and which boxes it
left out.`,
		"  testbox schedule show nightly", func(ctx context.Context, c *apiclient.Client, name string, v *api.Schedule) error {
			return c.Do(ctx, "GET", apiclient.Path("schedules", name), nil, v)
		})
}

func newSchedulePauseCmd(w world, pause bool) *cobra.Command {
	var why string
	word, short := "resume", "Let a paused schedule go on"
	long := `Lets a paused schedule go on with its next start. What it would have done while it was paused is not
made up for.`
	if pause {
		word, short = "pause", "Let a schedule make no jobs until it is resumed"
		long = `Lets a schedule make no jobs until ` + "`testbox schedule resume`" + `, also after a restart of the server. Jobs
that it has made stay; ` + "`testbox cancel`" + ` ends them.`
	}
	cmd := scheduleCmd(w, word+" SCHEDULE", short, long, "  testbox schedule "+word+" nightly",
		func(ctx context.Context, c *apiclient.Client, name string, v *api.Schedule) error {
			return c.Do(ctx, "POST", apiclient.Path("schedules", name, word), api.Reason{Why: why}, v)
		})
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	return cmd
}

func newScheduleRunCmd(w world) *cobra.Command {
	o := jobOptions{serverFlag: serverFlag{world: w}}
	cmd := &cobra.Command{
		Use:   "run SCHEDULE",
		Short: "Make the jobs of a schedule now",
		Long: `Makes the jobs of a schedule now, as yours. Boxes that can have none now are left out, and the command says
why. The schedule's own next start stays as it is.

With --wait the command shows how each box goes on, and ends when all have ended, as
` + "`testbox backup --wait`" + ` does.`,
		Example: "  testbox schedule run nightly\n  testbox schedule run nightly --wait --timeout 3h",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return err
			}
			if o.wait == "up" {
				return wrong("--wait=up is for jobs that you ask for by box; give --wait")
			}
			p := printerOf(cmd)
			return o.with(func(c *apiclient.Client) error {
				q := api.RunSchedule{Why: o.why, Key: cmp.Or(o.key, "once-"+rand.Text())}
				var ran api.ScheduleRun
				if err := c.Do(cmd.Context(), "POST", apiclient.Path("schedules", args[0], "run"), q, &ran); err != nil {
					return err
				}
				for _, text := range ran.LeftOut {
					p.warnf("left out: %s", printable(text))
				}
				if o.wait != "" {
					return o.follow(cmd.Context(), p, c, ran.Jobs)
				}
				if o.asJSON {
					return printJSON(p, ran)
				}
				for _, j := range ran.Jobs {
					p.printf("%s: %s; `testbox jobs %s` says how it goes on\n", nameOf(j), jobText(j), j.Box)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.wait, "wait", "", "wait until the jobs have ended")
	f.Lookup("wait").NoOptDefVal = "end"
	f.DurationVar(&o.limit, "timeout", 0, "with --wait, wait no longer than this `TIME`, such as 40m (default: no limit)")
	f.StringVar(&o.key, "job-key", "", "the same command with the same `KEY` is about the same jobs, so it can be repeated")
	f.StringVar(&o.why, "why", "", "the `REASON`, for the audit log")
	f.BoolVar(&o.asJSON, "json", false, "print the jobs as JSON, at the end")
	o.add(cmd)
	return cmd
}
