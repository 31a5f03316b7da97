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

// Export is the default folder on the storage server that has the areas.
const Export = "/export"

// Where a box mounts the areas, and the files that show that they are mounted.
const (
	TFTPMount   = "/mnt/" + TFTPArea
	BackupMount = "/mnt/" + BackupArea
	// LoaderName is the loader in the TFTP area.
	LoaderName = "pxelinux.0"
	// BackupMarker is a file in the backup area's root. If it is missing, the area
	// is not mounted or is another folder, and nobody may write there.
	BackupMarker = BackupArea
)

// RunDir is the folder in memory in which the programs of one start of a box find
// the session with the server.
const RunDir = "/run"

// BIOSLoaders are the files that a DHCP server may name to machines with BIOS. Both are PXELINUX.
var BIOSLoaders = []string{LoaderName, "lpxelinux.0"}

// ConfigDir is the folder of boot files below the TFTP area. DefaultName is the
// file in it for every box that is not armed.
const (
	ConfigDir   = "pxelinux.cfg"
	DefaultName = "default"
)

// Owner is the one box that a file in pxelinux.cfg/ is for. The loader asks for
// such a file before it asks for the one that is named by the box's address.
// Either UUID is set, or the file is named by a hardware address.
type Owner struct {
	UUID string           // lower case
	MAC  net.HardwareAddr // an Ethernet address; nil for other hardware
}

var (
	uuidName = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	macName  = regexp.MustCompile(`^[0-9a-f]{2}(-[0-9a-f]{2}){6,20}$`)
)

// ParseOwner reports whether a file's name is one that some box asks for before
// the name that arms it. It ignores case, because a TFTP server may do so.
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

// OtherOrder is a UUID with its first three numbers in the other byte order. Loaders
// print the bytes as the firmware's PXE sent them. They may have the order of SMBIOS,
// where Linux reads these numbers as little-endian. It is "" if uuid is no UUID.
func OtherOrder(uuid string) string {
	if len(uuid) != 36 {
		return ""
	}
	b := []byte(uuid)
	for _, at := range [][2]int{{0, 8}, {9, 13}, {14, 18}} {
		for i, j := at[0], at[1]-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
	}
	return string(b)
}

// ParsePrefix reads the name of a file that is for many boxes. Such a name is
// one to seven upper-case hexadecimal digits, with which the addresses of the
// boxes begin. ParsePrefix returns the first and the last of these addresses.
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
