package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"testbox-imaging/internal/child"
	"testbox-imaging/internal/problem"
)

// apt is the host's package manager with a state of its own. It reads the
// host's sources, keys, proxies and preferences, and changes nothing on the
// host.
type apt struct {
	cache *cache
	work  string   // folder of this build
	conf  string   // configuration file, read after those of the host
	suite string   // of the first source, such as "bookworm"
	state string   // folder of the indexes, kept in the cache
	archs []string // of the packages; the first is that of the host
	opt   Options
	notes []string // errors that did not matter so far
}

// pkg is a package as apt's index describes it.
type pkg struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	SHA256  string   `json:"sha256"`
	arch    string   // "" if it is that of the apt
	size    int64    // in bytes, as the index says; 0 if not known
	depends []string // only the names, and of alternatives the first one
}

// sourcesFile is the file with the sources of an apt, below its work folder.
const sourcesFile = "sources.d/build.sources"

// openApt opens the cache, prepares an apt in a work folder there, and fetches
// the indexes. Closing the apt removes the work folder. Of opt it uses Cache,
// Etc and Say, which must be set. The caller must close the apt.
func openApt(ctx context.Context, opt Options) (_ *apt, err error) {
	c, err := openCache(ctx, opt.Cache)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	work, err := c.work()
	if err != nil {
		return nil, err
	}
	a, err := newApt(c, work, opt)
	if err != nil {
		return nil, err
	}
	defer opt.busy("", "reading the package indexes of the host's apt sources")()
	return a, a.update(ctx)
}

func (a *apt) close() { a.cache.close() }

// newApt prepares an apt with sources that are made from those below opt.Etc.
func newApt(c *cache, work string, opt Options) (*apt, error) {
	host, notes := hostSources(opt.Etc)
	sources := buildSources(host)
	if len(sources) == 0 {
		return nil, problem.Wrongf("no apt source below %s has Debian's component main for binary packages; the kernel comes from there", opt.Etc)
	}
	return makeApt(c, work, filepath.Join(c.dir, "apt"), opt, sources, notes, "amd64")
}

