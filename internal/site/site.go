// Package site reads and writes the site file, pxelinux.cfg/site.conf. It has
// what is the same for all boxes of a lab, so that nobody edits a script to arm
// one.
package site

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/words"
)

// FileName is the site file's name in the folder of boot files.
const FileName = "site.conf"

// Site is what the site file says.
type Site struct {
	Server     netip.Addr // storage server's IPv4 address
	TFTPPath   string     // exported folders, as the boxes mount them
	BackupPath string
	RootPath   string // for maintenance systems of the debian form

	Static  bool       // boxes in maintenance use the address they were armed by; false means DHCP
	Netmask netip.Addr // static only
	Gateway netip.Addr // static only; invalid if there is none
	Device  string     // kernel's name of the network card; "" is the one that booted

	Maintenance string // version of the maintenance system; "latest" is the newest
	KernelArgs  string // more kernel arguments
	LocalBoot   string // what follows LOCALBOOT; "" is the loader's default

	Expire time.Duration // how long an arming is valid
	Retry  time.Duration // how long a box waits after a refusal or failure, whole seconds
}

// Limits of durations. Values between them have whole seconds.
const (
	MinExpire = time.Minute
	MaxExpire = 90 * 24 * time.Hour
	MinRetry  = time.Second
	MaxRetry  = 24 * time.Hour
)

// ValidExpire reports whether an arming can be valid for so long.
func ValidExpire(d time.Duration) bool { return d >= MinExpire && d <= MaxExpire }

// Defaults are the values of keys that a site file leaves out.
func Defaults() *Site {
	return &Site{
		TFTPPath: bootcfg.Export + "/" + bootcfg.TFTPArea, BackupPath: bootcfg.Export + "/" + bootcfg.BackupArea,
		RootPath:    bootcfg.Export + "/" + bootcfg.RootArea,
		Maintenance: bootcfg.Latest, Expire: 24 * time.Hour, Retry: 5 * time.Minute,
	}
}

// check reports which values do not fit together, or that server is missing.
func (s *Site) check() error {
	switch {
	case !s.Server.IsValid():
		return errors.New("server is missing: the storage server's IPv4 address")
	case s.Static && !s.Netmask.IsValid():
		return errors.New("network = static needs netmask")
	case !s.Static && (s.Netmask.IsValid() || s.Gateway.IsValid()):
		return errors.New("netmask and gateway are for network = static")
	}
	return nil
}

// key is one key of the file, with its explanation and how to read and write
// it.
type key struct {
	name, help string
	read       func(*Site, string) error
	write      func(*Site) string
}

