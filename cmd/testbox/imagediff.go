package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/words"
)

func newImageDiffCmd() *cobra.Command {
	var o storeFlag
	var asJSON, places bool
	cmd := &cobra.Command{
		Use:   "diff BACKUP BACKUP",
		Short: "Show where two backups differ",
		Long: `Compares two backups disk by disk, and says how many bytes differ in which regions of 256 MiB, in
which partitions and in which logical volumes; --places names every place. Bytes that no file system
used in either are equal, whatever was there. Disks of other sizes or sector sizes differ, and it is
said. Unless a disk is named, it also says how the state of the box's firmware differs: its kind and
version, Secure Boot, boot entries and their order, and NVMe namespaces. The exit code is 6 if they
differ.`,
		Example: `  testbox image diff 10.40.41.42@latest~1 10.40.41.42`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give two backups")
			}
			return nil
		},
		ValidArgsFunction: completeImages(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd.Context(), printerOf(cmd), true, func(s backups) error {
				return runImageDiff(cmd.Context(), printerOf(cmd), s, args, asJSON, places)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it for programs, with all places")
	cmd.Flags().BoolVar(&places, "places", false, "name every place")
	return cmd
}

// imageDiff is what image diff --json prints.
type imageDiff struct {
	Disks []diskDiff `json:"disks"`
	// Firmware is left out if a disk was named, or if no backup has a state.
	Firmware *firmwareDiff `json:"firmware,omitempty"`
}

// diskDiff says how two images of a disk differ.
type diskDiff struct {
	Disk    string              `json:"disk"`
	With    string              `json:"with,omitempty"`  // the second one's name, if it differs
	Sizes   []diskSize          `json:"sizes,omitempty"` // of both disks, if they differ
	Regions int                 `json:"regions"`         // regions of 256 MiB in which something differs
	Bytes   int64               `json:"bytes"`
	Parts   []usedmap.PartTally `json:"parts,omitempty"`
	Places  []chunk.Difference  `json:"places"`
}

// diskSize is the size of a disk.
type diskSize struct {
	Size       int64 `json:"size"`       // bytes
	SectorSize int   `json:"sectorSize"` // bytes
}

func (s diskSize) String() string {
	return fmt.Sprintf("%s (%d bytes, sectors of %d)", bytesText(s.Size), s.Size, s.SectorSize)
}

func (d *diskDiff) differs() bool { return d.Bytes > 0 || len(d.Sizes) > 0 }

func runImageDiff(ctx context.Context, p printer, s reader, args []string, asJSON, places bool) error {
	a, selA, err := pick(ctx, p, s, args[0])
	if err != nil {
		return err
	}
	b, selB, err := pick(ctx, p, s, args[1])
	if err != nil {
		return err
	}
	pairs, err := pairImages(chosen(a, selA), chosen(b, selB))
	if err != nil {
		return err
	}
	out := imageDiff{Disks: []diskDiff{}}
	if selA.Disk == "" && selB.Disk == "" {
		out.Firmware = diffFirmware(a.Firmware, b.Firmware)
	}
	differ := out.Firmware != nil && len(out.Firmware.Changes) > 0
	for _, p := range pairs {
		d, err := diffDisk(ctx, s, [2]*image.Record{a, b}, p[0], p[1])
		if err != nil {
			return err
		}
		differ = differ || d.differs()
		out.Disks = append(out.Disks, d)
	}
	if asJSON {
		if err := printJSON(p, out); err != nil {
			return err
		}
	} else {
		printDiff(p, out.Disks, places)
		out.Firmware.print(p)
	}
	if differ {
		return &exitError{exitDiffer, errors.New("the backups differ")}
	}
	return nil
}

// pairImages pairs disks by name. If both backups have only one disk, it pairs
// these.
func pairImages(a, b []*image.RecordedDisk) (out [][2]*image.RecordedDisk, err error) {
	if len(a) == 1 && len(b) == 1 {
		return [][2]*image.RecordedDisk{{a[0], b[0]}}, nil
	}
	for _, x := range a {
		for _, y := range b {
			if x.Name == y.Name {
				out = append(out, [2]*image.RecordedDisk{x, y})
			}
		}
	}
	if len(out) != len(a) || len(out) != len(b) {
		return nil, wrong("the backups have different disks; name one of each, as in BOX@WHEN:sda")
	}
	return out, nil
}

func diffDisk(ctx context.Context, s reader, of [2]*image.Record, a, b *image.RecordedDisk) (diskDiff, error) {
	out := diskDiff{Disk: a.Name, Places: []chunk.Difference{}}
	if b.Name != a.Name {
		out.With = b.Name
	}
	if !sameSize(a.Disk, b.Disk) {
		out.Sizes = []diskSize{{a.Disk.Size, a.Disk.SectorSize}, {b.Disk.Size, b.Disk.SectorSize}}
	}
	ia, err := openImage(ctx, s, of[0], a)
	if err != nil {
		return out, err
	}
	defer ia.Close()
	ib, err := openImage(ctx, s, of[1], b)
	if err != nil {
		return out, err
	}
	defer ib.Close()
	layout := usedmap.ParseLayout(ia.Root.Layout)
	tally := layout.Tally()
	last := int64(-1)
	err = chunk.Diff(ctx, ia, ib, func(d chunk.Difference) error {
		out.Places = append(out.Places, d)
		out.Bytes += d.Len
		for r := max(d.Off/chunk.RegionSize, last+1); r <= (d.End()-1)/chunk.RegionSize; r++ {
			out.Regions++
			last = r
		}
		tally.Add(image.Range{Off: d.Off, Len: d.Len})
		return nil
	})
	out.Parts = tally.Parts()
	return out, err
}

func printDiff(p printer, disks []diskDiff, places bool) {
	for _, d := range disks {
		if d.With != "" {
			p.printf("%s of the first is compared with %s of the second\n", d.Disk, d.With)
		}
		if len(d.Sizes) > 0 {
			p.printf("%s: the first is a disk of %v, the second of %v\n", d.Disk, d.Sizes[0], d.Sizes[1])
		}
		switch {
		case !d.differs():
			p.printf("%s: the same\n", d.Disk)
			continue
		case d.Bytes == 0:
			p.printf("%s: no byte that is used differs\n", d.Disk)
			continue
		}
		p.printf("%s: %s differ, in %s of %s\n", d.Disk, bytesText(d.Bytes),
			words.Count(len(d.Places), "place"), words.Count(d.Regions, "region"))
		for _, part := range d.Parts {
			p.printf("%s: %v\n", d.Disk, part)
		}
		for _, place := range d.Places {
			if places {
				p.printf("%s\n", placeText(d.Disk, place))
			}
		}
	}
}

func placeText(disk string, d chunk.Difference) string {
	return fmt.Sprintf("%s: bytes %d to %d: %v", disk, d.Off, d.End()-1, d.How)
}
