package bootcfg

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
)

// Limits of a command line.
const (
	maxBoot    = 2000 // bytes that reach the kernel; PXELINUX 6.04 silently cuts off after 2046, x86 allows at most 2047
	maxCmdline = 4096 // bytes that ParseCmdline reads at most
	maxDisks   = 64
	maxWord    = 255 // bytes of a disk's name, a fault or a path
	maxSeconds = 24 * 60 * 60
)

// NFSPath is an exported folder.
type NFSPath struct {
	Server netip.Addr // IPv4
	Path   string     // absolute, no blanks
}

// IsZero reports whether there is no such folder.
func (p NFSPath) IsZero() bool { return p == NFSPath{} }

func (p NFSPath) String() string { return p.Server.String() + ":" + p.Path }

// ParseNFSPath reads "10.42.1.1:/export/testbox-backup".
func ParseNFSPath(s string) (NFSPath, error) {
	server, path, ok := strings.Cut(s, ":")
	ip, err := parseIPv4(server)
	if !ok || err != nil {
		return NFSPath{}, fmt.Errorf("%q is not of the form IPv4:/path", s)
	}
	if err := ValidPath(path); err != nil {
		return NFSPath{}, err
	}
	return NFSPath{ip, path}, nil
}

// ValidPath reports why s cannot be the path of an exported folder on a kernel
// command line. It returns nil if s can be one.
func ValidPath(s string) error {
	if !strings.HasPrefix(s, "/") || len(s) > maxWord || !plain(s) {
		return fmt.Errorf("%q is not an absolute path of at most %d characters without blanks and quotes", s, maxWord)
	}
	return nil
}

// RootFile is a root of the debian form, as one file that a box fetches over HTTP.
type RootFile struct {
	Server netip.AddrPort // IPv4
	Path   string         // absolute
	SHA256 string         // of the file, 64 hexadecimal digits in lower case
}

// IsZero reports whether there is no such file.
func (r RootFile) IsZero() bool { return r == RootFile{} }

// URL is where the file is fetched.
func (r RootFile) URL() string { return "http://" + r.Server.String() + r.Path }

// parseRootURL reads "http://10.42.1.1:80/maintenance-boot/1/root.squashfs". The port
// is always there.
func parseRootURL(s string) (r RootFile, err error) {
	rest, ok := strings.CutPrefix(s, "http://")
	host, path, _ := strings.Cut(rest, "/")
	r.Path = "/" + path
	if r.Server, err = parseServer(host); err == nil {
		err = ValidPath(r.Path)
	}
	if !ok || err != nil || path == "" || strings.ContainsAny(path, "?#%") {
		return RootFile{}, fmt.Errorf("%q is not of the form http://IPv4:PORT/PATH", s)
	}
	return r, nil
}

// Debian reports whether a box runs the debian form.
func (c *Cmdline) Debian() bool { return !c.Root.IsZero() || !c.Fetch.IsZero() }

// Mode is how a box reaches its images.
type Mode string

// The modes. A command line without testbox-mode means share mode.
const (
	ShareMode  Mode = ""       // the areas of a storage server, which are mounted
	ServerMode Mode = "server" // a testbox server, over HTTPS
)

// Cmdline is what a kernel command line tells the agent to do.
type Cmdline struct {
	Mode    Mode
	Action  box.Action
	Arming  box.Arming
	Address box.Addr  // the box that was armed
	Host    string    // the box's name when it was armed; "" if unknown
	Expires time.Time // UTC, whole seconds; zero means never

	TFTP, Backup NFSPath // share mode's areas

	// The root of the debian form is mounted by NFS in share mode, and fetched in
	// server mode. Both are zero for the ram form.
	Root  NFSPath
	Fetch RootFile

	Server netip.AddrPort // server mode's server, IPv4
	Key    string         // fingerprint of the server's key, 64 hexadecimal digits in lower case
	Secret string         // by which the server knows that this box was started from its boot file; it counts once

	Disks         []string   // only these disks, spelled as in disk-devices.lst; if empty, the agent chooses
	Map           []string   // restore or verify: where images belong, as IMAGE=DISK; others go by the rules of package match
	ShrinkTable   bool       // restore or verify: a smaller disk will do if it is proved that nothing gets lost
	PrecheckSize  bool       // in a restore, check only the images' sizes before the first write
	AcceptMachine bool       // restore although the images are another machine's
	OldImages     bool       // restore or verify from the .old images
	From          string     // restore or verify this box's backup: as the store spells it, in share mode an address; "" is the own one
	Hooks         []box.Hook // changes of the restored system
	AcceptFailing bool       // back up a disk even if much of it, or its partition table, cannot be read
	Raw           bool       // restore or verify images without a sidecar, whatever their content looks like

	Retry time.Duration // wait after a refusal or failure, whole seconds; 0 is the agent's default
	Stall time.Duration // the box reboots after so long without progress, whole seconds; 0 is the agent's default
	Fault string        // only agents built for tests act on it

	Net    IPConfig
	BootIF net.HardwareAddr // network card that booted; nil if unknown
}

