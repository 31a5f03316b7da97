package bootcfg

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/box"
)

// Labels of our boot files.
const (
	LabelMaintenance = "maintenance"
	LabelLocal       = "local-boot"
)

// promptLimit bounds, in tenths of a second, how long a box can stand at a
// prompt that somebody's key press opened.
const promptLimit = 600

// kernelWords make the kernel restart after a panic and print on both consoles.
// The last console becomes /dev/console.
const kernelWords = "panic=30 console=ttyS0,115200 console=tty0"

// debianWords keep Linux from writing to disks by itself. It resumes from no disk,
// assembles or opens none, and mounts and checks none. The other two make Debian's
// initramfs run our script for the root, by the name that goes with where it is.
const (
	nfsWords    = "boot=nfs root=/dev/nfs"
	fetchWords  = "boot=testbox"
	debianWords = " ro noresume raid=noautodetect systemd.gpt_auto=0 luks=no fsck.mode=skip"
)

// BootFile is what arms a box. The file is pxelinux.cfg/<address in
// hexadecimal>.
type BootFile struct {
	Cmdline   Cmdline
	Kernel    string // path below the TFTP area
	Initrd    string // path below the TFTP area
	Args      string // more kernel arguments; "" for none
	LocalBoot string // LOCALBOOT's number, as the firmware needs it (-1, 0, 0x80); "" is the loader's default
}

// ValidArgs reports why s cannot be the site's kernel arguments. They must not
// have any of the agent's words, or anything that breaks a line or a quotation.
func ValidArgs(s string) error {
	if strings.Count(s, `"`)%2 != 0 {
		return errors.New(`kernel arguments have a " without its partner`)
	}
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return errors.New("kernel arguments have a character that is not printable ASCII")
	}
	for _, w := range splitWords(s) {
		if key, _, _ := strings.Cut(w, "="); ours(key) || slices.Contains(notForSites, key) {
			return fmt.Errorf("kernel argument %s is not for the site to set", w)
		}
	}
	if err := readByGRUB(s); err != nil {
		return fmt.Errorf("kernel argument %w", err)
	}
	return nil
}

// notForSites are kernel arguments that could lose a box or write to its disks.
var notForSites = []string{"initrd", "panic", "boot", "root", "init", "rdinit", "rootdelay", "break", "rw", "resume", "quiet"}

// DefaultConfig is the text of pxelinux.cfg/default, by which every box that is
// not armed starts its own disk.
func DefaultConfig() []byte {
	return []byte("PATH bios\nDEFAULT " + LabelLocal + "\nLABEL " + LabelLocal + "\nLOCALBOOT\n")
}

