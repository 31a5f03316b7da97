package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
)

// jobOptions are the flags of a command that asks for jobs.
type jobOptions struct {
	serverFlag
	wait    string // "", "end" or "up"
	limit   time.Duration
	disks   string
	mapped  string
	shrink  bool
	image   string
	from    string
	hooks   string
	key     string
	why     string
	asJSON  bool
	accept  bool
	failing bool
	allUsed bool
	login   rescueLogin
}

// actionText is what the help says of an action.
var actionText = map[box.Action]struct{ short, long string }{
	box.Backup: {"Back up the disks of boxes into the server's store",
		`Backs up the disks of boxes into the server's store. Only what is not there yet is sent.`},
	box.BackupAgain: {"The same as backup, as share mode has it",
		`Backs up the disks of boxes, as "backup" does: a store keeps all backups, so both are the same here.`},
	box.Restore: {"Write a backup back to the disks of boxes",
		`Writes a backup back to the disks of boxes, and reads all of it back. Without --image it is the box's
baseline, or else its latest backup. If a restore fails after its first write, the box stays in
maintenance, since its disk is not fit to run: restore it again, or ` + "`testbox release BOX`" + `.`},
	box.Verify: {"Say what differs between boxes and a backup",
		`Compares the disks of boxes with a backup, and writes nothing. Without --image it is the box's
baseline, or else its latest backup.`},
	box.RefreshInfo: {"Take the inventory of boxes", `Takes the inventory of boxes, and does no more. ` + "`testbox info BOX`" + ` shows it.`},
	box.Rescue: {"Keep boxes up for people, with ssh and console",
		`Keeps boxes up for people, with ssh and console, until ` + "`testbox finish BOX`" + `. With --wait the command
ends when all of them are up. With --ssh it logs in to the box when it is up, by ssh and with the
host key that the box has told the server; a key of the box's own system is not taken. A rescue that
the box has already is used. What stands behind -- goes to ssh, and the exit code is that of ssh.`},
}

const jobHelp = `

BOX is an address, a name, a MAC or a UUID; group:NAME, label:NAME and box:NAME say which is meant.
All boxes get a job, or none does. A box begins when the queue lets it, and when it starts from the
network. The server restarts it if it knows how, which no server does yet: somebody has to, when it
says "armed; restart the box".

With --wait the command shows how each box goes on, and ends when all have ended; with --wait=up
when each has its own system up again, if the server can find that out. Of boxes that restore the same
backup, and get chunks of it from each other, it also says how they go on together. Its exit code is
that of the job, of several boxes that of the worst. Interrupted, or when --timeout is over, it leaves
the jobs alone and says how to look again.`

// newActionCmds makes the commands that ask a server for an action.
func newActionCmds(w world) (all []*cobra.Command) {
	for _, a := range box.Actions {
		all = append(all, newActionCmd(w, a))
	}
	return all
}

