package maintenance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/child"
	"testbox-imaging/internal/durable"
)

// Update is a package in a maintenance system of which there is a newer version.
type Update struct {
	Name, Has, Newer string
	Security         bool // a source of security updates has it
}

// Kernel reports whether it is the kernel.
func (u Update) Kernel() bool { return strings.HasPrefix(u.Name, "linux-image-") }

// Compared is what a comparison with apt has found.
type Compared struct {
	Updates  []Update // the kernel first, then security updates
	Packages int      // that are in the maintenance system
	Known    int      // of these apt knows a version
	Lists    time.Time
}

const (
	maxManifest = 4 << 20
	maxPackages = 10_000
)

// Updates compares the packages in the version of a maintenance system that is in the folder dir with those
// that the apt of this machine knows. It downloads nothing, so it knows what the last `apt-get update` fetched.
func Updates(ctx context.Context, dir string) (*Compared, error) {
	has, err := readPackages(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(has))
	for name := range has {
		names = append(names, name)
	}
	slices.Sort(names)
	cmd := child.Command(ctx, "apt-cache", append([]string{"policy"}, names...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err = child.Err(ctx, err); errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("this machine has no apt")
	} else if err != nil {
		return nil, fmt.Errorf("apt-cache policy: %w", err)
	}
	c := &Compared{Packages: len(has), Lists: listsTime()}
	for _, p := range parsePolicy(out) {
		v, ok := has[p.name]
		if !ok || !p.offered {
			continue
		}
		c.Known++
		if p.candidate == v {
			continue
		}
		switch newer, err := isNewer(ctx, p.candidate, v); {
		case err != nil:
			return nil, err
		case newer:
			c.Updates = append(c.Updates, Update{Name: p.name, Has: v, Newer: p.candidate, Security: p.security})
		}
	}
	slices.SortStableFunc(c.Updates, func(a, b Update) int { return b.weight() - a.weight() })
	return c, nil
}

func (u Update) weight() (n int) {
	if u.Kernel() {
		n = 2
	}
	if u.Security {
		n++
	}
	return n
}

// readPackages reads the versions of the packages from a manifest of either form.
func readPackages(path string) (map[string]string, error) {
	text, err := durable.ReadFile(durable.OS{}, path, maxManifest)
	if err != nil {
		return nil, err
	}
	var m struct{ Packages []debianPackage }
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(m.Packages) == 0 || len(m.Packages) > maxPackages {
		return nil, fmt.Errorf("%s has a list of %d packages", path, len(m.Packages))
	}
	all := map[string]string{}
	for _, p := range m.Packages {
		if !validPackage(p.Name) || !validVersion(p.Version) {
			return nil, fmt.Errorf("%s has a package %.100q of version %.100q", path, p.Name, p.Version)
		}
		all[p.Name] = p.Version
	}
	return all, nil
}

// policy is what `apt-cache policy` says of a package.
type policy struct {
	name, candidate string
	offered         bool // a source has it, and not only this machine
	security        bool
}

// parsePolicy reads what `apt-cache policy` prints. What is not understood is left out.
func parsePolicy(out []byte) (all []policy) {
	var p *policy
	inCandidate := false
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		text := strings.TrimSpace(line)
		words := strings.Fields(text)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case len(words) == 0:
		case indent == 0:
			all = append(all, policy{name: strings.TrimSuffix(text, ":")})
			p, inCandidate = &all[len(all)-1], false
		case p == nil:
		case words[0] == "Candidate:" && len(words) == 2:
			if validVersion(words[1]) {
				p.candidate = words[1]
			}
		case indent == 1 || indent == 5: // " *** VERSION PRIORITY" or "     VERSION PRIORITY"
			words = strings.Fields(strings.TrimPrefix(text, "*** "))
			inCandidate = words[0] == p.candidate
		case indent >= 8 && inCandidate && len(words) >= 3 && !strings.HasPrefix(words[1], "/"): // "PRIORITY URL SUITE ..."
			p.offered = true
			p.security = p.security || strings.Contains(words[1]+words[2], "-security")
		}
	}
	return slices.DeleteFunc(all, func(p policy) bool { return p.candidate == "" })
}

// isNewer compares versions as dpkg does. Both must be valid.
func isNewer(ctx context.Context, a, b string) (bool, error) {
	err := child.Err(ctx, child.Command(ctx, "dpkg", "--compare-versions", a, "gt", b).Run())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("dpkg --compare-versions %s gt %s: %w", a, b, err)
	}
	return true, nil
}

// listsTime is about when apt fetched its lists. The lists themselves have the times of the servers.
func listsTime() (latest time.Time) {
	for _, path := range []string{"/var/lib/apt/lists", "/var/lib/apt/lists/partial", "/var/lib/apt/periodic/update-success-stamp"} {
		if st, err := os.Stat(path); err == nil && st.ModTime().After(latest) {
			latest = st.ModTime()
		}
	}
	return latest
}