// Generate writes a boot file that never strands a box. If the loader cannot do
// something, the box starts its own disk, and the kernel restarts after a
// panic. Two loaders read the file, PXELINUX and our grub.cfg, and both must
// understand the same. Generate parses its own text, so that a value that a boot file cannot
// express is an error here and not at the box.
func Generate(b BootFile) ([]byte, error) {
	b.Cmdline.Expires = b.Cmdline.Expires.UTC().Truncate(time.Second)
	if b.Cmdline.BootIF != nil {
		return nil, errors.New("BOOTIF is the loader's to say, not a boot file's")
	}
	if err := ValidArgs(b.Args); err != nil {
		return nil, err
	}
	if err := validLocalArg(b.LocalBoot); err != nil {
		return nil, err
	}
	words := []string{"initrd=" + b.Initrd, b.Cmdline.Words(), kernelWords}
	switch c := &b.Cmdline; {
	case !c.Fetch.IsZero():
		words = append(words, fetchWords+debianWords)
	case !c.Root.IsZero():
		words = append(words, nfsWords+debianWords)
	}
	maint := Label{
		Name: LabelMaintenance, Menu: fmt.Sprintf("Testbox maintenance: %s of %s", b.Cmdline.Action, b.Cmdline.Address),
		Type: "KERNEL", Kernel: b.Kernel, IPAppend: 2, // BOOTIF=, the card that booted
		Append: strings.Join(append(words, splitWords(b.Args)...), " "),
	}
	// What a loader adds. GRUB names its server beside the kernel.
	if n := len("BOOT_IMAGE=(http,255.255.255.255:65535)/ " + b.Kernel + maint.Append + " BOOTIF=01-88-99-aa-bb-cc-dd"); n > maxBoot {
		return nil, fmt.Errorf("the kernel's command line would be %d bytes, at most %d reach it; name fewer disks, or shorten kernel-args", n,
			maxBoot)
	}
	cfg := Config{
		Path: "bios", Default: LabelMaintenance, TotalTimeout: promptLimit, OnTimeout: LabelLocal, OnError: LabelLocal,
		Labels: []Label{maint, {Name: LabelLocal, Local: true, LocalArg: b.LocalBoot}},
	}
	text := cfg.Marshal()
	c, kernel, initrd, err := ParseBootFile(text)
	if err == nil {
		err = readByGRUB(maint.Append)
	}
	if err == nil && (!grubPath.MatchString(kernel) || !grubPath.MatchString(initrd)) {
		err = fmt.Errorf("kernel %q and initrd %q have characters that the loader of UEFI machines does not take", kernel, initrd)
	}
	if err == nil && (kernel != b.Kernel || initrd != b.Initrd || !reflect.DeepEqual(*c, b.Cmdline)) {
		err = errors.New("it would not be read as it was meant")
	}
	if err != nil {
		return nil, fmt.Errorf("boot file of %s cannot be written: %w", b.Cmdline.Address, err)
	}
	return text, nil
}

// ParseBootFile reads a boot file of ours. It returns what the file asks for,
// and the paths of kernel and initrd below the TFTP area. A file that Generate
// does not write is an error, for example one without a way back to the disk.
func ParseBootFile(data []byte) (c *Cmdline, kernel, initrd string, err error) {
	cfg, err := Parse(data)
	if err != nil {
		return nil, "", "", err
	}
	if err := cfg.isOurs(); err != nil {
		return nil, "", "", fmt.Errorf("boot file is not one that testbox pxe-conf writes: %w", err)
	}
	maint := cfg.label(LabelMaintenance)
	first, rest, _ := strings.Cut(maint.Append, " ")
	initrd, ok := strings.CutPrefix(first, "initrd=")
	if !ok || !validBootPath(initrd) || !validBootPath(maint.Kernel) {
		return nil, "", "", fmt.Errorf("boot file has kernel %q and %q instead of initrd=FILE", maint.Kernel, first)
	}
	if c, err = ParseCmdline(rest); err != nil {
		return nil, "", "", fmt.Errorf("boot file: %w", err)
	}
	return c, maint.Kernel, initrd, nil
}

// IsOfArming reports whether a boot file belongs to that arming. It also
// recognizes a file that somebody edited and that ParseBootFile refuses now.
func IsOfArming(data []byte, arming box.Arming) bool {
	return slices.Contains(strings.Fields(string(data)), wordArming+"="+string(arming))
}

// validBootPath allows no comma, since commas separate several files in
// initrd=.
func validBootPath(s string) bool {
	return s != "" && len(s) <= maxWord && plain(s) && !strings.Contains(s, ",")
}

func (c *Config) isOurs() error {
	maint, local := c.label(LabelMaintenance), c.label(LabelLocal)
	switch {
	case len(c.Labels) != 2 || maint == nil || local == nil || len(c.Includes) > 0:
		return errors.New("it has other labels or files")
	case c.Default != LabelMaintenance || c.UI != "" || maint.Type != "KERNEL":
		return errors.New("it does not boot maintenance")
	case c.Prompt != 0 || c.TotalTimeout == 0 || c.OnTimeout != LabelLocal || c.OnError != LabelLocal || !local.Local:
		return errors.New("it has no way back to the disk")
	case c.Append != "" || maint.Initrd != "":
		return errors.New("it has arguments outside APPEND of maintenance")
	}
	return nil
}
