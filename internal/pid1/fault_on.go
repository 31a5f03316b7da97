//go:build faults

package pid1

import "time"

// fault breaks process 1 on demand of the kernel command line, for tests. In
// the debian form it breaks the keeper before the root is mounted. With
// hang-init the process only looks alive and does nothing else. The watchdog
// runs by then and is not fed, so only the watchdog can restart the box. With
// panic-init the process dies.
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
