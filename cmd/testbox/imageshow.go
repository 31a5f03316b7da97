package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

// oneImage wants exactly one argument, which says which backup is meant.
func oneImage(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give one backup, as BOX or BOX@WHEN")
	}
	return nil
}

// shownImage is what image show --json prints.
type shownImage struct {
	*image.Record
	Layouts map[string]json.RawMessage `json:"layouts,omitempty"` // from an image's name to the content of its disk
	Damaged map[string]store.Damage    `json:"damaged,omitempty"` // from an image's name to what it lacks in the store
	// Misdated says why the time cannot be right.
	Misdated string `json:"misdated,omitempty"`
}

func newImageShowCmd() *cobra.Command {
	var o storeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show BACKUP",
		Short: "Show all that is known of a backup",
		Long: `Shows a backup: its disks, what they are known by, what they hold, and the name of each image. Two
disks with the same name have the same bytes wherever they are used. It also shows the state that the
box's firmware had: BIOS or UEFI, its version, Secure Boot, boot entries in their order with what they
start, and NVMe namespaces. --json prints all that was kept of it.`,
		Example: `  testbox image show 10.40.41.42
  testbox image show web-1@latest~1`,
		Args: oneImage, ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				r, sel, err := pick(cmd.Context(), printerOf(cmd), s, args[0])
				if err != nil {
					return err
				}
				return showImage(cmd.Context(), printerOf(cmd), s, r, sel, asJSON)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs")
	return cmd
}

func showImage(ctx context.Context, p printer, s reader, r *image.Record, sel store.Selector, asJSON bool) error {
	damages := damagesOf(ctx, p, s)
	shown := shownImage{r, map[string]json.RawMessage{}, damages.Of(r), whyMisdated(ctx, s, r)}
	for _, d := range chosen(r, sel) {
		im, err := openImage(ctx, s, r, d)
		if store.IsLost(err) {
			p.warnf("what %s holds is not known: %v", d.Name, err)
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
		return printJSON(p, shown)
	}
	printRecord(ctx, p, s, r)
	for _, d := range chosen(r, sel) {
		printDisk(p, d, usedmap.ParseLayout(shown.Layouts[d.Name]).Parts)
		if what, is := shown.Damaged[d.Name]; is {
			p.printf("  %s\n", what)
			p.printf("  this was found at %s; `testbox store scrub` and `testbox image verify` look again\n", what.Found.Format(time.RFC3339))
		}
	}
	return nil
}

func printRecord(ctx context.Context, p printer, s catalogue, r *image.Record) {
	p.printf("backup %s of %s, %s\n", r.ID, r.Box, r.Time.Format(time.RFC3339))
	for _, f := range []struct{ what, is string }{{"host", r.Host}, {"uuid", r.UUID}, {"arming", string(r.Arming)}, {"note", r.Note}} {
		if f.is != "" {
			p.printf("%s: %s\n", f.what, printable(f.is))
		}
	}
	if r.After != "" {
		p.printf("after %s: that was there already, though it is dated later\n", r.After)
	}
	if why := whyMisdated(ctx, s, r); why != "" {
		p.printf("time: %s, which cannot be; `testbox image date` puts it right\n", why)
	}
	if r.Pinned {
		p.printf("pinned: retention keeps it\n")
	}
	if r.Baseline {
		p.printf("baseline: %s alone means it\n", r.Box)
	}
	if b := r.Boot; b != nil {
		p.printf("boot test: %s, %s; sign of life: %s\n  %s\n", b.Verdict, b.Time.Format(time.RFC3339), signText[b.Sign], printable(b.Text))
	}
	if r.Firmware != nil {
		printFirmware(p, r.Firmware)
	}
}

func printDisk(p printer, d *image.RecordedDisk, parts []usedmap.LayoutPart) {
	p.printf("\n%s (was %s): %s\n", d.Name, printable(d.Kernel), printable(d.Disk.String()))
	p.printf("  image %s\n", d.Root)
	p.printf("  data %s, zero %s, not used %s; added %s to the store\n", bytesText(d.Data), bytesText(d.Zero), bytesText(d.Unused),
		bytesText(d.Stored))
	for _, part := range parts {
		if part.Kind != usedmap.Gap {
			p.printf("  %s: %s at %d, %s\n", part.Title(), bytesText(part.Len), part.Off,
				printable(cmp.Or(strings.TrimSpace(part.FS+" "+part.Label), "nothing known")))
		}
	}
	for _, b := range d.Bad[:min(len(d.Bad), maxBadShown)] {
		p.printf("  bytes %d to %d could not be read, and are zero\n", b.Off, b.End()-1)
	}
	if more := len(d.Bad) - maxBadShown; more > 0 {
		p.printf("  and %s more; --json prints all\n", words.Count(more, "such place"))
	}
}