// makeApt prepares an apt with sources, for packages of some architectures. It keeps indexes in the folder state.
func makeApt(c *cache, work, state string, opt Options, sources []source, notes []string, archs ...string) (*apt, error) {
	a := &apt{cache: c, work: work, state: state, conf: filepath.Join(work, "apt.conf"), archs: archs, opt: opt, notes: notes}
	if suites := sources[0].words("Suites"); len(suites) > 0 {
		a.suite = suites[0]
	}
	for _, dir := range []string{"sources.d", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(state, "lists/partial"), 0o755); err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{
		sourcesFile: marshalSources(sources), "status": nil, "apt.conf": a.config(),
	} {
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// config returns the apt.conf(5) that makes the state private. It clears the
// host's hooks, because they are meant for changes of the host.
func (a *apt) config() []byte {
	return fmt.Appendf(nil, `#clear APT::Update;
#clear APT::Architectures;
#clear DPkg;
APT::Architecture "%[3]s";
APT::Architectures { "%[4]s"; };
Dir::Etc::sourcelist "%[1]s/etc/none";
Dir::Etc::sourceparts "%[1]s/sources.d/";
Dir::State "%[2]s/";
Dir::State::lists "%[2]s/lists/";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache/";
Dir::Cache::archives "%[1]s/cache/archives/";
Dir::Cache::srcpkgcache "%[2]s/srcpkgcache.bin";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
`, a.work, a.state, a.archs[0], strings.Join(a.archs, `"; "`))
}

// run runs one of apt's programs in a folder and returns what it printed.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) (stdout, stderr []byte, err error) {
	cmd := child.Command(ctx, program, append([]string{"--config-file=" + a.conf}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	err = child.Err(ctx, cmd.Run())
	if errors.Is(err, exec.ErrNotFound) {
		err = fmt.Errorf("%s is not installed; a maintenance system is built on a Debian machine", program)
	}
	return out.Bytes(), msg.Bytes(), err
}

// update fetches the indexes. Failures of sources become notes. Whether they
// matter shows later, if a package is missing.
func (a *apt) update(ctx context.Context) error {
	_, msg, err := a.run(ctx, a.work, "apt-get", "-q", "update")
	a.notes = append(a.notes, complaints(msg)...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// complaints returns apt's warnings and errors. It leaves out the warning that
// apt prints whenever its own user may not enter a folder.
func complaints(msg []byte) []string {
	var lines []string
	for _, l := range strings.Split(string(msg), "\n") {
		if (strings.HasPrefix(l, "W: ") || strings.HasPrefix(l, "E: ")) && !strings.Contains(l, "unsandboxed") {
			lines = append(lines, "apt: "+l[3:])
		}
	}
	return lines
}

// errNoPackage says that no source has a package.
var errNoPackage = errors.New("no apt source has it")

// forLoaders makes a second apt beside a for the loaders of UEFI machines, and fetches its indexes.
func (a *apt) forLoaders(ctx context.Context) (*apt, error) {
	work, err := a.cache.work()
	if err != nil {
		return nil, err
	}
	host, _ := hostSources(a.opt.Etc)
	sources := sourcesOfLoaders(buildSources(host))
	b, err := makeApt(a.cache, work, filepath.Join(a.cache.dir, "apt-loaders"), a.opt, sources, nil, loaderArchs()...)
	if err != nil {
		return nil, err
	}
	defer b.opt.busy("", "reading the package indexes for the loaders of UEFI machines")()
	return b, b.update(ctx)
}

// show finds the version of a package that apt would install. name may end in ":" and an architecture.
func (a *apt) show(ctx context.Context, name string) (pkg, error) {
	out, msg, err := a.run(ctx, a.work, "apt-cache", "--no-all-versions", "show", name)
	if ctx.Err() != nil {
		return pkg{}, ctx.Err()
	}
	if err != nil {
		return pkg{}, fmt.Errorf("package %s: %w %s", name, errNoPackage, strings.TrimSpace(string(msg)))
	}
	p, err := parseShow(out)
	var of string
	of, p.arch, _ = strings.Cut(name, ":")
	if err == nil && p.Name != of {
		err = errNoPackage
	}
	if err != nil {
		return pkg{}, fmt.Errorf("package %s: %w", name, err)
	}
	return p, nil
}

// parseShow reads the first stanza that apt-cache show prints.
func parseShow(out []byte) (pkg, error) {
	first, _, _ := bytes.Cut(out, []byte("\n\n"))
	stanzas, err := parseStanzas(first)
	if err != nil || len(stanzas) == 0 {
		return pkg{}, fmt.Errorf("apt's index is not understood: %v", err)
	}
	s := &stanzas[0]
	p := pkg{Name: s.get("Package"), Version: s.get("Version"), SHA256: s.get("SHA256")}
	p.size, _ = strconv.ParseInt(s.get("Size"), 10, 64)
	for _, d := range strings.Split(s.get("Pre-Depends")+","+s.get("Depends"), ",") {
		if f := strings.FieldsFunc(d, func(r rune) bool { return strings.ContainsRune(" \t\n(|:", r) }); len(f) > 0 {
			p.depends = append(p.depends, f[0])
		}
	}
	if !validPackage(p.Name) || !validVersion(p.Version) || len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0123456789abcdef") != "" {
		return pkg{}, fmt.Errorf("apt's index has package %q, version %q, SHA-256 %q", p.Name, p.Version, p.SHA256)
	}
	return p, nil
}

// sizeText is a text such as " (72.0 MB)", or "" for a package that is small or
// of unknown size.
func (p pkg) sizeText() string {
	if p.size < 1e5 {
		return ""
	}
	return fmt.Sprintf(" (%.1f MB)", float64(p.size)/1e6)
}

// validPackage and validVersion follow Debian Policy 5.6.7 and 5.6.12, so both
// are safe in a file name.
func validPackage(s string) bool {
	return s != "" && len(s) < 128 && s[0] != '-' && s[0] != '.' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

func validVersion(s string) bool {
	return s != "" && len(s) < 128 && s[0] >= '0' && s[0] <= '9' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-~:") == ""
}

// fetch downloads the package into the cache, unless it is there already, and
// returns its path.
func (a *apt) fetch(ctx context.Context, p pkg) (string, error) {
	if a.cache.has(p) {
		return a.cache.path(p), nil
	}
	dir, err := os.MkdirTemp(a.work, "download-")
	if err != nil {
		return "", err
	}
	letAptIn(dir)
	defer a.opt.busy(dir, "downloading %s %s%s", p.Name, p.Version, p.sizeText())()
	name := p.Name
	if p.arch != "" {
		name += ":" + p.arch
	}
	_, msg, err := a.run(ctx, dir, "apt-get", "-q", "download", name+"="+p.Version)
	if err != nil {
		return "", fmt.Errorf("download of %s %s failed: %w\n%s", p.Name, p.Version, err, bytes.TrimSpace(msg))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(files) != 1 {
		return "", fmt.Errorf("download of %s gave %d files", p.Name, len(files))
	}
	return a.cache.path(p), a.cache.keep(p, files[0])
}

// letAptIn gives a folder to the user _apt, as whom apt downloads if root calls
// it.
func letAptIn(dir string) {
	u, err := user.Lookup("_apt")
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if uid, err := strconv.Atoi(u.Uid); err == nil {
		os.Chown(dir, uid, -1) // if that fails, apt downloads as root and says so
	}
}

// unpack fetches a package and unpacks it into a folder.
func (a *apt) unpack(ctx context.Context, p pkg, dir string) error {
	deb, err := a.fetch(ctx, p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer a.opt.busy("", "unpacking %s", p.Name)()
	out, err := child.Command(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput()
	if err = child.Err(ctx, err); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", p.Name, err, bytes.TrimSpace(out))
	}
	return nil
}
