package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/site"
)

// planShare checks everything that can be checked before a file is changed.
func planShare(w world, o shareOptions) (*sharePlan, error) {
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return nil, err
	}
	p := &sharePlan{
		shareOptions: o,
		tftp:         filepath.Join(o.dir, "testbox-tftp"), backup: filepath.Join(o.dir, "testbox-backup"), nfsroot: filepath.Join(o.dir, "testbox-nfsroot"),
	}
	p.takeAnon()
	for _, step := range []func(world) error{p.checkOwner, p.findLoaders, p.planSite, p.checkDefault, p.readProgram} {
		if err := step(w); err != nil {
			return nil, err
		}
	}
	return p, nil
}

var anonOptions = regexp.MustCompile(`\banonuid=(\d{1,9}),anongid=(\d{1,9})\b`)

// takeAnon takes the ids of an exports file that is there, so that a repair
// does not take the areas away from the boxes.
func (p *sharePlan) takeAnon() {
	data, err := durable.ReadFile(durable.OS{}, p.exportsFile(), 1<<16)
	if err != nil || !p.keepAnon {
		return
	}
	if m := anonOptions.FindSubmatch(data); m != nil {
		p.uid, _ = strconv.Atoi(string(m[1]))
		p.gid, _ = strconv.Atoi(string(m[2]))
	}
}

// checkOwner refuses what would end half-way for lack of rights.
func (p *sharePlan) checkOwner(world) error {
	switch {
	case !validClients(p.clients):
		return wrong("--clients %q is no address, network or host name of exports(5); one only, write more lines into testbox.exports", p.clients)
	case p.uid <= 0 || p.gid <= 0 || p.uid > 1<<31-1 || p.gid > 1<<31-1:
		return wrong("--anon-uid %d and --anon-gid %d: both are positive numbers, since root is squashed", p.uid, p.gid)
	case os.Getuid() != 0 && os.Getuid() != p.uid:
		return wrong("only root can give folders to the user %d; run it as root, or with --anon-uid=%d --anon-gid=%d if the NFS server takes boxes for you", p.uid, os.Getuid(), os.Getgid())
	}
	return nil
}

// planSite reads the site file, or makes the first one.
func (p *sharePlan) planSite(world) error {
	path := filepath.Join(p.configDir(), site.FileName)
	data, err := durable.ReadFile(durable.OS{}, path, site.MaxFile)
	if err == nil {
		if p.site, err = site.Parse(data); err != nil {
			return wrong("%s: %w; correct it, or remove it to have a new one made", p.configDir(), err)
		}
		if p.server != "" && p.server != p.site.Server.String() {
			return wrong("%s says server = %s, and --server says %s; change the file or leave --server out", path, p.site.Server, p.server)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.server == "" {
		return wrong("--server is missing: the IPv4 address of this storage server, as the boxes reach it")
	}
	p.site = site.Defaults()
	if p.site.Server, err = netip.ParseAddr(p.server); err != nil {
		return wrong("--server %q is not an IPv4 address", p.server)
	}
	if p.site.Server.IsLoopback() {
		return wrong("--server %s is this machine's own address for itself; boxes cannot reach it", p.server)
	}
	p.site.TFTPPath, p.site.BackupPath, p.site.RootPath = p.tftp, p.backup, p.nfsroot
	if _, err := site.Parse(p.site.Template()); err != nil {
		return wrong("with --server %s and the folder %s the site file would be wrong: %w", p.server, p.dir, err)
	}
	return nil
}

// checkDefault keeps a default boot file that starts the local disk, however
// it is written, and refuses one that does not: boxes rely on it to come back.
func (p *sharePlan) checkDefault(world) error {
	boot := bootfiles.New(durable.OS{}, p.configDir())
	err := boot.CheckDefault()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, linkErr := os.Lstat(boot.Path(bootcfg.DefaultName)); linkErr == nil {
		return refused("%s is a link to a file that is not there (%w); remove it to have the file made", boot.Path(bootcfg.DefaultName), err)
	}
	return nil // it will be made
}

func (p *sharePlan) readProgram(w world) error {
	path, err := w.executable()
	if err == nil {
		p.program, err = os.ReadFile(path)
	}
	if err != nil {
		return fmt.Errorf("this program cannot read itself to be copied: %w", err)
	}
	return nil
}

// loaderFile is a file of Debian's packages and its place in the TFTP area.
type loaderFile struct{ from, to string }

// loaderNeeded must be there; the folders are copied as they are.
var loaderNeeded = []loaderFile{
	{"PXELINUX/pxelinux.0", "pxelinux.0"},
	{"PXELINUX/lpxelinux.0", "lpxelinux.0"},
	{"syslinux/modules/bios/ldlinux.c32", "ldlinux.c32"},
	{"syslinux/modules/efi32/ldlinux.e32", "ldlinux.e32"},
	{"syslinux/modules/efi64/ldlinux.e64", "ldlinux.e64"},
}

// loaderPackages hold them.
const loaderPackages = "pxelinux syslinux-common syslinux-efi"

// findLoaders lists the loader's files: those at the top of the area, and the
// modules of each firmware in a folder by its name, which PATH in boot files
// means, and below modules/.
func (p *sharePlan) findLoaders(w world) error {
	var missing []string
	for _, f := range loaderNeeded {
		from := filepath.Join(w.loaders, f.from)
		if st, err := os.Stat(from); err != nil || !st.Mode().IsRegular() {
			missing = append(missing, from)
		}
		p.loaders = append(p.loaders, loaderFile{from, f.to})
	}
	if len(missing) > 0 {
		return wrong("the loader's files are missing (%s); run: apt-get install %s", strings.Join(missing, ", "), loaderPackages)
	}
	for _, firmware := range []string{"bios", "efi32", "efi64"} {
		dir := filepath.Join(w.loaders, "syslinux/modules", firmware)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if from := filepath.Join(dir, e.Name()); e.Type().IsRegular() {
				p.loaders = append(p.loaders, loaderFile{from, filepath.Join(firmware, e.Name())}, loaderFile{from, filepath.Join("modules", firmware, e.Name())})
			}
		}
	}
	return nil
}