// Words of ours. Any other word that begins with "testbox-" is an error.
const (
	wordAction  = "testbox-action-"
	wordMode    = "testbox-mode"
	wordArming  = "testbox-arming"
	wordAddress = "testbox-address"
	wordHost    = "testbox-host"
	wordExpires = "testbox-expires"
	wordTFTP    = "testbox-tftp"
	wordBackup  = "testbox-backup"
	wordServer  = "testbox-server"
	wordKey     = "testbox-key"
	wordSecret  = "testbox-secret"
	wordDisks   = "testbox-disks"
	wordMap     = "testbox-map"
	wordShrink  = "testbox-shrink-table"
	wordCheck   = "testbox-precheck"
	wordAccept  = "testbox-accept-machine"
	wordFailing = "testbox-accept-failing"
	wordImage   = "testbox-image"
	wordRaw     = "testbox-raw"
	wordFrom    = "testbox-from"
	wordHooks   = "testbox-hooks"
	wordRetry   = "testbox-retry"
	wordStall   = "testbox-stall"
	wordFault   = "testbox-fault"
	wordFetch   = "testbox-root"
	wordSHA256  = "testbox-root-sha256"
	wordRoot    = "nfsroot" // defined in the kernel's Documentation/admin-guide/nfs/nfsroot.rst
	wordIP      = "ip"
	wordBootIF  = "BOOTIF"
)

// vital are the words by which a box is told from others, reaches its other side,
// and learns when its arming ends.
var vital = []string{
	wordAction, wordMode, wordArming, wordAddress, wordExpires, wordTFTP, wordBackup, wordServer, wordKey, wordSecret, wordFetch, wordSHA256,
	wordRoot, wordIP, wordBootIF,
}

// ParseCmdline reads a kernel command line. It is strict about our own words.
// None may be repeated or unknown, and those that every action needs must be
// there. It ignores the kernel's words.
//
// If only words that are not vital cannot be used, it returns an error and the
// Cmdline of the others. A program that armed the box may be newer than the
// maintenance system. Then no action may be done, but an arming that has expired
// can be ended.
func ParseCmdline(s string) (*Cmdline, error) {
	if len(s) > maxCmdline {
		return nil, fmt.Errorf("kernel command line is longer than %d bytes", maxCmdline)
	}
	c := &Cmdline{}
	seen := map[string]bool{}
	var odd error // the first word that cannot be used and is not vital
	for _, w := range splitWords(s) {
		key, value, has := strings.Cut(w, "=")
		if strings.HasPrefix(key, wordAction) {
			value, key, has = strings.TrimPrefix(w, wordAction), wordAction, true
		}
		if !ours(key) {
			continue
		}
		if seen[key] {
			return nil, fmt.Errorf("kernel command line has %s more than once", key)
		}
		seen[key] = true
		err := c.set(key, value)
		if alone := key == wordAccept || key == wordFailing || key == wordRaw || key == wordShrink; has == alone && !errors.Is(err, errUnknown) {
			err = fmt.Errorf("it takes %s", map[bool]string{true: "no value", false: "a value"}[has])
		}
		if err != nil {
			err = fmt.Errorf("kernel command line: %s: %w", strings.TrimSuffix(key, "-"), err)
		}
		if err != nil && slices.Contains(vital, key) {
			return nil, err
		}
		odd = cmp.Or(odd, err)
	}
	alien := foreign(c.Mode, seen)
	if alien != "" {
		err := fmt.Errorf("kernel command line has %s, which %s mode does not have", alien, cmp.Or(string(c.Mode), "share"))
		if slices.Contains(vital, alien) {
			return nil, err
		}
		odd = cmp.Or(odd, err)
	}
	if err := complete(c.Mode, seen); err != nil {
		return nil, err
	}
	if err := c.checkFrom(); err != nil {
		odd = cmp.Or(odd, fmt.Errorf("kernel command line: %s: %w", wordFrom, err))
	}
	return c, odd
}

