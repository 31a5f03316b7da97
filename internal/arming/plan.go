package arming

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/site"
)

// Request is what an admin wants boxes to do at their next start.
type Request struct {
	Boxes []string // addresses or host names
	// Cmdline has the action and the admin's options for it, such as the disks or
	// which images. Plan fills in everything else.
	Cmdline bootcfg.Cmdline
	// From is another box whose images a restore or verify uses; "" is the box's own.
	From    string
	Replace bool          // arm a box even if it is armed already
	Expire  time.Duration // how long the arming is valid; 0 is the value of the site file
}

// Plan has the boot files to be written, all of them checked. A dry run prints
// their texts.
type Plan struct {
	Boxes   []PlannedBox // in the order of the request
	Version *bootcfg.Version
	Site    *site.Site
}

// PlannedBox is a box and the boot file that it is to have.
type PlannedBox struct {
	Target
	Cmdline bootcfg.Cmdline
	Text    []byte
}

// Plan checks everything for all boxes and makes their boot files. It writes
// nothing. One error has everything that is wrong with any box. Wrong input and
// refusals are errors of package problem.
func (p *Place) Plan(ctx context.Context, r Request) (*Plan, error) {
	if r.From != "" {
		from, err := p.Names.Resolve(ctx, []string{r.From})
		if err != nil {
			return nil, err
		}
		r.Cmdline.From = from[0].Addr.String()
	}
	if err := checkOptions(&r.Cmdline); err != nil {
		return nil, err
	}
	if r.Expire != 0 && !site.ValidExpire(r.Expire) {
		return nil, problem.Wrongf("an arming cannot count for %s: the least is %s, the most %s", r.Expire, site.MinExpire, site.MaxExpire)
	}
	plan, common, err := p.common(r.Cmdline, Served{})
	if err != nil {
		return nil, err
	}
	targets, err := p.Names.Resolve(ctx, r.Boxes)
	if err != nil {
		return nil, err
	}
	if r.Expire == 0 {
		r.Expire = plan.Site.Expire
	}
	expires := p.Now().Add(r.Expire).UTC().Truncate(time.Second)
	plan.Boxes = make([]PlannedBox, len(targets))
	errs := make([]error, len(targets))
	for i, t := range targets {
		if t.Addr.String() == r.Cmdline.From {
			errs[i] = problem.Wrongf("%s is one of the boxes to be armed, and also the one whose images are used; leave it out of one of the two", t)
			continue
		}
		if errs[i] = checkServer(t, plan.Site); errs[i] == nil {
			errs[i] = p.checkBox(t, r.Replace)
		}
		if errs[i] == nil {
			c := &common.Cmdline
			c.Arming, c.Expires = box.NewArming(), expires
			plan.Boxes[i], errs[i] = planBox(t, common, plan.Site)
		}
	}
	return plan, errors.Join(errs...)
}

// checkLoaders refuses an area whose shim would wait for a key, or that of another TFTP server, which gives out what is
// there.
func (p *Place) checkLoaders() error {
	if err := loaders.Wrong(p.Boot.TFTP()); err != nil {
		return problem.Refusef("%w; UEFI boxes that start by them may stand still. `testbox maintenance build` puts whole ones there. "+
			"Without these files UEFI boxes start their own disk", err)
	}
	return nil
}

