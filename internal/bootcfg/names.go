package bootcfg

import (
	"net"
	"regexp"
	"strings"

	"testbox-imaging/internal/box"
)

// ConfigDir is the folder of boot files below the TFTP area, DefaultName the
// file in it for every box that is not armed.
const (
	ConfigDir   = "pxelinux.cfg"
	DefaultName = "default"
)

// SoughtNames are the files below pxelinux.cfg/ that PXELINUX asks for, in its
// order; it takes the first that is there. UUID and MAC may be unknown.
// https://wiki.syslinux.org/wiki/index.php?title=PXELINUX#Configuration
func SoughtNames(uuid string, mac net.HardwareAddr, a box.Addr) []string {
	var names []string
	if uuid != "" {
		names = append(names, strings.ToLower(uuid))
	}
	if mac != nil {
		names = append(names, bootIF(mac))
	}
	for hex := a.Hex(); hex != ""; hex = hex[:len(hex)-1] {
		names = append(names, hex)
	}
	return append(names, DefaultName)
}

// Owner is the one box that a file in pxelinux.cfg/ is for, if its name is
// asked for before the name made of the address.
type Owner struct {
	UUID string           // lower case; or
	MAC  net.HardwareAddr // an Ethernet address; nil for other hardware
}

var (
	uuidName = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	macName  = regexp.MustCompile(`^[0-9a-f]{2}(-[0-9a-f]{2}){6,20}$`)
)

// ParseOwner tells whether a file's name is one that some box asks for before
// the name that arms it. Case is passed over, because a TFTP server may.
func ParseOwner(name string) (Owner, bool) {
	name = strings.ToLower(name)
	switch {
	case uuidName.MatchString(name):
		return Owner{UUID: name}, true
	case macName.MatchString(name):
		mac, err := parseBootIF(name)
		return Owner{MAC: mac}, err == nil
	}
	return Owner{}, false
}
