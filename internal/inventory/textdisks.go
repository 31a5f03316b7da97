package inventory

import (
	"fmt"
	"strings"
)

func (inv *Inventory) textDisks(r *report) {
	r.section("Disks")
	if len(inv.Disks) == 0 {
		r.line("none")
	}
	for _, d := range inv.Disks {
		d.text(r)
	}
}

func (d *Disk) text(r *report) {
	r.line("%s  %s%s", d.Name, size(d.Size), d.traits())
	sub := func(name, value string) {
		if value != "" {
			r.line("  %-18s %s", name, value)
		}
	}
	sub("model", d.Model)
	sub("serial", d.Serial)
	sub("WWN", d.WWN)
	if d.NamespaceID != 0 {
		sub("namespace", fmt.Sprint(d.NamespaceID))
	}
	sub("path", d.Path)
	sub("firmware", d.Firmware)
	for _, l := range d.Links {
		sub("link", l)
	}
	for _, p := range d.Partitions {
		sub("partition "+p.Name, fmt.Sprintf("at %d, %s", p.Start, size(p.Size)))
	}
	d.Health.text(r, sub)
}

// traits is what else people want to know of a disk at a glance.
func (d *Disk) traits() string {
	parts := []string{fmt.Sprintf("%d-byte sectors", d.SectorSize)}
	if d.Transport != "" {
		parts = append(parts, d.Transport)
	}
	if d.Removable {
		parts = append(parts, "removable")
	}
	if d.Rotational != nil && *d.Rotational {
		parts = append(parts, "rotating")
	}
	return ", " + strings.Join(parts, ", ")
}

func (h *Health) text(r *report, sub func(name, value string)) {
	sub("health", h.Status+prefixed(": ", h.Note))
	for _, a := range h.Attributes {
		if a.ID == 0 { // NVMe
			r.line("    %-26s %s", a.Name, a.Raw)
			continue
		}
		mark := ""
		if a.Failing {
			mark = "  FAILING"
		}
		r.line("    %3d %-24s value %3d worst %3d threshold %3d raw %s%s", a.ID, a.Name, a.Value, a.Worst, a.Threshold, a.Raw, mark)
	}
}
