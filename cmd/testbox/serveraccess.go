package main

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
)

func newBoxGroupCmd(w world) *cobra.Command {
	return newGroupCmd("group", "Make, change and list groups of boxes",
		"Makes, changes and lists groups of boxes. A box is put into groups by `testbox box set BOX --groups`.",
		newGroupListCmd(w), newGroupSetCmd(w), newGroupDeleteCmd(w))
}

// table prints rows whose cells are separated by tabs.
func table(p printer, head string, rows []string) {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, head+"\n"+strings.Join(rows, ""))
	tab.Flush()
	for line := range strings.Lines(b.String()) {
		p.printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

func newGroupListCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	cmd := &cobra.Command{
		Use: "list", Short: "List groups",
		Long: "Lists groups. MOST is how many boxes of a group may be at work at once. POWER is the power command of its\n" +
			"boxes, KEEP says which of their backups are kept, and PEERS whether they get chunks of images from other\n" +
			"boxes, if the group says so.",
		Example: "  testbox group list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var all []api.Group
				if err := c.Do(cmd.Context(), "GET", apiclient.Path("groups"), nil, &all); err != nil {
					return err
				}
				var rows, unread []string
				for _, g := range all {
					most := "any"
					if g.Most != nil {
						most = fmt.Sprint(*g.Most)
					}
					if g.Unread != "" {
						most, unread = "?", append(unread, g.Unread)
					}
					rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\n", printable(g.Name), g.Boxes, most, printable(g.Power), printable(g.Keep),
						printable(g.Peers)))
				}
				table(p, "GROUP\tBOXES\tMOST\tPOWER\tKEEP\tPEERS", rows)
				for _, why := range unread {
					p.printf("%s\n", printable(why))
				}
				return nil
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newGroupSetCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var most, power, keep, peers, why string
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make or change a group",
		Long: `Makes a group, or changes it. What is not given stays as it is.

--most is how many of its boxes may be at work at once. With 0 the group is closed, and no box of it begins
a job. --most=any takes the limit away. --power names the power command of its boxes, from the server's
configuration, --keep says which of their backups are kept, and --peers whether they get chunks of images
from other boxes; ` + "`testbox box set --help`" + ` says more.`,
		Example: "  testbox group set rack3 --most 8\n  testbox group set rack3 --most 0 --why \"the rack is moved\"\n" +
			"  testbox group set rack3 --power pdu3 --keep last=3,daily=7",
		Args: takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *apiclient.Client) error {
				q, err := setOfGroup(cmd, c, args[0])
				if err != nil {
					return err
				}
				q.Why = why
				return c.Do(cmd.Context(), "PUT", apiclient.Path("groups", args[0]), q, nil)
			})
		},
	}
	cmd.Flags().StringVar(&most, "most", "", "at most `N` of its boxes are at work at once; 0 closes the group, any takes the limit away")
	cmd.Flags().StringVar(&power, "power", "", powerUsage)
	cmd.Flags().StringVar(&keep, "keep", "", keepUsage)
	cmd.Flags().StringVar(&peers, "peers", "", peersUsage)
	cmd.Flags().StringVar(&why, "why", "", "the `REASON`, for the audit log")
	f.add(cmd)
	return cmd
}

// setOfGroup is what a group has, with what flags change of it.
func setOfGroup(cmd *cobra.Command, c *apiclient.Client, name string) (q api.SetGroup, err error) {
	var all []api.Group
	if err := c.Do(cmd.Context(), "GET", apiclient.Path("groups"), nil, &all); err != nil {
		return q, err
	}
	if i := slices.IndexFunc(all, func(g api.Group) bool { return g.Name == name }); i >= 0 {
		g, given := all[i], cmd.Flags().Changed
		if g.Unread != "" && !(given("most") && given("power") && given("keep") && given("peers")) { // the others would be lost
			return q, wrong("%s; give --most, --power, --keep and --peers", g.Unread)
		}
		q = api.SetGroup{Most: g.Most, Power: g.Power, Keep: g.Keep, Peers: g.Peers}
	}
	if fl := cmd.Flags().Lookup("most"); fl.Changed {
		q.Most = nil
		if text := fl.Value.String(); text != "any" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return q, wrong("--most %s: give a number of boxes, or 0 to close the group, or any to take the limit away", text)
			}
			q.Most = &n
		}
	}
	for flag, to := range map[string]*string{"power": &q.Power, "keep": &q.Keep, "peers": &q.Peers} {
		if cmd.Flags().Changed(flag) {
			if err := givenSetting(cmd, flag, to); err != nil {
				return q, err
			}
		}
	}
	return q, nil
}

