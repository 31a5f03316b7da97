package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/words"
)

func newServerStatusCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say which part of the server does what, and what is missing",
		Long: `Says which part of the server does what, at which addresses, and what is missing so that boxes can
start from the network. The exit code is 1 if something is missing.`,
		Example: `  testbox server status
  testbox server status --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := printerOf(cmd)
			var st api.ServerStatus
			err := f.with(func(c *apiclient.Client) error { return c.Do(cmd.Context(), "GET", apiclient.Path("status"), nil, &st) })
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(p, st)
			} else {
				printServerStatus(p, st)
			}
			if n := missing(st); n > 0 && err == nil {
				err = fmt.Errorf("%s missing or wrong", words.Count(n, "thing is", "things are"))
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func missing(st api.ServerStatus) (n int) {
	for _, part := range st.Parts {
		n += len(part.Missing)
	}
	return n
}

func printServerStatus(p printer, st api.ServerStatus) {
	p.printf("testbox %s, running since %s, knows %s\n\n", printable(st.Version), st.Started.UTC().Format(time.RFC3339),
		words.Count(st.Boxes, "box", "boxes"))
	var rows []string
	for _, part := range st.Parts {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\n", printable(part.Name), part.State, printable(strings.Join(part.At, " ")),
			printable(part.Text)))
	}
	table(p, "PART\tSTATE\tAT\t", rows)
	for _, part := range st.Parts {
		for _, m := range part.Missing {
			p.printf("\n%s: %s.\n", printable(part.Name), strings.TrimSuffix(printable(m), "."))
		}
	}
}