// common checks the folder, and makes the part of the boot files that is the
// same for all boxes. served is for server mode.
func (p *Place) common(c bootcfg.Cmdline, served Served) (*Plan, bootcfg.BootFile, error) {
	var none bootcfg.BootFile
	if err := p.Boot.CheckDefault(); err != nil {
		return nil, none, err
	}
	if err := p.Boot.CheckGRUB(); err != nil {
		return nil, none, err
	}
	if err := p.checkLoaders(); err != nil {
		return nil, none, err
	}
	if c.Mode == bootcfg.ShareMode { // else the server removes the boot file, not the box
		if err := p.checkDisarm(); err != nil {
			return nil, none, err
		}
	}
	s, err := ReadSite(p.FS, p.Boot)
	if err != nil {
		return nil, none, err
	}
	v, err := p.Boot.Version(s.Maintenance, c.Action, c.Mode)
	if err != nil {
		return nil, none, err
	}
	files := []string{v.KernelPath(), v.InitrdPath()}
	if v.Form == bootcfg.FormDebian && c.Mode == bootcfg.ServerMode {
		files = append(files, v.RootFile())
	}
	if err := p.Boot.CheckServed(files...); err != nil {
		return nil, none, err
	}
	if c.Mode == bootcfg.ShareMode {
		c.TFTP = bootcfg.NFSPath{Server: s.Server, Path: s.TFTPPath}
		c.Backup = bootcfg.NFSPath{Server: s.Server, Path: s.BackupPath}
	}
	switch {
	case v.Form != bootcfg.FormDebian:
	case c.Mode == bootcfg.ShareMode:
		c.Root = bootcfg.NFSPath{Server: s.Server, Path: path.Join(s.RootPath, v.Version)}
	case served.HTTP == 0:
		return nil, none, problem.Refusef("boxes get the root of the maintenance system %s over HTTP: %w", v.Version, served.NoHTTP)
	default:
		c.Fetch = bootcfg.RootFile{Server: netip.AddrPortFrom(s.Server, served.HTTP), Path: "/" + v.RootFile(), SHA256: v.Root.SHA256}
	}
	c.Retry = s.Retry
	return &Plan{Version: v, Site: s},
		bootcfg.BootFile{Cmdline: c, Kernel: v.KernelPath(), Initrd: v.InitrdPath(), Args: s.KernelArgs, LocalBoot: s.LocalBoot}, nil
}

// checkServer refuses the storage server itself. It has the images of all boxes,
// and no box has its address.
func checkServer(t Target, s *site.Site) error {
	if t.Addr.IP() != s.Server {
		return nil
	}
	return problem.Refusef("%s is the storage server, by the line server in site.conf, and no box; give the address of the box", t)
}

// checkBox refuses a box that is armed, and one that would not take its boot
// file.
func (p *Place) checkBox(t Target, replace bool) error {
	file, err := p.Boot.Read(t.Addr)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case file.Cmdline == nil:
		return problem.Refusef("%s has a boot file that is not ours, %s (%w); move it away first", t, p.Boot.BootFile(t.Addr), file.Err)
	case !replace && file.Expired(p.Now()):
		return problem.Refusef("%s is still armed for %s, which expired; add --replace, or disarm it with `testbox pxe-conf disarm %s`",
			t, file.Cmdline.Action, t.Addr)
	case !replace:
		return problem.Refusef("%s is armed already, for %s (arming %s); add --replace, or disarm it with `testbox pxe-conf disarm %s`",
			t, file.Cmdline.Action, file.Cmdline.Arming, t.Addr)
	}
	if err := p.checkShadows(t); err != nil {
		return err
	}
	return p.checkLater(t)
}

// planBox makes the boot file of one box from the part that all have in common.
func planBox(t Target, file bootcfg.BootFile, s *site.Site) (PlannedBox, error) {
	c := &file.Cmdline
	c.Address, c.Host = t.Addr, t.Host
	c.Net = bootcfg.IPConfig{DHCP: true, Device: s.Device}
	if s.Static {
		c.Net = bootcfg.IPConfig{
			Address: t.Addr.IP(), Server: s.Server, Gateway: s.Gateway, Netmask: s.Netmask, Host: "maintenance", Device: s.Device,
		}
	}
	text, err := bootcfg.Generate(file)
	if err != nil {
		return PlannedBox{}, problem.Wrongf("%s: %w; see --disks and site.conf", t, err)
	}
	return PlannedBox{t, *c, text}, nil
}

// Arm arms a box of a plan by writing its boot file. Somebody may have armed the
// box after the plan was made. Without replace, that is the same refusal as that
// of Plan. The other errors are those of bootfiles.Folder.Write.
func (p *Place) Arm(b PlannedBox, replace bool) error {
	const tries = 5
	for range tries {
		err := p.Boot.Write(b.Addr, b.Text, replace)
		if replace || !errors.Is(err, fs.ErrExist) {
			return err
		}
		if refusal := p.checkBox(b.Target, false); refusal != nil {
			return refusal
		}
		// The other arming is gone by now.
	}
	return problem.Refusef("%s was armed and disarmed by somebody else %d times meanwhile; run this again", b.Target, tries)
}
