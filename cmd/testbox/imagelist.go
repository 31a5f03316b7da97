package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
)

func newImageListCmd() *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [BOX...]",
		Short: "List the backups in the store",
		Long: `Lists the backups, the oldest of each box first. DATA is what the disks had that is not zero,
STORED what the backup added to the store. Flags: P pinned, B baseline, ! has zeros for unreadable
sectors. Times are UTC.`,
		ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				if !image.ValidBox(a) {
					return wrong("%q cannot be the name of a box: %s", a, image.BoxRule)
				}
			}
			return o.with(cmd, true, func(s *store.Locked) error {
				all, err := records(cmd, s)
				if err != nil {
					return err
				}
				rs := ofBoxes(all, args)
				if asJSON {
					return printJSON(cmd, rs)
				}
				printRecords(cmd, rs)
				return nil
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the records for programs")
	return cmd
}

func ofBoxes(rs []*image.Record, boxes []string) []*image.Record {
	if len(boxes) == 0 {
		return rs
	}
	out := []*image.Record{}
	for _, r := range rs {
		for _, b := range boxes {
			if r.Box == b {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", " ")
	return enc.Encode(v)
}

func printRecords(cmd *cobra.Command, rs []*image.Record) {
	if len(rs) == 0 {
		cmd.PrintErrln("there are no backups")
		return
	}
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "BOX\tID\tDISKS\tSIZE\tDATA\tSTORED\tFLAGS\tNOTE\n")
	for _, r := range rs {
		var size, data, stored int64
		for _, d := range r.Disks {
			size, data, stored = size+d.Disk.Size, data+d.Data, stored+d.Stored
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Box, r.ID, diskNames(r), bytesText(size), bytesText(data), bytesText(stored), flagsOf(r), printable(r.Note))
	}
	tab.Flush()
	for line := range strings.Lines(b.String()) {
		cmd.Println(strings.TrimRight(line, " \n"))
	}
}

func flagsOf(r *image.Record) string {
	var flags string
	if r.Pinned {
		flags += "P"
	}
	if r.Baseline {
		flags += "B"
	}
	for _, d := range r.Disks {
		if len(d.Bad) > 0 {
			return flags + "!"
		}
	}
	return flags
}
