// Package sharesetup makes the three areas of share mode on a storage server,
// and repairs them. A plan is checked before anything is changed. A dry run
// shows what the plan would change.
package sharesetup

import (
	"cmp"
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
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/site"
)

// Options say how the areas are to be made.
type Options struct {
	Dir      string // folder of the areas
	Server   string // IPv4 address of the storage server; "" takes it from the site file, which must exist then
	Clients  string // who may mount the areas, as in exports(5)
	Insecure bool   // clients may mount from ports above 1023
	UID, GID int    // user and group that the NFS server puts in place of a box's root
	KeepAnon bool   // if there is an exports file, its ids replace UID and GID
	Loaders  string // folder where Debian's packages put PXELINUX/ and syslinux/
	Program  string // path of the program that is copied into the folder of boot files
	Served   bool   // boxes have a server of ours, and mount nothing
	Flag     string // what an admin calls Server, for errors; "" is --server
}

func (o *Options) flag() string { return cmp.Or(o.Flag, "--server") }

// Plan says how the areas are to be. New has checked everything that can be
// checked.
type Plan struct {
	Options
	TFTP, Backup, NFSRoot string            // the areas
	Boot                  *bootfiles.Folder // in the TFTP area
	Site                  *site.Site        // as read from the site file, or for a new one

	loaders []loaderFile
	program []byte
}

// New checks everything that can be checked before a file is changed. Wrong
// input and refusals are errors of package problem.
func New(o Options) (*Plan, error) {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	p := &Plan{Options: o, TFTP: in(bootcfg.TFTPArea), Backup: in(bootcfg.BackupArea), NFSRoot: in(bootcfg.RootArea)}
	p.Boot = bootfiles.New(durable.OS{}, filepath.Join(p.TFTP, bootcfg.ConfigDir))
	p.takeAnon()
	for _, step := range []func() error{p.checkOwner, p.findLoaders, p.planSite, p.checkDefault, p.readProgram} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Plan) mode() bootcfg.Mode {
	if p.Served {
		return bootcfg.ServerMode
	}
	return bootcfg.ShareMode
}

// ExportsFile is the path of the file for the NFS server.
func (p *Plan) ExportsFile() string { return filepath.Join(p.Dir, "testbox.exports") }

// KeepsExports reports whether there is an exports file with another content
// than the plan's. Make does not change it.
func (p *Plan) KeepsExports() bool {
	kept, err := os.ReadFile(p.ExportsFile())
	return err == nil && string(kept) != string(p.exports())
}

// LookOver finds what will stand in the way of boxes once the areas are made,
// and what this program must not change. Modes above the areas and boot files
// of others are warnings. A file that a TFTP server cannot give, for example
// because of an admin's link, is an error.
func (p *Plan) LookOver() (warnings []string, err error) {
	if err := p.Boot.CheckAbove(p.Site.TFTPPath); err != nil {
		warnings = append(warnings, err.Error())
	}
	if err := p.Boot.CheckPrefixes(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			warnings = append(warnings, line+"; move it out of the folder")
		}
	}
	if err := loaders.Wrong(p.TFTP); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			warnings = append(warnings, line+"; `testbox maintenance build` puts whole ones there")
		}
	}
	var files []string
	if v, err := p.Boot.Version(p.Site.Maintenance, box.RefreshInfo, p.mode()); err == nil {
		files = []string{v.KernelPath(), v.InitrdPath()}
	}
	return warnings, p.Boot.CheckServed(files...)
}

var anonOptions = regexp.MustCompile(`\banonuid=(\d{1,9}),anongid=(\d{1,9})\b`)

// takeAnon uses the ids of an existing exports file, so that a repair does not
// take the areas away from the boxes.
func (p *Plan) takeAnon() {
	data, err := durable.ReadFile(durable.OS{}, p.ExportsFile(), 1<<16)
	if err != nil || !p.KeepAnon {
		return
	}
	if m := anonOptions.FindSubmatch(data); m != nil {
		p.UID, _ = strconv.Atoi(string(m[1]))
		p.GID, _ = strconv.Atoi(string(m[2]))
	}
}

// checkOwner refuses a setup that would stop half-way for lack of rights.
func (p *Plan) checkOwner() error {
	switch {
	case !validClients(p.Clients):
		return problem.Wrongf("--clients %q is no address, network or host name of exports(5); "+
			"one only, write more lines into testbox.exports", p.Clients)
	case p.UID <= 0 || p.GID <= 0 || p.UID > 1<<31-1 || p.GID > 1<<31-1:
		return problem.Wrongf("--anon-uid %d and --anon-gid %d: both are positive numbers, since root is squashed", p.UID, p.GID)
	case os.Getuid() != 0 && os.Getuid() != p.UID:
		return problem.Wrongf("only root can give folders to the user %d; "+
			"run it as root, or with --anon-uid=%d --anon-gid=%d if the NFS server takes boxes for you", p.UID, os.Getuid(), os.Getgid())
	}
	return nil
}

