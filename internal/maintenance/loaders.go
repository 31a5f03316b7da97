package maintenance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
)

// loaderSource says which Debian packages have the loaders of a kind of firmware, and under which names.
type loaderSource struct {
	kind                 loaders.Kind
	arch                 string // Debian's name of it
	shimPkg, shimPath    string
	grubPkg, grubPath    string
	fetched, rareMachine bool // is fetched at all; is not missed if it cannot be had
}

// loaderSources are the network GRUBs, which take their configuration from the TFTP server. Loaders for arm64 are
// not fetched, since the maintenance system is for amd64.
var loaderSources = []loaderSource{
	{loaders.X64, "amd64", "shim-signed", "usr/lib/shim/shimx64.efi.signed",
		"grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", true, false},
	{loaders.IA32, "i386", "shim-signed", "usr/lib/shim/shimia32.efi.signed",
		"grub-efi-ia32-signed", "usr/lib/grub/i386-efi-signed/grubnetia32.efi.signed", true, true},
	{loaders.AA64, "arm64", "shim-signed", "usr/lib/shim/shimaa64.efi.signed",
		"grub-efi-arm64-signed", "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed", false, true},
}

// Debian 13 has the first network GRUB that can load by HTTP. So it is taken on older releases as well.
const loaderSuite = "trixie"

var olderSuites = []string{"bullseye", "bookworm", "oldoldstable", "oldstable"}

// sourcesOfLoaders makes the sources of loaders from those of a build. Where a source has a suite of an older
// Debian, it gets the same of Debian 13 beside it. The packages of both have the same names, so apt takes the newer.
func sourcesOfLoaders(build []source) []source {
	var use []source
	for _, b := range build {
		s := source{slices.Clone(b.fields)}
		suites := s.words("Suites")
		for _, suite := range s.words("Suites") {
			base, more, _ := strings.Cut(suite, "-")
			if more != "" {
				more = "-" + more
			}
			newer := loaderSuite + more
			if slices.Contains(olderSuites, base) && slices.Contains([]string{"", "-security", "-updates"}, more) &&
				!slices.Contains(suites, newer) {
				suites = append(suites, newer)
			}
		}
		s.set("Suites", strings.Join(suites, " "))
		s.set("Components", "main")
		s.set("Architectures", strings.Join(loaderArchs(), " "))
		use = append(use, s)
	}
	return use
}

func loaderArchs() (archs []string) {
	for _, s := range loaderSources {
		if s.fetched {
			archs = append(archs, s.arch)
		}
	}
	return archs
}

// addLoaders puts the loaders of UEFI machines into the area of the boot files. Machines with a BIOS need none of
// them, so whatever is missing is a note. Loaders that are there stay unless better ones were found right.
func (r *Result) addLoaders(ctx context.Context, host *apt) error {
	opt, fsys := host.opt, durable.OS{}
	if own, err := loaders.Own(fsys, opt.TFTP); err != nil || own != nil {
		for _, s := range loaderSources {
			pair, err := loaders.Read(fsys, opt.TFTP, s.kind)
			if err == nil {
				r.Loaders = append(r.Loaders, *pair)
			} else if s.kind == loaders.X64 {
				r.Notes = append(r.Notes, fmt.Sprintf("UEFI machines would find no loaders. %s is there, so they are your own: %v",
					loaders.TrustFile, err))
			}
		}
		return nil
	}
	a, err := host.forLoaders(ctx)
	if err != nil {
		return err
	}
	for _, s := range loaderSources {
		if !s.fetched {
			continue
		}
		pair, err := a.publishLoaders(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			note := fmt.Sprintf("UEFI machines (%s) get no new loaders: %v%s", s.kind.Arch, err, a.complained())
			if pair, err = loaders.Read(fsys, opt.TFTP, s.kind); err == nil {
				note += "\n  Those that are there are whole, and stay."
			}
			if !s.rareMachine || err == nil {
				r.Notes = append(r.Notes, note)
			}
		}
		if pair == nil {
			continue
		}
		if r.Loaders = append(r.Loaders, *pair); !pair.HTTP && !s.rareMachine {
			r.Notes = append(r.Notes, fmt.Sprintf("GRUB %s cannot load by HTTP, so UEFI HTTP Boot is not answered. That of Debian 13 can, "+
				"but no apt source has it.%s", pair.GRUB, a.complained()))
		}
	}
	return nil
}

// complained is what apt said of sources, as further lines of a note.
func (a *apt) complained() string { return strings.Join(append([]string{""}, a.notes...), "\n  ") }

// publishLoaders fetches the loaders of a kind of firmware, checks their signatures and publishes them.
func (a *apt) publishLoaders(ctx context.Context, s loaderSource) (*loaders.Pair, error) {
	read := func(name, path string) ([]byte, error) {
		dir := filepath.Join(a.work, "loaders", s.arch, name)
		p, err := a.show(ctx, name+":"+s.arch)
		if err == nil {
			err = a.unpack(ctx, p, dir)
		}
		if err != nil {
			return nil, err
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		data, err := readInRoot(root, path, loaders.MaxSize)
		if err != nil {
			err = fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
		}
		return data, err
	}
	shim, err := read(s.shimPkg, s.shimPath)
	if err != nil {
		return nil, err
	}
	grub, err := read(s.grubPkg, s.grubPath)
	if err != nil {
		return nil, err
	}
	defer a.opt.busy("", "checking the signatures of shim and GRUB for UEFI machines (%s)", s.kind.Arch)()
	pair, err := loaders.Check(s.kind, shim, grub, nil)
	if err != nil {
		return nil, fmt.Errorf("the loaders of Debian's packages are not right: %w", err)
	}
	_, err = loaders.Publish(durable.OS{}, a.opt.TFTP, s.kind, shim, grub)
	return pair, err
}
