package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/match"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/peer/peering"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/usedmap"
	"testbox-imaging/internal/version"
	"testbox-imaging/internal/wire"
)

// serverHome is server mode's Home.
type serverHome struct {
	*Server
	saved bool // an inventory
}

// given returns what the server said about the job. It is empty if there is none.
func (s *Server) given() wire.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order == nil {
		return wire.Job{}
	}
	return *s.order
}

// Recover implements Home. The server keeps its own things in order.
func (h *serverHome) Recover() error { return nil }

// Done finds a backup that an earlier attempt has committed. After any other action
// that was recorded, the box is not armed any more.
func (h *serverHome) Done() box.Outcome {
	r := h.given().Committed
	switch {
	case r == nil:
		return ""
	case slices.ContainsFunc(r.Disks, func(d image.RecordedDisk) bool { return len(d.Bad) > 0 }):
		return box.BadSectors
	}
	return box.Done
}

// Record implements Home.
func (h *serverHome) Record(end End) error { return h.result(end) }

// Named implements Home.
func (h *serverHome) Named() string { return h.given().Host }

// SetHost implements Home. The record of a backup has the name.
func (h *serverHome) SetHost(string) error { return nil }

// Selection parses disk-devices.lst, as the server has it.
func (h *serverHome) Selection() (match.Selection, error) {
	list := h.given().Selection
	if list == nil {
		return nil, nil
	}
	sel, err := match.ParseList([]byte(*list))
	if err != nil {
		return nil, fmt.Errorf("%s of this box at the server: %w", box.DisksFile, err)
	}
	h.cfg.Voice.Info("%s counts", box.DisksFile)
	return sel, nil
}

// HasInventory implements Home.
func (h *serverHome) HasInventory() bool { return h.saved || h.given().Inventory }

// SaveInventory sends the files. It does not try the others if the server is away.
func (h *serverHome) SaveInventory(files []inventory.File) error {
	var errs []error
	for _, f := range files {
		var err error
		h.living(func() { err = h.job.Inventory(context.Background(), f.Name, f.Data) })
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.Name, troubled(err)))
		}
		if errors.As(err, new(*remote.AwayError)) {
			break
		}
	}
	h.saved = len(errs) == 0
	return errors.Join(errs...)
}

// Firmware asks the server.
func (h *serverHome) Firmware() (known KnownFirmware, err error) {
	var f *wire.Firmware
	h.living(func() { f, err = h.job.Firmware(context.Background()) })
	if err != nil {
		return known, troubled(err)
	}
	return KnownFirmware{Before: f.Before, Image: f.Image}, nil
}

// SaveFirmware sends the note. The server puts the state into the record of the backup.
func (h *serverHome) SaveFirmware(n *efi.Note) (err error) {
	h.living(func() { err = h.job.Inventory(context.Background(), box.FirmwareFile, n.Marshal()) })
	return troubled(err)
}

// List returns the images of the backup that the server names.
func (h *serverHome) List() ([]Image, error) {
	r := h.given().Record
	if r == nil {
		return nil, errors.New("the server names no backup for this box; back it up first")
	}
	var images []Image
	for i := range r.Disks {
		images = append(images, &serverImage{home: h, record: r, disk: &r.Disks[i]})
	}
	return images, nil
}

// serverImage is server mode's Image.
type serverImage struct {
	home   *serverHome
	record *image.Record
	disk   *image.RecordedDisk
	image  *chunk.Image   // nil before Check
	shared *peering.Image // as other boxes have a part in it; nil before Job
}

// Info returns what the record says.
func (im *serverImage) Info() ImageInfo {
	r, d := im.record, im.disk
	return ImageInfo{
		Label: image.Label{Name: d.Name, Disk: d.Disk, Time: r.Time}, Place: fmt.Sprintf("%s of backup %s of %s", d.Name, r.ID, r.Box),
		Box: r.Box, Host: r.Host, UUID: r.UUID, Bad: d.Bad,
	}
}

// CheckBytes implements Image.
func (im *serverImage) CheckBytes() (n int64, reads bool) { return 0, false }

// Check opens the image, which reads its root, and compares it with the disk. What will
// be written is checked by copier.Restore, before the first write to any disk and after
// the comparison. So of an image that is on the disk already, little is read at the server.
func (im *serverImage) Check(ctx context.Context, d disk.Disk, _ func(done, total int64)) error {
	place := im.Info().Place
	opened, err := im.home.store.OpenImage(ctx, im.record, im.disk.Name)
	if err != nil {
		return fmt.Errorf("image %s: %w", place, troubled(err))
	}
	im.image = opened
	im.home.mu.Lock()
	im.home.images = append(im.home.images, opened)
	im.home.mu.Unlock()
	switch is := im.disk.Disk; {
	case is.Size > d.Size && !im.home.cfg.Cmd.ShrinkTable:
		return fmt.Errorf("image %s holds a disk of %d bytes, disk %s has %d", place, is.Size, d.Name, d.Size)
	case is.SectorSize != d.SectorSize:
		return fmt.Errorf("image %s is of a disk with sectors of %d bytes, disk %s has %d, where its partition table would mean other places; "+
			"use a disk with %d-byte sectors", place, is.SectorSize, d.Name, d.SectorSize, is.SectorSize)
	}
	return nil
}

