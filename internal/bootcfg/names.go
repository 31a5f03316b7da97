package bootcfg

import (
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Names of the folders of share mode's three areas. They lie beside each other.
const (
	TFTPArea   = "testbox-tftp"
	BackupArea = "testbox-backup"
	RootArea   = "testbox-nfsroot"
)

// Where a box mounts the areas, and by which files it sees that they are mounted.
const (
	TFTPMount   = "/mnt/" + TFTPArea
	BackupMount = "/mnt/" + BackupArea
	// LoaderName is the loader in the TFTP area.
	LoaderName = "pxelinux.0"
	// BackupMarker is a file in the backup area's root. Without it nothing is
	// written: the area is not mounted, or is another folder.
	BackupMarker = BackupArea
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

// ParsePrefix reads the name of a file that the loader takes for many boxes: one
// to seven upper-case hexadecimal digits, with which their addresses begin. It
// gives the first and the last of these addresses.
func ParsePrefix(name string) (first, last string, ok bool) {
	if name == "" || len(name) > 7 || strings.Trim(name, "0123456789ABCDEF") != "" {
		return "", "", false
	}
	var low, high [4]byte
	for i := range 8 {
		digit := [2]byte{0, 15}
		if i < len(name) {
			d := byte(strings.IndexByte("0123456789ABCDEF", name[i]))
			digit = [2]byte{d, d}
		}
		shift := 4 * (1 - i%2)
		low[i/2] |= digit[0] << shift
		high[i/2] |= digit[1] << shift
	}
	return dotted(low), dotted(high), true
}

func dotted(b [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3]) }