func newActionCmd(w world, action box.Action) *cobra.Command {
	o := jobOptions{serverFlag: serverFlag{world: w}}
	text := actionText[action]
	cmd := &cobra.Command{
		Use:   string(action) + " BOX|GROUP...",
		Short: text.short,
		Long:  text.long + jobHelp,
		Example: fmt.Sprintf(`  testbox %[1]s 10.40.41.42 --wait
  testbox %[1]s web-1 group:rack3 --wait --timeout 40m
  testbox %[1]s label:nightly --job-key nightly-2026-11-29 --json`, action),
		Args: takesWords(1, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); action == box.Rescue && n >= 0 {
				args, o.login.args = args[:n], args[n:]
			}
			if err := o.check(cmd.Flags().Changed); err != nil {
				return err
			}
			if err := o.login.check(cmd.Flags().Changed, args); err != nil {
				return err
			}
			return o.with(func(c *apiclient.Client) error { return o.run(cmd.Context(), printerOf(cmd), c, action, args) })
		},
	}
	if action == box.Rescue {
		cmd.Example = `  testbox rescue 10.40.41.42 --wait
  testbox rescue web-1 --ssh
  testbox rescue web-1 --ssh=testbox -- -i ~/.ssh/lab sudo lsblk`
	}
	f := cmd.Flags()
	f.StringVar(&o.wait, "wait", "", "wait until the jobs have ended; with `up` also until the boxes' own systems are up")
	f.Lookup("wait").NoOptDefVal = "end"
	f.DurationVar(&o.limit, "timeout", 0, "with --wait, wait no longer than this `TIME`, such as 40m (default: no limit)")
	f.StringVar(&o.key, "job-key", "", "the same command with the same `KEY` is about the same jobs, so it can be repeated")
	f.StringVar(&o.why, "why", "", "the `REASON`, for the audit log")
	f.BoolVar(&o.asJSON, "json", false, "print the jobs as JSON, at the end")
	if action == box.Rescue {
		f.StringVar(&o.login.user, "ssh", "", "log in to the box when it is up, as this `USER` (without =USER as root)")
		f.Lookup("ssh").NoOptDefVal = "root"
	}
	if slices.Contains([]box.Action{box.Backup, box.BackupAgain, box.Restore, box.Verify}, action) {
		f.StringVar(&o.disks, "disks", "", "only these disks, comma-separated `LIST`: kernel names, /dev paths, by-id and by-path names, serials")
	}
	switch action {
	case box.Restore, box.Verify:
		f.BoolVar(&o.shrink, "shrink-table", false, shrinkHelp)
		f.StringVar(&o.mapped, "map", "", mapHelp)
		f.StringVar(&o.from, "from", "", "use the backup of another `BOX`; --image is then one of its backups")
		if action == box.Restore {
			f.StringVar(&o.hooks, "hooks", "", hooksHelp)
		}
		f.StringVar(&o.image, "image", "", "the `BACKUP`: its id, latest, latest~1, baseline or a date; --from names another box")
		f.BoolVar(&o.accept, "accept-machine", false, "take a machine in place of the one that is known")
	case box.Backup, box.BackupAgain:
		f.BoolVar(&o.accept, "accept-machine", false, "take a machine in place of the one that is known")
		f.BoolVar(&o.failing, "accept-failing", false,
			"back up a disk of which much, or the partition table, cannot be read; what cannot is zeros in its image")
		f.BoolVar(&o.allUsed, "all-used", false, "back up all of each disk, whatever its file systems say is used")
	}
	o.add(cmd)
	return cmd
}

// check refuses flags that make no sense together. given reports whether a flag was
// given.
func (o *jobOptions) check(given func(flag string) bool) error {
	// An empty variable in a user's script must not mean all disks.
	for flag, value := range map[string]string{"disks": o.disks, "map": o.mapped, "image": o.image, "from": o.from, "hooks": o.hooks,
		"job-key": o.key, "wait": o.wait} {
		if given(flag) && value == "" {
			return wrong("--%s is empty; give it a value or leave it out", flag)
		}
	}
	switch {
	case o.wait != "" && o.wait != "end" && o.wait != "up":
		return wrong("--wait=%s: only up is possible; the time is given by --timeout", o.wait)
	case given("timeout") && o.wait == "" && o.login.user == "":
		return wrong("--timeout is for --wait")
	case given("timeout") && o.limit <= 0:
		return wrong("--timeout %s is no time to wait", o.limit)
	}
	return nil
}

func (o *jobOptions) run(ctx context.Context, p printer, c *apiclient.Client, action box.Action, targets []string) error {
	q := api.NewJobs{Action: action, Targets: targets, WaitUp: o.wait == "up", Key: o.key, Why: o.why,
		Options: api.Options{Image: o.image, From: o.from, AcceptMachine: o.accept, AcceptFailing: o.failing,
			ShrinkTable: o.shrink, AllUsed: o.allUsed}}
	if q.Key == "" {
		q.Key = "once-" + rand.Text() // a request that is repeated after a broken connection makes no second job
	}
	if o.disks != "" {
		var err error
		if q.Options.Disks, err = bootcfg.ParseDisks(o.disks); err != nil {
			return wrong("--disks: %w", err)
		}
	}
	if o.mapped != "" {
		var err error
		if q.Options.Map, err = bootcfg.ParseMap(o.mapped); err != nil {
			return wrong("--map: %w", err)
		}
	}
	if o.hooks != "" {
		var err error
		if q.Options.Hooks, err = box.ParseHooks(o.hooks); err != nil {
			return wrong("--hooks: %w", err)
		}
	}
	if o.login.user != "" {
		return o.runSSH(ctx, p, c, q)
	}
	var list api.JobList
	if err := c.Do(ctx, "POST", apiclient.Path("jobs"), q, &list); err != nil {
		return err
	}
	if o.wait != "" {
		return o.follow(ctx, p, c, list.Jobs)
	}
	if o.asJSON {
		return printJSON(p, list.Jobs)
	}
	for _, j := range list.Jobs {
		p.printf("%s: %s; `testbox jobs %s` says how it goes on\n", nameOf(j), jobText(j), j.Box)
	}
	return nil
}