// newDeleteCmd makes a command that deletes something of a server.
func newDeleteCmd(w world, kind, what, long string) *cobra.Command {
	f := serverFlag{world: w}
	example := map[string]string{"group": "rack3", "token": "1f2e3d4c5b6a7980", "user": "ann"}[kind]
	cmd := &cobra.Command{
		Use: "delete " + strings.ToUpper(what), Short: "Delete a " + kind, Long: long,
		Example: fmt.Sprintf("  testbox %s delete %s", kind, example),
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *apiclient.Client) error {
				return c.Do(cmd.Context(), "DELETE", apiclient.Path(kind+"s", args[0]), nil, nil)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newGroupDeleteCmd(w world) *cobra.Command {
	return newDeleteCmd(w, "group", "name", "Deletes a group. No box may be in it, and no token may be limited to it.")
}

func newTokenCmd(w world) *cobra.Command {
	return newGroupCmd("token", "Make, list and delete tokens, which let people and programs in from elsewhere",
		`Makes, lists and deletes tokens. A token lets whoever has its secret in over HTTPS, with
`+"`testbox login`"+` or with the header "Authorization: Bearer". A viewer reads, an operator also asks for jobs and
changes boxes, an admin may do everything.`,
		newTokenAddCmd(w), newTokenListCmd(w),
		newDeleteCmd(w, "token", "id", "Deletes a token. Whoever has its secret is shut out at once."))
}

func newTokenAddCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var q api.NewToken
	var span time.Duration
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a token",
		Long:    "Makes a token, and prints its secret. That is said only once: the server keeps a hash of it.",
		Example: "  testbox token add \"laptop of ann\" --user ann --role operator --for 2160h\n  testbox token add ci --group rack3",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := printerOf(cmd)
			if cmd.Flags().Changed("for") {
				if span <= 0 {
					return wrong("--for %s is no time", span)
				}
				q.Expires = w.now().Add(span).UTC().Truncate(time.Second)
			}
			q.Name = args[0]
			return f.with(func(c *apiclient.Client) error {
				var t api.Token
				if err := c.Do(cmd.Context(), "POST", apiclient.Path("tokens"), q, &t); err != nil {
					return err
				}
				p.tellf("Token %s is made. Its secret, which is not said again:", t.ID)
				p.printf("%s\n", t.Secret)
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&q.Role, "role", "operator", "the `ROLE`: viewer, operator or admin")
	fl.StringVar(&q.User, "user", "", "whose it is, a `NAME`; what is done with it is done as that user")
	fl.StringVar(&q.Group, "group", "", "it is for the boxes of this `GROUP` alone")
	fl.DurationVar(&span, "for", 0, "it ends after this `TIME`, such as 720h (default: never)")
	fl.StringVar(&q.Why, "why", "", "the `REASON`, for the audit log")
	f.add(cmd)
	return cmd
}

func newTokenListCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	cmd := &cobra.Command{
		Use: "list", Short: "List tokens", Long: "Lists tokens, without their secrets, which nobody knows.",
		Example: "  testbox token list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var all []api.Token
				if err := c.Do(cmd.Context(), "GET", apiclient.Path("tokens"), nil, &all); err != nil {
					return err
				}
				var rows []string
				for _, t := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, printable(t.Name), printable(t.User), t.Role,
						printable(cmp.Or(t.Group, "all")), cmp.Or(shortTime(t.Expires), "never")))
				}
				table(p, "TOKEN\tNAME\tUSER\tROLE\tBOXES\tENDS", rows)
				return nil
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newUserCmd(w world) *cobra.Command {
	return newGroupCmd("user", "Make, list and delete users of a server",
		"Makes, lists and deletes users of a server. What a user's tokens do is done in the user's name,\nand is limited by the user's role.",
		newUserSetCmd(w), newUserListCmd(w), newDeleteCmd(w, "user", "name", "Deletes a user, with all tokens of that user."))
}

func newUserSetCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var q api.SetUser
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make or change a user", Long: "Makes a user, or changes the user's role.",
		Example: "  testbox user set ann --role operator",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(func(c *apiclient.Client) error {
				return c.Do(cmd.Context(), "PUT", apiclient.Path("users", args[0]), q, nil)
			})
		},
	}
	cmd.Flags().StringVar(&q.Role, "role", "operator", "the `ROLE`: viewer, operator or admin")
	cmd.Flags().StringVar(&q.Why, "why", "", "the `REASON`, for the audit log")
	f.add(cmd)
	return cmd
}

func newUserListCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	cmd := &cobra.Command{
		Use: "list", Short: "List users", Long: "Lists the users of a server, with their roles.",
		Example: "  testbox user list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				var all []api.User
				if err := c.Do(cmd.Context(), "GET", apiclient.Path("users"), nil, &all); err != nil {
					return err
				}
				var rows []string
				for _, u := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\n", printable(u.Name), u.Role))
				}
				table(p, "USER\tROLE", rows)
				return nil
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newAuditCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var who, what, on string
	var since time.Duration
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "audit", Short: "Say who has changed what at a server, from where and why",
		Long:    "Prints the audit log of a server, the latest entry last. Only admins may read it.",
		Example: "  testbox audit --since 24h\n  testbox audit --on 10.40.41.42 --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 100000 {
				return wrong("--limit %d: give a number from 1 to 100000", limit)
			}
			p := printerOf(cmd)
			query := url.Values{}
			for name, value := range map[string]string{"who": who, "what": what, "on": on} {
				if value != "" {
					query.Set(name, value)
				}
			}
			if cmd.Flags().Changed("since") {
				if since <= 0 {
					return wrong("--since %s is no time", since)
				}
				query.Set("since", w.now().Add(-since).UTC().Format(time.RFC3339))
			}
			return f.with(func(c *apiclient.Client) error {
				all := []api.Entry{}
				for len(all) < limit {
					query.Set("limit", fmt.Sprint(min(limit-len(all), 1000)))
					var page api.Entries
					if err := c.Do(cmd.Context(), "GET", apiclient.Path("audit")+"?"+query.Encode(), nil, &page); err != nil {
						return err
					}
					if all = append(all, page.Entries...); page.Next == "" {
						break
					}
					query.Set("after", page.Next)
				}
				slices.Reverse(all)
				if asJSON {
					return printJSON(p, all)
				}
				var rows []string
				for _, e := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.UTC().Format(time.RFC3339), printable(e.Who), printable(e.From),
						printable(e.What), printable(e.On), printable(e.Why)))
				}
				table(p, "TIME\tWHO\tFROM\tWHAT\tON\tWHY", rows)
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&who, "who", "", "only entries of this `PERSON`")
	fl.StringVar(&what, "what", "", "only entries of this `KIND`, such as \"set box\"")
	fl.StringVar(&on, "on", "", "only entries of this `THING`: an address, a job, a user")
	fl.DurationVar(&since, "since", 0, "only entries of this `TIME`, such as 24h")
	fl.IntVar(&limit, "limit", 1000, "at most `N` entries, the latest ones")
	fl.BoolVar(&asJSON, "json", false, "print the entries as JSON")
	f.add(cmd)
	return cmd
}
