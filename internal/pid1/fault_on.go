//go:build faults

package pid1

import "time"

// fault breaks process 1, or in the debian form the keeper before it mounts the
// root, as the kernel command line asks, for tests: with hang-init it does
// nothing any more but look alive, so that only the watchdog, which runs and is
// not fed, can bring the box back; with panic-init it dies.
func fault(word string, beat func()) {
	switch word {
	case "hang-init":
		for {
			beat()
			time.Sleep(time.Second)
		}
	case "panic-init":
		panic("testbox-fault=panic-init")
	}
}