var errUnknown = errors.New(
	"unknown word; the maintenance system is older than the program that armed the box, or the boot file was edited")

// foreign returns a word that only another mode has, a vital one if there is one, or
// "".
func foreign(mode Mode, seen map[string]bool) (word string) {
	for _, w := range modeWords {
		if w.mode != mode && seen[w.word] && (word == "" || slices.Contains(vital, w.word)) {
			word = w.word
		}
	}
	return word
}

// ours reports whether the agent reads the word.
func ours(key string) bool {
	return strings.HasPrefix(key, "testbox-") || key == wordRoot || key == wordIP || key == wordBootIF
}

// rootOptions are the mount options of the root. It is always mounted read-only
// and over TCP.
const rootOptions = ",ro,tcp"

// parseRoot reads "10.42.1.1:/export/testbox-nfsroot/1,ro,tcp".
func parseRoot(s string) (NFSPath, error) {
	path, ok := strings.CutSuffix(s, rootOptions)
	if !ok || strings.Contains(path, ",") {
		return NFSPath{}, fmt.Errorf("%q is not of the form IPv4:/path%s", s, rootOptions)
	}
	return ParseNFSPath(path)
}

// modeWords are the words that only one mode has.
var modeWords = []struct {
	mode   Mode
	word   string
	needed bool // in that mode
}{
	{ShareMode, wordTFTP, true}, {ShareMode, wordBackup, true},
	{ShareMode, wordCheck, false}, {ShareMode, wordImage, false}, {ShareMode, wordRaw, false}, {ShareMode, wordRoot, false},
	{ServerMode, wordServer, true}, {ServerMode, wordKey, true}, {ServerMode, wordSecret, true},
	{ServerMode, wordFetch, false}, {ServerMode, wordSHA256, false},
}

// complete returns an error if a word is missing that every action needs.
func complete(mode Mode, seen map[string]bool) error {
	need := []string{wordAction, wordArming, wordAddress}
	for _, w := range modeWords {
		if w.mode == mode && w.needed {
			need = append(need, w.word)
		}
	}
	for _, w := range need {
		if !seen[w] {
			return fmt.Errorf("kernel command line has no %s; arm the box anew", strings.TrimSuffix(w, "-"))
		}
	}
	if seen[wordFetch] != seen[wordSHA256] {
		return fmt.Errorf("kernel command line has only one of %s and %s; arm the box anew", wordFetch, wordSHA256)
	}
	return nil
}

// checkFrom refuses a box that can have no folder in share mode's area, where the address
// is the folder's name, and the box itself.
func (c *Cmdline) checkFrom() error {
	if c.From == "" || c.Mode != ShareMode {
		return nil
	}
	switch from, err := box.ParseAddr(c.From); {
	case err != nil:
		return err
	case from.String() != c.From:
		return fmt.Errorf("%q is not the form %s", c.From, from)
	case from == c.Address:
		return fmt.Errorf("%s is the box itself", c.From)
	}
	return nil
}

// set parses one word of ours into its field.
func (c *Cmdline) set(key, v string) (err error) {
	switch key {
	case wordAction:
		c.Action, err = box.ParseAction(v)
	case wordMode:
		c.Mode, err = Mode(v), check(Mode(v) == ServerMode, "%q is not server", v)
	case wordArming:
		c.Arming, err = box.ParseArming(v)
	case wordAddress:
		c.Address, err = box.ParseAddr(v)
	case wordHost:
		c.Host, err = v, check(box.ValidHost(v), "%q is not a host name", v)
	case wordExpires:
		c.Expires, err = parseTime(v)
	case wordTFTP:
		c.TFTP, err = ParseNFSPath(v)
	case wordBackup:
		c.Backup, err = ParseNFSPath(v)
	case wordServer:
		c.Server, err = parseServer(v)
	case wordKey:
		c.Key, err = v, check(validHash(v), "%q is not 64 hexadecimal digits", v)
	case wordSecret:
		c.Secret, err = v, check(validSecret(v), "%q is not a secret that a server gives", v)
	case wordFetch:
		sum := c.Fetch.SHA256
		c.Fetch, err = parseRootURL(v)
		c.Fetch.SHA256 = sum
	case wordSHA256:
		c.Fetch.SHA256, err = v, check(validHash(v), "%q is not 64 hexadecimal digits", v)
	case wordRoot:
		c.Root, err = parseRoot(v)
	case wordDisks:
		c.Disks, err = ParseDisks(v)
	case wordMap:
		c.Map, err = ParseMap(v)
	case wordShrink:
		c.ShrinkTable = true
	case wordCheck:
		c.PrecheckSize, err = true, check(v == "size", "%q is not size", v)
	case wordAccept:
		c.AcceptMachine = true
	case wordFailing:
		c.AcceptFailing = true
	case wordImage:
		c.OldImages, err = true, check(v == "old", "%q is not old", v)
	case wordRaw:
		c.Raw = true
	case wordFrom:
		c.From, err = v, check(image.ValidBox(v), "%q is not a box", v)
	case wordHooks:
		c.Hooks, err = box.ParseHooks(v)
	case wordRetry:
		c.Retry, err = parseSeconds(v)
	case wordStall:
		c.Stall, err = parseSeconds(v)
	case wordFault:
		c.Fault, err = v, check(v != "" && len(v) <= maxWord && plain(v), "%q is not a word", v)
	case wordIP:
		c.Net, err = ParseIPConfig(v)
	case wordBootIF:
		c.BootIF, err = parseBootIF(v)
	default:
		err = errUnknown
	}
	return err
}