// nameOf is how a job's box is called.
func nameOf(j api.Job) string {
	if j.Name != "" {
		return printable(fmt.Sprintf("%s (%s)", j.Box, j.Name))
	}
	return printable(j.Box)
}

// jobText says in a line how a job stands.
func jobText(j api.Job) string {
	text := fmt.Sprintf("%s, job %s: ", j.Action, j.ID)
	switch {
	case j.State == job.Queued && j.Wait != nil:
		text += fmt.Sprintf("queued, place %d: %s", j.Wait.Place, j.Wait.Text)
	case j.State == job.Armed && j.Power:
		text += "armed; the server restarts the box"
	case j.State == job.Armed:
		text += "armed; restart the box"
	case j.State == job.Running && j.Cancel:
		text += "told to stop"
	case j.State == job.Running && j.Progress != nil:
		text += "at work: " + progressText(j.Progress) + peersText(j)
	case j.State == job.Running:
		text += "at work"
	case j.State == job.Restarting:
		text += "done; its own system starts"
	case j.State == job.Held:
		text += "HELD, since a disk is not fit to run: restore it again, or `testbox release " + j.Box + "`"
	case j.State == job.Rescue:
		text += "up for rescue; `testbox finish " + j.Box + "` ends that"
	case j.State == job.Ended:
		text += string(j.Outcome)
		switch j.Up {
		case job.UpYes:
			text += ", its own system is up"
		case job.UpNo:
			text += ", but its own system was not seen"
		}
		if j.Backup != "" {
			text += ", backup " + j.Backup
		}
		if len(j.Options.Hooks) > 0 {
			text += ", with hooks " + box.JoinHooks(j.Options.Hooks)
		}
		text += peersText(j)
	default:
		text += string(j.State)
	}
	if !j.Until.IsZero() && (j.State == job.Queued || j.State == job.Armed && j.Attempt <= 1) {
		text += " (it has to begin before " + shortTime(j.Until) + " UTC)"
	}
	if j.Attempt > 1 && j.State != job.Ended {
		text += fmt.Sprintf(" (attempt %d)", j.Attempt)
	}
	if j.Text != "" && j.State != job.Running {
		text += " (" + strings.TrimSuffix(j.Text, ".") + ")"
	}
	return printable(text)
}

// peersText says from where the chunks of a job came, if some came from other boxes.
func peersText(j api.Job) string {
	server, peers := j.Sources()
	if peers == 0 {
		return ""
	}
	return ", " + image.SourcesText(server, peers)
}

func progressText(g *api.Progress) string {
	switch {
	case g.Text != "":
		return g.Text
	case g.Total > 0:
		return fmt.Sprintf("%s %s of %s", g.Step, bytesText(g.Done), bytesText(g.Total))
	}
	return string(g.Step)
}

// jobCode is the exit code of a job as it is.
func jobCode(j api.Job) int {
	switch {
	case !j.Resting():
		return exitPending
	case j.State == job.Rescue:
		return exitRescue
	case j.State == job.Held, j.Wrote && j.Outcome == box.Refused:
		return exitFailed // a refusal would say that nothing was changed
	case j.Outcome == job.Cancelled:
		return exitCancelled
	case j.Up == job.UpNo && j.Outcome == box.Done:
		return exitNotUp
	}
	return j.Outcome.ExitCode()
}

// follow shows jobs until all have ended, and gives their exit code.
func (o *jobOptions) follow(ctx context.Context, p printer, c *apiclient.Client, jobs []api.Job) error {
	if o.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.limit, errTimeout)
		defer cancel()
	}
	board := newBoard(p, o.asJSON, jobs)
	var ids []string
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	settled := func(j api.Job) bool { return j.Resting() }
	err := c.Watch(ctx, ids, board.tell, settled)
	board.end()
	if o.asJSON {
		if err := printJSON(p, board.jobs()); err != nil {
			return err
		}
	}
	var codes []int
	var lines []string
	for _, j := range board.jobs() {
		code := jobCode(j)
		if code == exitPending && errors.Is(err, apiclient.ErrLost) {
			code = exitLost
		}
		if codes = append(codes, code); code != exitDone {
			lines = append(lines, fmt.Sprintf("%s: %s", nameOf(j), jobText(j)))
		}
	}
	look := fmt.Sprintf("nothing is changed by that; `testbox jobs %s` says how it goes on", strings.Join(openBoxes(board.jobs()), " "))
	switch {
	case err == nil:
	case errors.Is(err, errTimeout):
		lines = append(lines, fmt.Sprintf("not ended within %s; %s", o.limit, look))
	case errors.Is(err, context.Canceled):
		lines = append(lines, "interrupted; "+look)
	case errors.Is(err, apiclient.ErrLost):
		lines = append(lines, fmt.Sprintf("%v; %s", err, look))
	default:
		return err
	}
	return worst(codes, lines)
}

