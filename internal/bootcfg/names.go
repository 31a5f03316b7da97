package bootcfg

import (
	"net"
	"regexp"
	"strings"
)

// ConfigDir is the folder of boot files below the TFTP area, DefaultName the
// file in it for every box that is not armed.
const (
	ConfigDir   = "pxelinux.cfg"
	DefaultName = "default"
)

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