// keys in the order in which Template writes them.
var keys = []key{
	{"server", "IPv4 address of the storage server, as the boxes reach it.",
		func(s *Site, v string) (err error) { s.Server, err = parseIPv4(v); return err },
		func(s *Site) string { return addrText(s.Server) }},
	{"tftp-path", "Exported folder with pxelinux.0 and pxelinux.cfg, as the boxes of share mode mount it by NFS.",
		func(s *Site, v string) error { s.TFTPPath = v; return validPath(v) },
		func(s *Site) string { return s.TFTPPath }},
	{"backup-path", "Exported folder for images and logs of share mode.",
		func(s *Site, v string) error { s.BackupPath = v; return validPath(v) },
		func(s *Site) string { return s.BackupPath }},
	{"nfsroot-path", "Exported folder for the roots of maintenance systems of the form debian.",
		func(s *Site, v string) error { s.RootPath = v; return validPath(v) },
		func(s *Site) string { return s.RootPath }},
	{"network", "dhcp, or static: the box uses the address it was armed by, with the netmask and gateway here.",
		func(s *Site, v string) error { s.Static = v == "static"; return oneOf(v, "dhcp", "static") },
		func(s *Site) string { return map[bool]string{false: "dhcp", true: "static"}[s.Static] }},
	{"netmask", "For network = static, for example 255.255.255.0.",
		func(s *Site, v string) (err error) { s.Netmask, err = parseNetmask(v); return err },
		func(s *Site) string { return addrText(s.Netmask) }},
	{"gateway", "For network = static, where the storage server is in another network.",
		func(s *Site, v string) (err error) { s.Gateway, err = parseIPv4(v); return err },
		func(s *Site) string { return addrText(s.Gateway) }},
	{"device", "The kernel's name of the boxes' network card, for example eth0; counts only where the loader does not say which card booted.",
		func(s *Site, v string) error { s.Device = v; return validDevice(v) },
		func(s *Site) string { return s.Device }},
	{"maintenance", "Version of the maintenance system (a folder in maintenance-boot), or latest.",
		func(s *Site, v string) error { s.Maintenance = v; return validVersion(v) },
		func(s *Site) string { return s.Maintenance }},
	{"kernel-args", "More arguments for the maintenance kernel. " +
		"Without $ \\ ' { } | & ; < > ( ), which the loader of UEFI machines would take for its own.",
		func(s *Site, v string) error { s.KernelArgs = v; return validArgs(v) },
		func(s *Site) string { return s.KernelArgs }},
	{"expire", "How long an arming of `testbox pxe-conf` counts: a box that boots later does nothing, disarms itself and starts its own disk.",
		func(s *Site, v string) (err error) {
			s.Expire, err = parseDuration(v, MinExpire, MaxExpire)
			return err
		},
		func(s *Site) string { return words.Duration(s.Expire) }},
	{"retry", "How long a box waits after a refusal or failure before it restarts and tries again.",
		func(s *Site, v string) (err error) { s.Retry, err = parseDuration(v, MinRetry, MaxRetry); return err },
		func(s *Site) string { return words.Duration(s.Retry) }},
	{"local-boot", "For firmware on which a bare LOCALBOOT does not start the disk: its number (-1, 0 or 0x80).",
		func(s *Site, v string) error { s.LocalBoot = v; return oneOf(v, "-1", "0", "0x80") },
		func(s *Site) string { return s.LocalBoot }},
}

func parseIPv4(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() || ip.IsUnspecified() || ip.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%q is not the IPv4 address of a machine", s)
	}
	return ip, nil
}

func parseNetmask(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err == nil && ip.Is4() {
		b := ip.As4()
		if ones, bits := net.IPMask(b[:]).Size(); bits == 32 && ones > 0 {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%q is not a netmask like 255.255.255.0", s)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// made reports whether s has 1 to most characters, all from of, and not only
// dots.
func made(s, of string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, of) == "" && strings.Trim(s, ".") != ""
}

const (
	nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	pathChars = nameChars + "/+~@:,="
)

func validPath(s string) error {
	if !made(s, pathChars, 255) || s[0] != '/' {
		return fmt.Errorf("%q is not an absolute path of letters, digits and %s", s, "-_./+~@:,=")
	}
	return nil
}

func validDevice(s string) error {
	if !made(s, nameChars, 15) {
		return fmt.Errorf("%q is not the name of a network device like eth0", s)
	}
	return nil
}

func validVersion(s string) error {
	if !made(s, nameChars+"+~", 64) || strings.ContainsAny(s[:1], ".-+~_") {
		return fmt.Errorf("%q is neither latest nor the name of a version", s)
	}
	return nil
}

func validArgs(s string) error {
	if s == "" || len(s) > 1024 || strings.Count(s, `"`)%2 != 0 {
		return errors.New("kernel arguments are empty, longer than 1024 characters, or have a quotation mark without its partner")
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("kernel arguments have a character that is not printable ASCII (0x%02x)", c)
		}
	}
	return nil
}

func oneOf(v string, allowed ...string) error {
	for _, a := range allowed {
		if v == a {
			return nil
		}
	}
	return fmt.Errorf("%q is none of: %s", v, strings.Join(allowed, "; "))
}

func parseDuration(s string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most || d%time.Second != 0 {
		return 0, fmt.Errorf("%q is not a duration like 90s, 5m or 24h, from %s to %s in whole seconds", s, words.Duration(least),
			words.Duration(most))
	}
	return d, nil
}
