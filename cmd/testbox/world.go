package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/server"
)

// world is what the commands need of the machine that they run on. Tests
// replace its functions and paths.
type world struct {
	now        func() time.Time
	names      arming.Resolver
	executable func() (string, error) // path of this program
	configDirs []string               // where pxelinux.cfg usually is, best first
	poll       time.Duration          // how long to wait between two reads of a box's log
	neighbours string                 // path of the kernel's table of IPv4 neighbours
	loaders    string                 // where Debian's packages put PXELINUX/ and syslinux/
	socket     string                 // of a server on this machine
	away       time.Duration          // how long a server may not answer; 0 is the client's own limit
	userDir    func() (string, error) // folder of this user's configuration
}

func realWorld() world {
	usual := server.DefaultConfig()
	return world{
		now: time.Now,
		names: arming.Resolver{
			Addrs: func(ctx context.Context, host string) ([]netip.Addr, error) {
				return net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
			},
			Names: net.DefaultResolver.LookupAddr,
		},
		executable: os.Executable,
		configDirs: []string{
			filepath.Join(bootcfg.TFTPMount, bootcfg.ConfigDir), filepath.Join(bootcfg.Export, bootcfg.TFTPArea, bootcfg.ConfigDir),
			usual.BootDir(), // a storage server that has the state folder that is usual
		},
		poll:       2 * time.Second,
		neighbours: "/proc/net/arp",
		loaders:    "/usr/lib",
		socket:     apiclient.Socket,
		userDir:    os.UserConfigDir,
	}
}

// place returns where boxes are armed. It is dir. If dir is "", it is the
// folder of this program or one of the usual places.
func (w world) place(dir string) (*arming.Place, error) {
	usual := w.configDirs
	if prog, err := w.executable(); err == nil {
		usual = append([]string{filepath.Dir(prog)}, usual...)
	}
	fsys := durable.OS{}
	boot, err := bootfiles.Find(fsys, dir, usual)
	if err != nil {
		return nil, err
	}
	return &arming.Place{Boot: boot, FS: fsys, Names: w.names, Neighbours: w.neighbours, Now: w.now}, nil
}
