package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/words"
)

func newStoreStatsCmd(w world) *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Show what is in the store, and what it takes",
		Long: `Shows how many backups there are, what their disks have, and what each part of the store takes; the
parts together are all of its files. What objects take in a pack is told about. "dead" is what no
backup needs any more; ` + "`testbox store gc`" + ` gets it back. Where a backup cannot be read, it is not
known what is dead. ALONE is what no other box needs: it comes back when all backups of the box are
deleted. If the server of this machine has the store open, it says too on which day the store will be
full.`,
		Example: `  testbox store stats`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withFolder(cmd.Context(), printerOf(cmd), true, func(s *store.Locked) error {
				st, err := s.Stats(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(printerOf(cmd), st)
				}
				printStats(printerOf(cmd), st)
				if text := foretold(cmd.Context(), w, s.UUID()); text != "" {
					printerOf(cmd).printf("\nThe server of this machine says of this store: %s\n", printable(text))
				}
				return nil
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func printStats(p printer, st *store.Stats) {
	p.printf("%s of %s: disks of %s, with %s of data\n", words.Count(st.Backups, "backup"), words.Count(len(st.Boxes), "box", "boxes"),
		bytesText(st.Disks), bytesText(st.Data))
	p.printf("%s in %s with %s; a byte stored stands for %.1f of data\n", bytesText(st.Stored), words.Count(st.Packs, "pack"),
		words.Count(st.Objects, "object"), st.Ratio())
	p.printf("\nall files: %s\n", bytesText(st.Files))
	for _, part := range statParts(st) {
		if part.bytes != 0 || part.always {
			p.printf("%12s  %s\n", bytesText(part.bytes), part.what)
		}
	}
	if st.Damaged > 0 || st.Bad > 0 {
		p.printf("damaged: %s, %s; `testbox store scrub` says what they cost\n", words.Count(st.Damaged, "record"), words.Count(st.Bad, "object"))
	}
	if st.Lacking > 0 {
		p.printf("%s damaged in the store; `testbox image list` shows which\n",
			words.Count(st.Lacking, "backup")+" "+words.Verb(st.Lacking, "is", "are"))
	}
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "\nBOX\tBACKUPS\tOLDEST\tNEWEST\tDATA\tADDED\tALONE\n")
	for _, x := range st.Boxes {
		fmt.Fprintf(tab, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", x.Box, x.Backups, x.Oldest.ID, x.Newest.ID, bytesText(x.Data), bytesText(x.Added),
			bytesText(x.Alone))
	}
	tab.Flush()
	if len(st.Boxes) > 0 {
		p.printf("%s", b.String())
	}
}

// statPart is one part of a store's files.
type statPart struct {
	bytes  int64
	what   string
	always bool // printed even if it is 0
}

// statParts returns the parts that together are all files of a store.
func statParts(st *store.Stats) []statPart {
	dead, known := "dead: no backup needs it; `testbox store gc` gets it back", ""
	if st.Dead < 0 {
		dead = "not known what for: a backup that cannot be read may need it, so `testbox store gc` gets none of it back: " + st.Unknown
		known = ", as far as can be read"
	}
	return []statPart{
		{st.Alone, "needed by one box alone" + known + ": see ALONE", true},
		{st.Shared, "shared by several boxes", true},
		{st.Unused, dead, true},
		{st.Writing, "being written by another process", false},
		{st.Records, "records of backups", true},
		{st.Index, "index, a cache", true},
		{st.Other, "other files", true},
	}
}

// foretold is what the server of this machine says of the day on which its store will be
// full. It is "" if there is no such server, or if it has another store.
func foretold(ctx context.Context, w world, store string) string {
	socket := os.Getenv(serverEnv)
	if socket == "" {
		socket = w.socket
	}
	if !strings.HasPrefix(socket, "/") {
		return ""
	}
	if _, err := os.Stat(socket); err != nil {
		return "" // nobody waits for a server that is not there
	}
	c, err := apiclient.New(apiclient.Config{Server: socket, Away: w.away})
	if err != nil {
		return ""
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var has api.Store
	var h api.StoreHistory
	if c.Do(ctx, "GET", apiclient.Path("store"), nil, &has) != nil || has.ID != store ||
		c.Do(ctx, "GET", apiclient.Path("store", "history")+"?days=1", nil, &h) != nil {
		return "" // the figures above are there all the same
	}
	return h.Forecast.Text()
}
