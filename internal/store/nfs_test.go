package store

import (
	"bufio"
	"strings"
	"testing"
)

func TestLocalLocks(t *testing.T) {
	const mounts = `21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:40 / /srv/nfs rw,relatime shared:5 - nfs nas:/a rw,vers=3,nolock,local_lock=all,addr=10.0.0.1
31 21 0:41 / /srv/nfs4 rw,relatime - nfs4 nas:/b rw,vers=4.2,local_lock=none,addr=10.0.0.1
32 21 0:42 / /srv/with\040space rw - nfs nas:/c rw,vers=3,local_lock=flock
33 30 8:2 / /srv/nfs/disk rw - ext4 /dev/sdb1 rw
garbage
34 21 0:43 / /srv/covered rw - nfs nas:/d rw,nolock
35 34 8:3 / /srv/covered rw - ext4 /dev/sdc1 rw
`
	for path, want := range map[string]bool{
		"/srv": false, "/srv/nfs": true, "/srv/nfs/store": true, "/srv/nfs4/store": false, "/srv/nfsx": false, "/srv/with space/s": true,
		"/srv/nfs/disk/s": false, "/srv/covered/s": false, "/": false,
	} {
		if got := localLocks(bufio.NewScanner(strings.NewReader(mounts)), path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if err := sharedLocks(t.TempDir()); err != nil {
		t.Error(err)
	}
}
