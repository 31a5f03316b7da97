package inventory

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"testbox-imaging/internal/words"
)

// rawFile is a file that Zip packs.
type rawFile struct {
	name string // such as "sys/firmware/dmi/tables/DMI"
	data []byte
}

// maxDepth limits how deep the firmware's folders are followed.
const maxDepth = 16

// maxSkipped limits the lines about files that are left out.
const maxSkipped = 1000

// rawCollector walks /sys/firmware.
type rawCollector struct {
	c      *collector
	t      tree
	total  int64
	listed int
	failed int
}

// collectRaw reads what Zip packs, which is /proc/cpuinfo and the regular files
// of /sys/firmware. It has a time limit of its own, so that a slow folder
// leaves enough time for the rest of the inventory.
func (c *collector) collectRaw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.raw)
	defer cancel()
	g := &guard{ctx: ctx, limit: c.limits.file}
	if data, err := c.proc.read("cpuinfo", maxProc); err == nil { // collectCPU has already reported its error
		c.inv.raw = append(c.inv.raw, rawFile{"proc/cpuinfo", data})
	}
	r := &rawCollector{c: c, t: tree{c.Sys, "/sys", g}}
	r.folder("firmware", 0)
	if r.failed > 0 {
		c.problem("raw tables: %s could not be packed; %s in the zip says which and why",
			words.Count(r.failed, "file or folder", "files or folders"), skippedName)
	}
}

// fail notes what could not be read. skip notes what is left out.
func (r *rawCollector) fail(name string, why any) {
	r.failed++
	r.skip(name, why)
}

func (r *rawCollector) skip(name string, why any) {
	inv := r.c.inv
	if len(inv.skipped) < maxSkipped {
		inv.skipped = append(inv.skipped, cleanTo(fmt.Sprintf("%s: %v", name, why), 1024))
	}
}

func (r *rawCollector) folder(dir string, depth int) {
	if depth > maxDepth {
		r.fail("/sys/"+dir, "too deep")
		return
	}
	entries, err := r.t.list(dir)
	if err != nil {
		if !missing(err) {
			r.fail("/sys/"+dir, errors.Unwrap(err))
		}
		return
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		why := leaveOut(name)
		switch {
		case why != "":
			r.skip("/sys/"+name, why)
		case r.t.guard.ctx.Err() != nil:
			r.fail("/sys/"+name, "no time left")
			return
		case e.IsDir():
			r.folder(name, depth+1)
		case e.Type().IsRegular():
			r.file(name)
		}
	}
}

func (r *rawCollector) file(name string) {
	if r.listed == r.c.limits.rawFiles {
		r.fail("/sys/"+name, fmt.Sprintf("more than %d files", r.c.limits.rawFiles))
	}
	if r.listed++; r.listed > r.c.limits.rawFiles {
		return
	}
	data, err := r.t.read(name, r.c.limits.rawFile)
	switch {
	case err != nil:
		r.fail("/sys/"+name, errors.Unwrap(err))
	case r.total+int64(len(data)) > r.c.limits.rawTotal:
		r.fail("/sys/"+name, fmt.Sprintf("more than %d bytes in all", r.c.limits.rawTotal))
	default:
		r.total += int64(len(data))
		r.c.inv.raw = append(r.c.inv.raw, rawFile{"sys/" + name, data})
	}
}

// leaveOut says why a file or folder is not even opened, or "" if it is opened.
func leaveOut(name string) string {
	dir, base := path.Split(name)
	switch {
	case strings.HasPrefix(base, "raw_event_log"):
		return "reading it can hang or fail fatally"
	case base == "qemu_fw_cfg":
		return "it is the hypervisor's, not the firmware's"
	case dir == "firmware/efi/vars/":
		return "an older form of efivars"
	case name == "firmware/acpi/interrupts":
		return "counters, no tables"
	case dir == efivars+"/" && !openVariable(base):
		return "a variable that can hold secrets"
	}
	return ""
}

// openVariable reports whether everybody may see a UEFI variable. Those are the
// variables that the specification itself defines, which say how the box boots,
// and the signature databases. Firmware keeps its settings and passwords in
// other variables, and every box can read the backup area.
func openVariable(base string) bool {
	return strings.HasSuffix(base, globalVariable) || strings.HasPrefix(base, "db-") || strings.HasPrefix(base, "dbx-")
}

// skippedName is the file in the zip that says what is not in it.
const skippedName = "SKIPPED.txt"

// Zip packs the raw tables. The same inventory gives the same bytes.
func (inv *Inventory) Zip() ([]byte, error) {
	files := inv.raw
	if len(inv.skipped) > 0 {
		text := strings.Join(inv.skipped, "\n") + "\n"
		files = append(files[:len(files):len(files)], rawFile{skippedName, []byte(text)})
	}
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range files {
		if err := addToZip(w, f, inv.Time); err != nil {
			return nil, fmt.Errorf("zip of raw tables: %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("zip of raw tables: %w", err)
	}
	return buf.Bytes(), nil
}

func addToZip(w *zip.Writer, f rawFile, t time.Time) error {
	out, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: t})
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	return err
}
