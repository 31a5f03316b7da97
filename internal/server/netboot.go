package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"time"

	"testbox-imaging/internal/bootarea"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/sparing"
	"testbox-imaging/internal/tftp"
)

// netboot gives boot files out to boxes. It never waits for the ledger, so that boxes
// start whatever the server does.
type netboot struct {
	*server
	area  *bootarea.Area
	tftp  *tftp.Server
	spare sparing.Limit
	quiet time.Duration // how slow a client may be over HTTP, as wire.NewPace takes it
}

func newNetboot(s *server, dir string) (*netboot, error) {
	area, err := bootarea.Open(dir)
	if err != nil {
		return nil, err
	}
	n := &netboot{server: s, area: area}
	n.tftp = &tftp.Server{Done: n.done, Open: func(r tftp.Request) (tftp.File, error) {
		f, err := area.Open(r.Name, r.Client.Addr())
		if err != nil {
			return nil, err // a nil *bootarea.File would be no nil tftp.File
		}
		return f, nil
	}}
	return n, nil
}

// watchLoaders looks at the loaders of UEFI machines now and then, so that nobody who asks for one waits until its
// signature is checked.
func (n *netboot) watchLoaders(ctx context.Context) {
	for {
		select {
		case <-time.After(presentAge):
		case <-ctx.Done():
			return
		}
		for _, k := range n.area.LookAtLoaders() {
			switch pair, err := n.area.Loaders(k); {
			case err == nil:
				n.Log.Info("UEFI machines are given new loaders, whose signatures are right.", "loaders", pair)
			case errors.Is(err, fs.ErrNotExist):
				n.Log.Warn("There are no loaders for UEFI machines any more.", "kind", k.Arch)
			default:
				n.Log.Error(noLoaders(k, err))
			}
		}
	}
}

func (n *netboot) close() { n.area.Close() }

// serve answers boxes until ctx ends.
func (n *netboot) serve(ctx context.Context, conn *net.UDPConn) error { return n.tftp.Serve(ctx, conn) }

// done takes note of what a box asked for by TFTP.
func (n *netboot) done(t tftp.Transfer) {
	if !t.Probe {
		n.note("tftp", t.Client.Addr(), t.Name, t.Size, t.Duration, t.Err)
	}
}

// note takes note of what a box asked for. err says why it did not get all of it.
func (n *netboot) note(over string, client netip.Addr, name string, size int64, took time.Duration, err error) {
	name = bootarea.Clean(name)
	client = client.Unmap()
	addr := client.String()
	n.sawFile(over, client, name, err)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a loader asks for many names that are not there
		return
	case err != nil:
		if more, ok := n.spare.Take(addr); ok {
			n.Log.Warn("A box did not get a file."+more, "over", over, "from", addr, "file", name, "error", err)
		}
		return
	}
	if more, ok := n.spare.Take(addr + " " + name); ok {
		n.Log.Info("A box got a file."+more, "over", over, "from", addr, "file", name, "bytes", size, "took", took.Round(time.Millisecond))
	}
	if name != path.Join(bootcfg.ConfigDir, bootcfg.DefaultName) {
		return
	}
	if of, err := box.ParseAddr(addr); err == nil {
		n.dispatch.DefaultAsked(of, time.Now())
	}
}