// parseServer reads "10.42.1.1:8444".
func parseServer(s string) (netip.AddrPort, error) {
	host, _, _ := strings.Cut(s, ":")
	_, hostErr := parseIPv4(host)
	a, err := netip.ParseAddrPort(s)
	if hostErr != nil || err != nil || a.Port() == 0 || a.String() != s {
		return netip.AddrPort{}, fmt.Errorf("%q is not of the form IPv4:PORT", s)
	}
	return a, nil
}

// validHash reports whether s is 64 hexadecimal digits in lower case.
func validHash(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

// maxSecret is the length of the longest secret.
const maxSecret = 128

// validSecret allows letters, digits, '-' and '_'.
func validSecret(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return s != "" && len(s) <= maxSecret && strings.Trim(s, letters) == ""
}

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// splitWords splits at blanks outside double quotes, as the kernel does.
func splitWords(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\v' || r == '\f')
	})
}

// plain reports whether s is printable ASCII without blanks and quotes, so
// that it stays one word on a command line and one line in a boot file.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' {
			return false
		}
	}
	return true
}

// ParseDisks reads a comma-separated list of disks. It only makes sure that the
// names survive a command line. The agent decides which disks they mean.
func ParseDisks(s string) ([]string, error) {
	disks := strings.Split(s, ",")
	if len(disks) > maxDisks {
		return nil, fmt.Errorf("more than %d disks", maxDisks)
	}
	for i, d := range disks {
		if d == "" || len(d) > maxWord || !plain(d) {
			return nil, fmt.Errorf("%q is not a disk's name (1 to %d characters without blanks, commas and quotes)", d, maxWord)
		}
		if slices.Contains(disks[:i], d) {
			return nil, fmt.Errorf("disk %s is named twice", d)
		}
	}
	return disks, nil
}

// ParseMap reads a comma-separated list of IMAGE=DISK. It only makes sure that it
// survives a command line and maps no image twice. The agent decides which disks
// are meant.
func ParseMap(s string) ([]string, error) {
	items := strings.Split(s, ",")
	if len(items) > maxDisks {
		return nil, fmt.Errorf("more than %d images", maxDisks)
	}
	seen := map[string]bool{}
	for _, item := range items {
		name, to, _ := strings.Cut(item, "=")
		switch {
		case !image.ValidName(name) || to == "" || len(to) > maxWord || !plain(to):
			return nil, fmt.Errorf("%q is not of the form IMAGE=DISK, such as sda=nvme0n1 (without blanks, commas and quotes)", item)
		case seen[name]:
			return nil, fmt.Errorf("image %s is mapped twice", name)
		}
		seen[name] = true
	}
	return items, nil
}

// parseTime reads RFC 3339 in UTC, to the second.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Location() != time.UTC || t.Format(time.RFC3339) != s || t.IsZero() {
		return time.Time{}, fmt.Errorf("%q is not a time like 2026-11-22T08:00:00Z", s)
	}
	return t, nil
}

func parseSeconds(s string) (time.Duration, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSeconds || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("%q is not a number of seconds from 1 to %d", s, maxSeconds)
	}
	return time.Duration(n) * time.Second, nil
}
