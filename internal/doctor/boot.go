package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/words"
)

// BootFiles looks at the folder of boot files: what armed boxes and others start.
func BootFiles(ctx context.Context, place *arming.Place, boxes ...string) (all []Finding) {
	list, err := place.List(ctx, boxes)
	if err != nil {
		return []Finding{notLooked("boot-files", "%v", err)}
	}
	for _, err := range list.Problems {
		all = append(all, problem("boot-files", "`testbox pxe-conf list` says it too. A boot file that is damaged or not wanted: `testbox "+
			"pxe-conf disarm BOX`.",
			"%v", err))
	}
	for _, f := range list.Files {
		if f.Expired(place.Now()) {
			all = append(all, warning("stale", "testbox pxe-conf disarm "+f.Addr.String(),
				"%s is still armed for %s, and that expired at %s: the box was not restarted, or does not boot from the network first",
				f.Addr, f.Cmdline.Action, f.Cmdline.Expires.Format(time.RFC3339)))
		}
		if at, err := place.Boot.Written(f.Addr); err == nil && at.After(place.Now().Add(clockOff)) {
			all = append(all, problem("clock", "Set the clock of this machine, or of the storage server: `timedatectl`.",
				"the boot file of %s is dated %s in the future, by the clock of the folder's file system", f.Addr,
				at.Sub(place.Now()).Round(time.Second)))
		}
	}
	if len(boxes) == 0 {
		all = append(all, owned(place)...)
	}
	if len(all) == 0 {
		all = append(all, fine("boot-files", "%s: boxes that are not armed start their own disk, and nothing else is in the way",
			place.Boot.Dir()))
	}
	return all
}

// owned lists the files that a loader asks for before all that are named by an address.
func owned(place *arming.Place) (all []Finding) {
	names, err := place.FS.ReadDir(place.Boot.Dir())
	if err != nil {
		return []Finding{notLooked("shadow", "%v", err)}
	}
	for _, name := range names {
		if _, early := bootcfg.ParseOwner(name); early {
			all = append(all, warning("shadow", "mv "+place.Boot.Path(name)+" elsewhere",
				"the loader of the machine with this UUID or network card takes %s before its boot file, so that machine cannot be armed",
				place.Boot.Path(name)))
		}
	}
	return all
}

// Loaders compares the loader in the TFTP area with the one of Debian's packages, which are
// below packages (/usr/lib).
func Loaders(tftp, packages string) (all []Finding) {
	all = uefiLoaders(tftp)
	same := map[string]bool{}
	packaged := map[string]string{bootcfg.LoaderName: "PXELINUX/" + bootcfg.LoaderName, "ldlinux.c32": "syslinux/modules/bios/ldlinux.c32"}
	for _, name := range []string{bootcfg.LoaderName, "ldlinux.c32"} {
		path := filepath.Join(tftp, name)
		have, err := readSome(path, 4<<20)
		if err != nil {
			all = append(all, problem("loader", "testbox server init (of a share: testbox share init)", "%v, so boxes with BIOS cannot start "+
				"from the network", err))
			continue
		}
		if err := loaderForm(name, have); err != nil {
			all = append(all, problem("loader", "Remove it, and run `testbox server init` (of a share: `testbox share init`).",
				"%s is damaged: %v", path, err))
			continue
		}
		want, err := readSome(filepath.Join(packages, packaged[name]), 4<<20)
		if err != nil {
			all = append(all, notLooked("loader", "Debian's packages pxelinux and syslinux-common are not installed here, so that %s is "+
				"compared with nothing", path))
			continue
		}
		same[name] = bytes.Equal(have, want)
	}
	if len(same) != 2 {
		return all
	}
	switch a, b := same[bootcfg.LoaderName], same["ldlinux.c32"]; {
	case a && b:
		all = append(all, fine("loader", "pxelinux.0 and ldlinux.c32 are those of Debian's packages"))
	case a != b:
		all = append(all, problem("loader", "Take both from one place: cp "+filepath.Join(packages, packaged[bootcfg.LoaderName])+" "+
			filepath.Join(packages, packaged["ldlinux.c32"])+" "+tftp+"/",
			"one of pxelinux.0 and ldlinux.c32 in %s is that of Debian's packages, and the other is not: they are of two versions, or one is "+
				"damaged, "+
				"and the loader stops then", tftp))
	default:
		all = append(all, warning("loader", "If nobody put others there on purpose, remove both and run `testbox server init` (of a "+
			"share: `testbox share init`).",
			"pxelinux.0 and ldlinux.c32 in %s are not those of Debian's packages", tftp))
	}
	return all
}

// uefiLoaders checks the signatures of shim and GRUB in the TFTP area.
func uefiLoaders(tftp string) (all []Finding) {
	for _, k := range loaders.Kinds {
		pair, err := loaders.Read(durable.OS{}, tftp, k)
		switch {
		case err == nil:
			all = append(all, fine("loader", "%v, rightly signed (by %s)", pair, pair.By))
		case !errors.Is(err, fs.ErrNotExist):
			all = append(all, problem("loader", "testbox maintenance build", "the loaders for UEFI machines (%s) in %s are not right: %v", k.Arch,
				tftp, err))
		case k == loaders.X64:
			all = append(all, fine("loader", "there are none for UEFI machines; `testbox maintenance build` gets them"))
		}
	}
	return all
}