// Layout implements Image.
func (im *serverImage) Layout() usedmap.Layout { return usedmap.ParseLayout(im.image.Root.Layout) }

// Job returns the image as it is in the store. While it is written, boxes that restore the
// same image give it to each other.
func (im *serverImage) Job() copier.Job {
	j := copier.Job{Name: im.disk.Name, Image: copier.StoredImage{Image: im.image}}
	if im.home.cfg.Cmd.Action != box.Restore {
		return j
	}
	shared, err := im.home.share(im.image)
	if err != nil {
		im.home.reports.say("%s is read from the server alone: %v", im.disk.Name, err)
		return j
	}
	im.shared, j.Image = shared, shared
	return j
}

// agentMemory is how much memory the agent takes beside chunks for other boxes. Without a limit Go lets garbage
// take as much as all the rest, which is much with those chunks.
const agentMemory = 256 << 20

// share returns an image that this box fetches together with others.
func (s *Server) share(im *chunk.Image) (*peering.Image, error) {
	ask, err := remote.RoomOf(im)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	node := s.node
	s.mu.Unlock()
	if node == nil {
		address, _ := netip.ParseAddr(s.cfg.Cmd.Address.String())
		cfg := peering.Config{Address: address, Memory: s.cfg.RoomMemory, Now: s.cfg.Now, Log: s.reports.say}
		if node, err = peering.NewNode(cfg); err != nil {
			return nil, err
		}
		debug.SetMemoryLimit(agentMemory + node.Memory())
		s.mu.Lock()
		s.node = node
		s.mu.Unlock()
		s.reports.attends(node.State)
	}
	return node.Image(im, ask), nil
}

// Close implements Image. It ends what other boxes have of the image. What Check has opened
// ends with the session.
func (im *serverImage) Close() {
	if im.shared != nil {
		im.shared.Close()
	}
}

// trouble is an error that matches ErrTrouble.
type trouble struct{ error }

func (t trouble) Is(target error) bool { return target == ErrTrouble }
func (t trouble) Unwrap() error        { return t.error }

// troubled marks an error of a request if it says nothing about what was asked for.
func troubled(err error) error {
	for _, of := range []error{wire.ErrToken, wire.ErrForbidden, wire.ErrFailed, wire.ErrBusy, wire.ErrKey} {
		if errors.Is(err, of) {
			return trouble{err}
		}
	}
	if errors.As(err, new(*remote.AwayError)) {
		return trouble{err}
	}
	return err
}

// classOf says where the cause of an error is.
func classOf(action box.Action, err error) job.Class {
	var p *wire.Problem
	answered := errors.As(err, &p)
	lacks := errors.Is(err, object.ErrDamaged) || errors.Is(err, chunk.ErrMissing) || answered && errors.Is(p, fs.ErrNotExist)
	switch reads := action == box.Restore || action == box.Verify; {
	case err == nil:
		return ""
	case errors.As(err, new(*remote.AwayError)), errors.Is(err, wire.ErrKey):
		return job.ClassNetwork
	case lacks && reads:
		return job.ClassImage
	case lacks, answered:
		return job.ClassServer
	}
	return job.ClassBox
}

// resultOf makes the result of a start.
func resultOf(action box.Action, end End) *wire.Result {
	r := &wire.Result{Outcome: end.Outcome, Receipts: end.Receipts, Warnings: end.Warnings}
	switch end.Outcome {
	case box.Refused, box.Failed:
		r.Class = classOf(action, end.Err)
	case job.Cancelled:
		r.Class = job.ClassAdmin
	case box.Rescuing:
		for _, k := range end.HostKeys {
			r.HostKeys = append(r.HostKeys, k.String())
		}
	}
	if end.Err != nil {
		r.Text = end.Err.Error()
	}
	return r
}

// macs returns the addresses of the machine's network cards.
func macs(sys fs.FS) (all []string) {
	files, _ := fs.Glob(sys, "class/net/*/address")
	for _, f := range files {
		b, _ := fs.ReadFile(sys, f)
		mac := strings.TrimSpace(string(b))
		if len(mac) == len("00:11:22:33:44:55") && strings.Trim(mac, "0:") != "" && !slices.Contains(all, mac) && len(all) < wire.MaxMACs {
			all = append(all, mac)
		}
	}
	return all
}

// startedVersion returns the version of the maintenance system, as the loader says it.
func startedVersion(cmdline string) string {
	for _, w := range strings.Fields(cmdline) {
		if kernel, ok := strings.CutPrefix(w, "BOOT_IMAGE="); ok && strings.Contains(kernel, "/") {
			return path.Base(path.Dir(kernel))
		}
	}
	return version.String()
}
