package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"testbox-imaging/internal/words"
)

// needed are the programs that a lab runs. The files that `testbox share init`
// and QEMU need are not checked here, since these two report themselves what is
// missing.
var needed = []string{"ip", "dnsmasq", "rpcbind", "ganesha.nfsd", "qemu-system-x86_64", "sfdisk", "mkfs.ext4", "grub-mkimage", busybox}

// Check says what this machine lacks for a lab, before anything is downloaded
// for it.
func Check() error {
	if os.Getuid() != 0 {
		return errors.New("a lab needs root: it makes a network and serves NFS; run it again as root or with sudo")
	}
	var missing []string
	for _, name := range needed {
		if _, err := exec.LookPath(program(name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a lab needs %s, which %s not here; `scripts/deps`, in the folder of the source, installs what a lab needs",
			strings.Join(missing, ", "), words.Verb(len(missing), "is", "are"))
	}
	return nil
}