var errTimeout = errors.New("the time is over")

// openBoxes are the boxes whose jobs have not ended.
func openBoxes(jobs []api.Job) (all []string) {
	for _, j := range jobs {
		if !j.Ended() && len(all) < 10 {
			all = append(all, j.Box)
		}
	}
	return all
}

func newJobsCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var all, asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "jobs [BOX|JOB...]",
		Short: "List jobs of a server, or say how boxes or jobs go on",
		Long: `Lists the jobs that have not ended. With BOX it is the latest job of that box, whether it has ended
or not, and with JOB that job. The exit code says only whether the server has answered; with --wait
a command that asks for jobs gives the exit code of the jobs.`,
		Example: `  testbox jobs
  testbox jobs web-1 10.40.41.42
  testbox jobs --all --limit 20
  testbox jobs --json`,
		Args: takesWords(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > 100000 {
				return wrong("--limit %d: give a number from 1 to 100000", limit)
			}
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				jobs, err := listJobs(cmd.Context(), c, args, all, limit)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p, jobs)
				}
				return printJobs(p, jobs, all)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also jobs that have ended, the latest first")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most `N` jobs")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the jobs as JSON")
	f.add(cmd)
	return cmd
}

func listJobs(ctx context.Context, c *apiclient.Client, words []string, all bool, limit int) ([]api.Job, error) {
	jobs := []api.Job{}
	if len(words) == 0 {
		query := url.Values{}
		if !all {
			query.Set("open", "true")
		}
		return readJobs(ctx, c, query, limit)
	}
	for _, w := range words {
		some, err := jobsOf(ctx, c, w, all, limit)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, some...)
	}
	return jobs, nil
}

// readJobs reads the jobs that a query finds, page by page.
func readJobs(ctx context.Context, c *apiclient.Client, query url.Values, limit int) ([]api.Job, error) {
	jobs := []api.Job{}
	for len(jobs) < limit {
		query.Set("limit", fmt.Sprint(min(limit-len(jobs), 1000)))
		var page api.JobList
		if err := c.Do(ctx, "GET", apiclient.Path("jobs")+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		if jobs = append(jobs, page.Jobs...); page.Next == "" {
			break
		}
		query.Set("after", page.Next)
	}
	return jobs, nil
}

// jobsOf finds the jobs that a word means: those of a box, or a job by its id.
func jobsOf(ctx context.Context, c *apiclient.Client, word string, all bool, limit int) ([]api.Job, error) {
	if !all {
		limit = 1
	}
	jobs, err := readJobs(ctx, c, url.Values{"box": {word}}, limit)
	if err == nil && len(jobs) > 0 {
		return jobs, nil
	}
	var p *api.Problem
	if err != nil && (!errors.As(err, &p) || p.Code != api.CodeNotFound) {
		return nil, err
	}
	var j api.Job
	jobErr := c.Do(ctx, "GET", apiclient.Path("jobs", word), nil, &j)
	switch {
	case jobErr == nil:
		return []api.Job{j}, nil
	case errors.As(jobErr, &p) && (p.Code == api.CodeNotFound || p.Code == api.CodeWrong):
		if err == nil {
			return nil, wrong("the box %s never had a job", printable(word))
		}
		return nil, wrong("there is no box and no job %q", word)
	}
	return nil, jobErr
}

func printJobs(p printer, jobs []api.Job, all bool) error {
	if len(jobs) == 0 {
		if all {
			p.tellf("there never was a job")
		} else {
			p.tellf("no box has a job that has not ended; --all lists those that have")
		}
		return nil
	}
	var rows []string
	for _, j := range jobs {
		_, state, _ := strings.Cut(jobText(j), ": ")
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(j.ID), j.Box, printable(j.Name), printable(string(j.Action)),
			printable(j.By), shortTime(j.Asked), state))
	}
	table(p, "JOB\tBOX\tNAME\tACTION\tBY\tASKED\tSTATE", rows)
	if !all { // else older restores of the same backup would count
		for _, r := range api.Rooms(jobs) {
			for _, l := range slices.Concat(r.Lines, r.Troubles) {
				p.printf("%s\n", printable(l))
			}
		}
	}
	return nil
}

func newCancelCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var why, key string
	cmd := &cobra.Command{
		Use:   "cancel [JOB|BOX]",
		Short: "Cancel a job of a server",
		Long: `Cancels a job, or all jobs of a box that have not ended, or by --job-key those of your jobs with this
key that have not ended; if there is none with the key, nothing is to be done. A box that is at work is
told with its next report, and stops where it does no harm. A restore that has written to a disk by
then leaves the box in maintenance, since that disk is not fit to run.`,
		Example: `  testbox cancel web-1
  testbox cancel 20261129-202953-mtdy6cyo --why "wrong box"
  testbox cancel --job-key pipeline-17`,
		Args: takesWords(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch byKey := cmd.Flags().Changed("job-key"); {
			case byKey == (len(args) > 0):
				return wrong("name a job or a box, or give --job-key")
			case byKey && key == "":
				return wrong("--job-key is empty")
			}
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				jobs, err := cancels(cmd.Context(), c, args, key)
				if err != nil {
					return err
				}
				for _, j := range jobs {
					err := c.Do(cmd.Context(), "POST", apiclient.Path("jobs", j.ID, "cancel"), api.Reason{Why: why}, &j)
					var refusal *api.Problem
					if key != "" && errors.As(err, &refusal) && refusal.Code == api.CodeRefused {
						// It may have ended meanwhile, or be held, and a held job goes on in no way.
						if c.Do(cmd.Context(), "GET", apiclient.Path("jobs", j.ID), nil, &j) == nil && (j.Ended() || j.State == job.Held) {
							err = nil
						}
					}
					if err != nil {
						return err
					}
					p.printf("%s: %s\n", nameOf(j), jobText(j))
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	cmd.Flags().StringVar(&key, "job-key", "", "the jobs that you asked for with this `KEY`")
	f.add(cmd)
	return cmd
}

// cancels finds the jobs that are to be cancelled.
func cancels(ctx context.Context, c *apiclient.Client, words []string, key string) ([]api.Job, error) {
	if len(words) == 0 {
		var me api.Me
		if err := c.Do(ctx, "GET", apiclient.Path("me"), nil, &me); err != nil {
			return nil, err
		}
		return readJobs(ctx, c, url.Values{"by": {me.Name}, "key": {key}, "open": {"true"}}, 100000)
	}
	jobs, err := readJobs(ctx, c, url.Values{"box": {words[0]}, "open": {"true"}}, 1000)
	if err != nil || len(jobs) == 0 { // it may be the id of a job
		if jobs, err = jobsOf(ctx, c, words[0], false, 1); err != nil {
			return nil, err
		}
		if jobs[0].ID != words[0] {
			return nil, refused("the box %s has no job that has not ended", printable(words[0]))
		}
	}
	return jobs, nil
}

// newDecideCmd makes a command by which a person decides about a box.
func newDecideCmd(w world, verb, short, long string) *cobra.Command {
	f := serverFlag{world: w}
	var why string
	cmd := &cobra.Command{
		Use: verb + " BOX", Short: short, Long: long,
		Example: fmt.Sprintf("  testbox %[1]s 10.40.41.42\n  testbox %[1]s web-1 --why \"looked at it\"", verb),
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var j api.Job
				if err := c.Do(cmd.Context(), "POST", apiclient.Path("boxes", args[0], verb), api.Reason{Why: why}, &j); err != nil {
					return err
				}
				p.printf("%s: %s\n", nameOf(j), jobText(j))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	f.add(cmd)
	return cmd
}

func newReleaseCmd(w world) *cobra.Command {
	return newDecideCmd(w, "release", "Let a held box start from its disks as they are",
		`Lets a held box start from its disks as they are. A box is held when a restore has written to a disk
and did not succeed: that disk may be neither the old one nor the new one. A new restore is the better
way out.`)
}

func newFinishCmd(w world) *cobra.Command {
	return newDecideCmd(w, "finish", "End the rescue of a box",
		`Ends the rescue of a box: it restarts into its own system. `+"`testbox-maintenance finish`"+` at the box does
the same.`)
}
