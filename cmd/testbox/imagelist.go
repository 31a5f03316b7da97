package main

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

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
sectors, D damaged in the store, as far as that was found by reading, T has a time that cannot be
right, b passed its latest boot test, u neither passed nor failed it, f failed it. Below, each ! and
D is explained. Times are UTC. With --json, a backup whose record cannot be read has "box", "id" and
"unreadable", which says why.`,
		Example: `  testbox image list
  testbox image list 10.40.41.42 web-1`,
		ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				if !image.ValidBox(a) {
					return wrong("%q cannot be the name of a box: %s", a, image.BoxRule)
				}
			}
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				all, damaged, err := allRecords(cmd.Context(), printerOf(cmd), s)
				if err != nil {
					return err
				}
				if err := haveBackups(all, damaged, args); err != nil {
					return err
				}
				if len(args) > 0 {
					damaged = slices.DeleteFunc(damaged, func(d *store.RecordError) bool { return !slices.Contains(args, d.Box) })
				}
				return listImages(printerOf(cmd), ofBoxes(all, args), damaged, damagesOf(cmd.Context(), printerOf(cmd), s), asJSON)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the records for programs")
	return cmd
}

// haveBackups returns an error for the first box that has no backup to list.
func haveBackups(all []*image.Record, damaged []*store.RecordError, boxes []string) error {
	for _, b := range boxes {
		if len(ofBoxes(all, []string{b})) > 0 {
			continue
		}
		if lost := damagedOf(damaged, b); len(lost) > 0 {
			return fmt.Errorf("no backup of %s can be read: %w; %s", b, lost[0], lost[0].Remedy())
		}
		return wrong("%w; `testbox image list` shows what there is", store.NoBackup(all, b))
	}
	return nil
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

// eachBox gives the backups of one box after the other, from a list that is sorted by
// boxes.
func eachBox(rs []*image.Record) iter.Seq[[]*image.Record] {
	return func(yield func([]*image.Record) bool) {
		for len(rs) > 0 {
			n := slices.IndexFunc(rs, func(r *image.Record) bool { return r.Box != rs[0].Box })
			if n < 0 {
				n = len(rs)
			}
			if !yield(rs[:n]) {
				return
			}
			rs = rs[n:]
		}
	}
}

// listedImage is what image list --json prints for a backup.
type listedImage struct {
	*image.Record
	Damaged  map[string]store.Damage `json:"damaged,omitempty"`  // from an image's name to what it lacks in the store
	Misdated string                  `json:"misdated,omitempty"` // why its time cannot be right
}

// unreadableImage is what image list --json prints for a backup whose record
// cannot be read.
type unreadableImage struct {
	Box        string `json:"box"`
	ID         string `json:"id"`
	Unreadable string `json:"unreadable"` // why it cannot be read
}

func listImages(p printer, rs []*image.Record, damaged []*store.RecordError, damages store.Damages, asJSON bool) error {
	now := time.Now()
	list := []listedImage{}
	for of := range eachBox(rs) {
		misdated := store.Misdated(of, now)
		for _, r := range of {
			list = append(list, listedImage{r, damages.Of(r), misdated[r]})
		}
	}
	if asJSON {
		out := []any{}
		for _, r := range list {
			if r.Boot != nil { // pictures are for image boot-test --picture
				one, boot := *r.Record, *r.Boot
				boot.Picture, one.Boot = nil, &boot
				r.Record = &one
			}
			out = append(out, r)
		}
		for _, d := range damaged {
			out = append(out, unreadableImage{d.Box, d.ID, d.Err.Error()})
		}
		return printJSON(p, out)
	}
	if len(rs) == 0 {
		none := "there are no backups"
		if len(damaged) > 0 {
			none = "there is no backup that can be read"
		}
		p.tellf("%s", none)
		return nil
	}
	printList(p, list)
	for _, r := range rs {
		for _, line := range faultsOf(r, damages) {
			p.tellf("%s@%s: %s", r.Box, r.ID, line)
		}
	}
	sayLatest(p, rs, damaged, now)
	return nil
}

// sayLatest says which backup of a box is the latest, if that is not the last
// one in the list. The list is in the order of dates.
func sayLatest(p printer, rs []*image.Record, damaged []*store.RecordError, now time.Time) {
	for of := range eachBox(rs) {
		last := of[len(of)-1]
		latest, err := store.Select(of, damaged, store.Selector{Box: last.Box, When: "latest"}, now)
		if err == nil && latest != last {
			p.tellf("%s@latest is %s: the clock of another that is dated later was wrong", last.Box, latest.ID)
		}
	}
}

func printList(p printer, list []listedImage) {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(tab, "BOX\tID\tDISKS\tSIZE\tDATA\tSTORED\tFLAGS\tNOTE\n")
	for _, r := range list {
		var size, data, stored int64
		for _, d := range r.Disks {
			size, data, stored = size+d.Disk.Size, data+d.Data, stored+d.Stored
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Box, r.ID, diskNames(r.Record), bytesText(size), bytesText(data),
			bytesText(stored), flagsOf(r), printable(r.Note))
	}
	tab.Flush()
	for line := range strings.Lines(b.String()) {
		p.printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

func flagsOf(r listedImage) string {
	var flags string
	if r.Pinned {
		flags += "P"
	}
	if r.Baseline {
		flags += "B"
	}
	if slices.ContainsFunc(r.Disks, func(d image.RecordedDisk) bool { return len(d.Bad) > 0 }) {
		flags += "!"
	}
	if len(r.Damaged) > 0 {
		flags += "D"
	}
	if r.Misdated != "" {
		flags += "T"
	}
	if r.Boot != nil {
		flags += map[image.Verdict]string{image.BootPassed: "b", image.BootUnproven: "u", image.BootFailed: "f"}[r.Boot.Verdict]
	}
	return flags
}
