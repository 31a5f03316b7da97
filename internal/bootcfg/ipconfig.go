package bootcfg

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// IPConfig is the box's network as the word ip= on the command line gives it.
// The zero value means that there is no ip=.
type IPConfig struct {
	DHCP bool // if true, all other fields but Device are empty

	Address, Server, Gateway netip.Addr // IPv4; Server and Gateway are invalid if not given
	Netmask                  netip.Addr // IPv4, valid with Address
	Host                     string     // "" if not given
	Device                   string     // kernel's name of the card, "eth0"; "" is the one that booted
}

// IsZero reports whether the command line had no ip=.
func (c IPConfig) IsZero() bool { return c == IPConfig{} }

// Prefix is Address with the length of Netmask. It is invalid under DHCP.
func (c IPConfig) Prefix() netip.Prefix {
	bits, ok := maskBits(c.Netmask)
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(c.Address, bits)
}

// String is the value of ip=, in the six-field form of the kernel's
// Documentation/admin-guide/nfs/nfsroot.rst. klibc's ipconfig fails on more
// fields. The zero value gives "".
func (c IPConfig) String() string {
	switch {
	case c.DHCP && c.Device == "":
		return "dhcp"
	case c.DHCP:
		return ":::::" + c.Device + ":dhcp"
	case c.IsZero():
		return ""
	}
	return strings.Join([]string{addrText(c.Address), addrText(c.Server), addrText(c.Gateway), addrText(c.Netmask), c.Host, c.Device}, ":")
}

// ParseIPConfig reads the value of ip=. The forms are "dhcp",
// ":::::<device>:dhcp", "<ip>:<server>:<gateway>:<netmask>:<host>:<device>",
// and the first four of these fields alone, as PXELINUX appends them.
func ParseIPConfig(s string) (IPConfig, error) {
	if s == "dhcp" {
		return IPConfig{DHCP: true}, nil
	}
	f := strings.Split(s, ":")
	if len(f) == 7 && strings.Join(f[:5], "") == "" && f[6] == "dhcp" {
		return IPConfig{DHCP: true, Device: f[5]}, check(ValidDevice(f[5]), "%q is not the name of a network device", f[5])
	}
	if len(f) != 4 && len(f) != 6 {
		return IPConfig{}, fmt.Errorf("%q is neither dhcp nor <ip>:<server>:<gateway>:<netmask>:<host>:<device>", s)
	}
	return staticConfig(f)
}

func staticConfig(f []string) (c IPConfig, err error) {
	for i, to := range []*netip.Addr{&c.Address, &c.Server, &c.Gateway, &c.Netmask} {
		if f[i] == "" && (i == 1 || i == 2) {
			continue
		}
		if *to, err = parseIPv4(f[i]); err != nil {
			return IPConfig{}, err
		}
	}
	if _, ok := maskBits(c.Netmask); !ok || c.Address.IsUnspecified() {
		return IPConfig{}, fmt.Errorf("%s with netmask %s is not an address of a network", c.Address, c.Netmask)
	}
	if len(f) == 6 {
		c.Host, c.Device = f[4], f[5]
	}
	if c.Host != "" && !validLabel(c.Host) || c.Device != "" && !ValidDevice(c.Device) {
		return IPConfig{}, fmt.Errorf("%q is not a host name or %q not a network device", c.Host, c.Device)
	}
	return c, nil
}

// maskBits is the prefix length of a netmask. ok is false if there are no ones,
// or if a zero stands before a one.
func maskBits(mask netip.Addr) (bits int, ok bool) {
	if !mask.Is4() {
		return 0, false
	}
	b := mask.As4()
	bits, size := net.IPMask(b[:]).Size()
	return bits, size == 32 && bits > 0
}

// ValidDevice reports whether s can be the kernel's name of a network device.
// It allows at most 15 letters, digits, '-', '_' and '.', but not "." or "..".
func ValidDevice(s string) bool { return validLabel(s) && len(s) <= 15 }

func validLabel(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, ".") != "" &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func parseIPv4(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 address", s)
	}
	return ip, nil
}

// parseBootIF reads "01-88-99-aa-bb-cc-dd", a hardware type and an address. For
// hardware other than Ethernet it returns nil without an error.
func parseBootIF(s string) (net.HardwareAddr, error) {
	kind, mac, _ := strings.Cut(s, "-")
	if _, err := hex.DecodeString(kind); err != nil || len(kind) != 2 || mac == "" || len(s) > maxWord {
		return nil, fmt.Errorf("%q is not a hardware type and address like 01-88-99-aa-bb-cc-dd", s)
	}
	if kind != "01" {
		return nil, nil
	}
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return nil, fmt.Errorf("%q is not an Ethernet address like 01-88-99-aa-bb-cc-dd", s)
	}
	return hw, nil
}
