package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"testbox-imaging/internal/image"
)

// Limits of what a /sys may hold. A real box has tens of disks.
const (
	maxDisks = 16384
	maxAttr  = 4096 // in bytes, and sysfs gives no more for a text attribute
	maxVPD   = 65536
)

// List reads the whole disks of /sys, sorted by name. Hidden disks are left
// out. They are the paths below an NVMe multipath disk. An attribute that
// cannot be read stays unknown, and an error says so. A disk is left out only
// if its size or sector size cannot be read. Links below sys are followed with
// fs.ReadLink. If sys has plain folders instead of links, the path stays
// unknown.
func List(sys fs.FS) ([]Disk, []error) {
	entries, err := fs.ReadDir(sys, "block")
	if err != nil {
		return nil, []error{fmt.Errorf("list the disks: %w", err)}
	}
	if len(entries) > maxDisks {
		return nil, []error{fmt.Errorf("list the disks: %d entries in block/, more than %d", len(entries), maxDisks)}
	}
	var disks []Disk
	var errs []error
	for _, e := range entries {
		n := &node{sys: sys, name: e.Name(), dir: resolve(sys, "block/"+e.Name())}
		if n.attr("hidden") == "1" {
			continue
		}
		d, err := n.disk()
		errs = append(errs, n.errs...)
		if err != nil {
			errs = append(errs, fmt.Errorf("disk %s is left out: %w", n.name, err))
			continue
		}
		disks = append(disks, d)
	}
	slices.SortFunc(disks, func(a, b Disk) int { return CompareNames(a.Name, b.Name) })
	return disks, errs
}

// CompareNames orders sda before sdb before sdaa, and nvme2n1 before nvme10n1.
func CompareNames(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// resolve follows a symbolic link of sys once. A device's own folder is never
// more than one link away.
func resolve(sys fs.FS, name string) string {
	target, err := fs.ReadLink(sys, name)
	if err != nil {
		return name
	}
	if to := path.Join(path.Dir(name), target); fs.ValidPath(to) {
		return to
	}
	return name
}

// node is one disk's place in sysfs while it is read.
type node struct {
	sys  fs.FS
	name string
	dir  string  // the disk's own folder, "devices/pci0000:00/.../block/sda", or "block/sda" if sys has no links
	errs []error // of attributes that exist but could not be read
}

// attr reads a text attribute below the disk's folder, without blanks around
// it. It is "" if there is none.
func (n *node) attr(name string) string { return clean(n.read(path.Join(n.dir, name), maxAttr)) }

// read reads a file of at most limit bytes. A file that does not exist gives
// nothing. Any other error is added to n.errs, also the kernel's EINVAL, EIO or
// ENODATA for an attribute that the device does not answer.
func (n *node) read(name string, limit int64) []byte {
	f, err := n.sys.Open(name)
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("more than %d bytes", limit)
		}
		if err == nil {
			return data
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		n.errs = append(n.errs, fmt.Errorf("disk %s: read %s: %w", n.name, name, err))
	}
	return nil
}

// clean makes text of an attribute's bytes. It cuts at the first NUL.
// Characters that cannot be printed become '?', so that a disk cannot forge log
// lines.
func clean(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			if r == '\n' || r == '\t' {
				return ' '
			}
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// disk reads everything that sysfs says of the disk.
func (n *node) disk() (Disk, error) {
	blocks, err := strconv.ParseInt(n.attr("size"), 10, 64)
	if err != nil || blocks < 0 || blocks > 1<<53 {
		return Disk{}, fmt.Errorf("its size is not readable (%q)", n.attr("size"))
	}
	sector, err := strconv.Atoi(n.attr("queue/logical_block_size"))
	if err != nil || !image.ValidSectorSize(sector) {
		return Disk{}, fmt.Errorf("its sector size is not readable (%q)", n.attr("queue/logical_block_size"))
	}
	d := Disk{Name: n.name, Removable: n.attr("removable") == "1", Parts: n.parts()}
	d.Size, d.SectorSize = blocks*512, sector // sysfs counts blocks of 512 bytes, whatever the sector size is
	d.Transport = n.transport()
	d.Path = n.path()
	ids := n.identify(&d)
	d.Links = n.links(d, ids)
	d.Multipath = n.multipath()
	return d, nil
}

// multipath is the uuid of a device of dm-multipath that holds the disk.
// multipath-tools give it the prefix "mpath-".
func (n *node) multipath() string {
	holders, err := fs.ReadDir(n.sys, path.Join(n.dir, "holders"))
	if err != nil {
		return ""
	}
	for _, h := range holders {
		dir := resolve(n.sys, path.Join("block", h.Name()))
		if uuid := clean(n.read(path.Join(dir, "dm/uuid"), maxAttr)); strings.HasPrefix(uuid, "mpath-") {
			return uuid
		}
	}
	return ""
}

var partNumber = regexp.MustCompile(`^p?\d+$`)

// parts lists the partitions. They are folders in the disk's folder. A
// partition's name is the disk's name with a number behind it, such as sda1 and
// nvme0n1p1. So mmcblk0boot0 is not a partition of mmcblk0.
func (n *node) parts() []string {
	entries, err := fs.ReadDir(n.sys, n.dir)
	if err != nil {
		n.errs = append(n.errs, fmt.Errorf("disk %s: list its partitions: %w", n.name, err))
		return nil
	}
	var parts []string
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), n.name)
		if ok && e.IsDir() && partNumber.MatchString(number) {
			parts = append(parts, e.Name())
		}
	}
	slices.SortFunc(parts, CompareNames)
	return parts
}
