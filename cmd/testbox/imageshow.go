package main

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// oneImage wants one argument that says which backup is meant.
func oneImage(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give one backup, as BOX or BOX@WHEN")
	}
	return nil
}

// shownImage is what image show --json prints.
type shownImage struct {
	*image.Record
	Layouts map[string]json.RawMessage `json:"layouts,omitempty"` // image name -> what the disk holds
	Damaged map[string]store.Damage    `json:"damaged,omitempty"` // image name -> what it lacks in the store
	// Misdated is why its time cannot be right.
	Misdated string `json:"misdated,omitempty"`
}

func newImageShowCmd() *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show BACKUP",
		Short: "Show all that is known of a backup",
		Long: `Shows a backup: its disks, what they are known by, what they hold, and the name of each image. Two
disks with the same name have the same bytes wherever they are used.`,
		Example: `  testbox image show 10.40.41.42
  testbox image show web-1@latest~1`,
		Args: oneImage, ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, true, func(s *store.Locked) error {
				r, sel, err := pick(cmd, s, args[0])
				if err != nil {
					return err
				}
				return showImage(cmd, s, r, sel, asJSON)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func showImage(cmd *cobra.Command, s *store.Locked, r *image.Record, sel store.Selector, asJSON bool) error {
	damages := damagesOf(cmd, s)
	shown := shownImage{r, map[string]json.RawMessage{}, damages.Of(r), whyMisdated(cmd, s, r)}
	for _, d := range chosen(r, sel) {
		im, err := openImage(cmd.Context(), s, r, d)
		if errors.Is(err, object.ErrDamaged) || errors.Is(err, chunk.ErrMissing) {
			cmd.PrintErrf("testbox: warning: what %s holds is not known: %v\n", d.Name, err)
			continue
		} else if err != nil {
			return err
		}
		if len(im.Root.Layout) > 0 {
			shown.Layouts[d.Name] = im.Root.Layout
		}
		im.Close()
	}
	if asJSON {
		return printJSON(cmd, shown)
	}
	printRecord(cmd, s, r)
	for _, d := range chosen(r, sel) {
		printDisk(cmd, d, usedmap.ParseLayout(shown.Layouts[d.Name]).Parts)
		if what, is := shown.Damaged[d.Name]; is {
			cmd.Printf("  %s\n", what)
			cmd.Printf("  this was found at %s; `testbox store scrub` and `testbox image verify` look again\n", what.Found.Format(time.RFC3339))
		}
	}
	return nil
}

func printRecord(cmd *cobra.Command, s *store.Locked, r *image.Record) {
	cmd.Printf("backup %s of %s, %s\n", r.ID, r.Box, r.Time.Format(time.RFC3339))
	for _, f := range []struct{ what, is string }{{"host", r.Host}, {"uuid", r.UUID}, {"arming", r.Arming}, {"note", r.Note}} {
		if f.is != "" {
			cmd.Printf("%s: %s\n", f.what, printable(f.is))
		}
	}
	if r.After != "" {
		cmd.Printf("after %s: that was there already, though it is dated later\n", r.After)
	}
	if why := whyMisdated(cmd, s, r); why != "" {
		cmd.Printf("time: %s, which cannot be; `testbox image date` puts it right\n", why)
	}
	if r.Pinned {
		cmd.Println("pinned: retention keeps it")
	}
	if r.Baseline {
		cmd.Printf("baseline: %s alone means it\n", r.Box)
	}
}

func printDisk(cmd *cobra.Command, d *image.RecordedDisk, parts []usedmap.LayoutPart) {
	cmd.Printf("\n%s (was %s): %s\n", d.Name, printable(d.Kernel), printable(d.Disk.String()))
	cmd.Printf("  image %s\n", d.Root)
	cmd.Printf("  data %s, zero %s, not used %s; added %s to the store\n", bytesText(d.Data), bytesText(d.Zero), bytesText(d.Unused), bytesText(d.Stored))
	for _, p := range parts {
		if p.Kind != usedmap.Gap {
			cmd.Printf("  %s: %s at %d, %s\n", p.Title(), bytesText(p.Len), p.Off, printable(or(strings.TrimSpace(p.FS+" "+p.Label), "nothing known")))
		}
	}
	for _, b := range d.Bad[:min(len(d.Bad), maxBadShown)] {
		cmd.Printf("  bytes %d to %d could not be read, and are zero\n", b.Off, b.End()-1)
	}
	if more := len(d.Bad) - maxBadShown; more > 0 {
		cmd.Printf("  and %s more; --json prints all\n", words.Count(more, "such place"))
	}
}