// planSite reads the site file, or prepares the first one.
func (p *Plan) planSite() error {
	var err error
	p.Site, err = site.Read(durable.OS{}, p.Boot.Dir())
	if err == nil {
		if p.Server != "" && p.Server != p.Site.Server.String() {
			return problem.Wrongf("%[1]s says server = %[2]s, and %[4]s says %[3]s; change the file or leave %[4]s out",
				p.Boot.Path(site.FileName), p.Site.Server, p.Server, p.flag())
		}
		return nil
	}
	if errors.As(err, new(*problem.Error)) {
		return problem.Wrongf("%w; correct it, or remove it to have a new one made", err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.Server == "" {
		return problem.Wrongf("%s is missing: the IPv4 address of this storage server, as the boxes reach it", p.flag())
	}
	p.Site = site.Defaults()
	if p.Site.Server, err = netip.ParseAddr(p.Server); err != nil {
		return problem.Wrongf("%s %q is not an IPv4 address", p.flag(), p.Server)
	}
	if p.Site.Server.IsLoopback() {
		return problem.Wrongf("%s %s is this machine's own address for itself; boxes cannot reach it", p.flag(), p.Server)
	}
	p.Site.TFTPPath, p.Site.BackupPath, p.Site.RootPath = p.TFTP, p.Backup, p.NFSRoot
	if _, err := site.Parse(p.Site.Template()); err != nil {
		return problem.Wrongf("with %s %s and the folder %s the site file would be wrong: %w", p.flag(), p.Server, p.Dir, err)
	}
	return nil
}

// checkDefault accepts a default boot file that starts the local disk, whatever
// its text is. It refuses one that does not, because boxes rely on it to come
// back.
func (p *Plan) checkDefault() error {
	err := p.Boot.CheckDefault()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, linkErr := os.Lstat(p.Boot.Path(bootcfg.DefaultName)); linkErr == nil {
		return problem.Refusef("%s is a link to a file that is not there (%w); remove it to have the file made",
			p.Boot.Path(bootcfg.DefaultName), err)
	}
	return nil // Make will make it
}

func (p *Plan) readProgram() error {
	var err error
	if p.program, err = os.ReadFile(p.Program); err != nil {
		return fmt.Errorf("this program cannot read itself to be copied: %w", err)
	}
	return nil
}

// loaderFile is a file of Debian's packages and its place in the TFTP area.
type loaderFile struct{ from, to string }

// loaderNeeded are the files that must be there. The folders are copied as they
// are.
var loaderNeeded = []loaderFile{
	{"PXELINUX/pxelinux.0", "pxelinux.0"},
	{"PXELINUX/lpxelinux.0", "lpxelinux.0"},
	{"syslinux/modules/bios/ldlinux.c32", "ldlinux.c32"},
	{"syslinux/modules/efi32/ldlinux.e32", "ldlinux.e32"},
	{"syslinux/modules/efi64/ldlinux.e64", "ldlinux.e64"},
}

// loaderPackages are the Debian packages that have the loader's files.
const loaderPackages = "pxelinux syslinux-common syslinux-efi"

// findLoaders lists the loader's files. Some are at the top of the area. The
// modules of each firmware are in a folder with its name, which PATH in boot
// files refers to, and once more below modules/.
func (p *Plan) findLoaders() error {
	var missing []string
	for _, f := range loaderNeeded {
		from := filepath.Join(p.Loaders, f.from)
		if st, err := os.Stat(from); err != nil || !st.Mode().IsRegular() {
			missing = append(missing, from)
		}
		p.loaders = append(p.loaders, loaderFile{from, f.to})
	}
	if len(missing) > 0 {
		return problem.Wrongf("the loader's files are missing (%s); run: apt-get install %s", strings.Join(missing, ", "), loaderPackages)
	}
	for _, firmware := range []string{"bios", "efi32", "efi64"} {
		dir := filepath.Join(p.Loaders, "syslinux/modules", firmware)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if from := filepath.Join(dir, e.Name()); e.Type().IsRegular() {
				to := filepath.Join(firmware, e.Name())
				p.loaders = append(p.loaders, loaderFile{from, to}, loaderFile{from, filepath.Join("modules", to)})
			}
		}
	}
	return nil
}

// exports is the text for exports(5). Set-uid programs, which the maintenance
// root needs, work unless a client mounts with nosuid.
func (p *Plan) exports() []byte {
	common := ",no_subtree_check"
	if p.Insecure {
		common += ",insecure"
	}
	write := fmt.Sprintf("(rw,sync,root_squash,anonuid=%d,anongid=%d%s)", p.UID, p.GID, common)
	var b strings.Builder
	b.WriteString("# NFS exports of the testbox areas. To install on Debian (package nfs-kernel-server):\n")
	fmt.Fprintf(&b, "#   mkdir -p /etc/exports.d && cp %s /etc/exports.d/ && exportfs -ra\n", p.ExportsFile())
	b.WriteString("# sync: what a box was told is written is on the disk when it says that a backup is done.\n")
	read := "(ro,sync,no_root_squash" + common + ")"
	for _, e := range []struct{ dir, options string }{{p.TFTP, write}, {p.Backup, write}, {p.NFSRoot, read}} {
		fmt.Fprintf(&b, "%s %s%s\n", e.dir, p.Clients, e.options)
	}
	return []byte(b.String())
}

// validClients reports whether s is a network, or one word that can be an
// address, a host name with wildcards or a netgroup.
func validClients(s string) bool {
	if strings.Contains(s, "/") {
		_, err := netip.ParsePrefix(s)
		return err == nil
	}
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*?@:") == ""
}
