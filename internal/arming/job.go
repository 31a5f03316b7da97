package arming

import (
	"net/netip"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/problem"
)

// Served is where a server on this machine takes requests of boxes, at the site's
// address.
type Served struct {
	Agents uint16 // port
	HTTP   uint16 // port; 0 if no files are given out
	NoHTTP error  // why not
}

// Ready returns an error if no box at all can be armed for an action by a server
// on this machine, because the areas or the maintenance systems are not right.
func (p *Place) Ready(action box.Action, served Served) error {
	_, _, err := p.common(bootcfg.Cmdline{Mode: bootcfg.ServerMode, Action: action}, served)
	return err
}

// CheckBoxes refuses the address of the server itself. It says nothing while the site file
// cannot be read, since no box can be armed then.
func (p *Place) CheckBoxes(all []box.Addr) error {
	s, err := ReadSite(p.FS, p.Boot)
	if err != nil {
		return nil
	}
	for _, addr := range all {
		if err := checkServer(Target{Given: addr.String(), Addr: addr}, s); err != nil {
			return err
		}
	}
	return nil
}

// ForJob makes the boot file of a box for a job of a server on this machine. c has
// the action, the arming, the secret, the server's key and the options. The boot file
// is checked, and is not written. Wrong input and refusals are errors of package
// problem.
func (p *Place) ForJob(t Target, served Served, c bootcfg.Cmdline) (PlannedBox, error) {
	c.Mode = bootcfg.ServerMode
	plan, common, err := p.common(c, served)
	if err != nil {
		return PlannedBox{}, err
	}
	common.Cmdline.Server = netip.AddrPortFrom(plan.Site.Server, served.Agents)
	if err := checkServer(t, plan.Site); err != nil {
		return PlannedBox{}, err
	}
	if err := p.checkForeign(t); err != nil {
		return PlannedBox{}, err
	}
	for _, check := range []func(Target) error{p.checkShadows, p.checkLater} {
		if err := check(t); err != nil {
			return PlannedBox{}, err
		}
	}
	return planBox(t, common, plan.Site)
}

// checkForeign refuses to replace a boot file that is not ours, or that arms the
// box in share mode.
func (p *Place) checkForeign(t Target) error {
	file, err := p.Boot.Read(t.Addr)
	switch {
	case err != nil:
		return nil // there is none, or writing it will tell
	case file.Cmdline == nil:
		return problem.Refusef("%s has a boot file that is not ours, %s (%w); move it away first", t, p.Boot.BootFile(t.Addr), file.Err)
	case file.Cmdline.Mode != bootcfg.ServerMode && !file.Expired(p.Now()):
		return problem.Refusef("%s is armed for %s by `testbox pxe-conf`; disarm it with `testbox pxe-conf disarm %s`",
			t, file.Cmdline.Action, t.Addr)
	}
	return nil
}
