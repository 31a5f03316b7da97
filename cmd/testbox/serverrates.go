package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
)

func newBoxRatesCmd(w world) *cobra.Command {
	f := serverFlag{world: w}
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "rates BOX", Short: "Show how fast the actions of a box were",
		Long: `Shows how fast the actions of a box were, for each disk and stage, the latest action first. RATE counts
the whole time of the stage. DISK RATE counts only the time in which the disk was being read, so that the
network and the processors do not matter. The server compares it with the rates of earlier actions.`,
		Example: "  testbox box rates web-1\n  testbox box rates web-1 --limit 5 --json",
		Args:    takesWords(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > 1000 {
				return wrong("--limit %d: give a number from 1 to 1000", limit)
			}
			p := printerOf(cmd)
			return f.with(func(c *apiclient.Client) error {
				jobs, err := readJobs(cmd.Context(), c, url.Values{"box": {args[0]}}, limit)
				if err != nil {
					return err
				}
				rates := api.RatesOf(jobs)
				if asJSON {
					return printJSON(p, rates)
				}
				if len(rates) == 0 {
					p.tellf("no action of this box has a rate; the server keeps them from each action that has read or written a disk")
					return nil
				}
				printRates(p, rates)
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "of at most `N` jobs")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the rates as JSON")
	f.add(cmd)
	return cmd
}

func printRates(p printer, rates []api.Rate) {
	speed := func(rate float64) string {
		if rate == 0 {
			return ""
		}
		return fmt.Sprintf("%.0f MB/s", rate/1e6)
	}
	var rows []string
	for _, r := range rates {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(r.Job), printable(r.Action), printable(r.Disk),
			printable(r.Stage), bytesText(r.Bytes), r.Took.Round(time.Millisecond), speed(r.Rate), speed(r.DiskRate)))
	}
	table(p, "JOB\tACTION\tDISK\tSTAGE\tBYTES\tTOOK\tRATE\tDISK RATE", rows)
}