// loaderForm says of a loader what can be seen in its bytes.
func loaderForm(name string, b []byte) error {
	switch {
	case len(b) < 1000:
		return fmt.Errorf("it has %d bytes", len(b))
	case name == "ldlinux.c32" && !bytes.HasPrefix(b, []byte("\x7fELF")):
		return errors.New("it is no module of the loader")
	case name != "ldlinux.c32" && !bytes.Contains(b, []byte("PXELINUX")):
		return errors.New("it is not PXELINUX")
	}
	return nil
}

// readSome reads at most so many bytes of a file, and waits for no pipe.
func readSome(path string, most int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// Maintenance looks at the maintenance systems. updates compares the packages of one with what
// this machine's apt knows.
func Maintenance(ctx context.Context, place *arming.Place, mode bootcfg.Mode,
	updates func(ctx context.Context, dir string) (*maintenance.Compared, error)) (all []Finding) {
	build := place.Boot.BuildCommand("")
	whole, broken, err := place.Boot.Versions()
	if err != nil {
		return []Finding{notLooked("maintenance", "%v", err)}
	}
	for _, b := range broken {
		all = append(all, warning("maintenance", "Build it anew by "+build+", and remove the folder.", "the maintenance system %s cannot "+
			"be booted: %v", b.Name, b.Err))
	}
	if len(whole) == 0 {
		return append(all, problem("maintenance", build, "there is no maintenance system in %s that can be booted, so no box can be armed",
			filepath.Join(place.Boot.TFTP(), bootcfg.MaintDir)))
	}
	site, err := arming.ReadSite(place.FS, place.Boot)
	if err != nil {
		return append(all, problem("site", "testbox server init (of a share: testbox share init)", "%v", err))
	}
	used, err := place.Boot.Version(site.Maintenance, box.Backup, mode)
	if err != nil {
		return append(all, problem("maintenance", build, "no box can be armed: %v", err))
	}
	for file, look := range map[string]func([]byte) error{used.KernelPath(): kernelForm, used.InitrdPath(): initrdForm} {
		head, err := readSome(filepath.Join(place.Boot.TFTP(), file), 1024)
		if err == nil {
			err = look(head)
		}
		if err != nil {
			all = append(all, problem("maintenance", build, "%s is damaged: %v", filepath.Join(place.Boot.TFTP(), file), err))
		}
	}
	c, err := updates(ctx, filepath.Join(place.Boot.TFTP(), bootcfg.MaintDir, used.Version))
	if err != nil {
		all = append(all, notLooked("maintenance", "the packages of %s cannot be compared with Debian's: %v", used.Version, err))
	} else {
		all = append(all, packages(used.Version, c, build, place.Now())...)
	}
	if used.Built.After(place.Now().Add(clockOff)) {
		all = append(all, problem("clock", "Set the clock of this machine: `timedatectl`.", "the maintenance system %s was built in the "+
			"future, at %s",
			used.Version, used.Built.Format(time.RFC3339)))
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return strings.Compare(string(a.Severity), string(b.Severity)) })
	return all
}

// listsAge is how old the lists of apt may be. Debian has security updates each week.
const listsAge = 30 * 24 * time.Hour

// packages says which packages of a maintenance system are older than Debian's.
func packages(version string, c *maintenance.Compared, build string, now time.Time) []Finding {
	const update = "Run `apt-get update`, and the doctor again"
	stale := now.Sub(c.Lists) > listsAge
	switch {
	case len(c.Updates) > 0:
	case c.Known == 0:
		return []Finding{notLooked("maintenance", "apt on this machine knows none of the %d packages of %s. %s", c.Packages, version, update)}
	case stale:
		return []Finding{notLooked("maintenance", "the lists of apt on this machine are of %s, so they say nothing of newer packages than "+
			"those of %s. %s", c.Lists.UTC().Format(time.DateOnly), version, update)}
	default:
		return []Finding{fine("maintenance", "%s is whole, and apt on this machine knows no newer version of %d of its %d packages",
			version, c.Known, c.Packages)}
	}
	const most = 5
	security := 0
	var names []string
	for i, u := range c.Updates {
		kind := ""
		if u.Security {
			security++
			kind = ", a security update"
		}
		if i < most {
			names = append(names, fmt.Sprintf("%s %s (there is %s%s)", u.Name, u.Has, u.Newer, kind))
		}
	}
	if more := len(c.Updates) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return []Finding{warning("maintenance", build, "the maintenance system %s is older than its packages, of which apt on this "+
		"machine knows %s, %s: %s", version, words.Count(len(c.Updates), "newer one"),
		words.Count(security, "security update"), strings.Join(names, ", "))}
}

// kernelForm: x86's boot protocol has this at 0x202 (Documentation/arch/x86/boot.rst).
func kernelForm(b []byte) error {
	if len(b) < 0x206 || string(b[0x202:0x206]) != "HdrS" {
		return errors.New("it is no kernel for x86")
	}
	return nil
}

// initrdForm knows cpio archives, plain and compressed.
func initrdForm(b []byte) error {
	for _, magic := range []string{"070701", "070702", "\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ", "BZh", "\x02\x21\x4c\x18", "\x89LZO"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return nil
		}
	}
	return errors.New("it is no archive for the kernel")
}

// errText is the error of a file without its path in front where that is said already.
func errText(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
