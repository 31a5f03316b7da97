package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
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

func (n *netboot) close() { n.area.Close() }

// serve answers boxes until ctx ends.
func (n *netboot) serve(ctx context.Context, conn *net.UDPConn) error { return n.tftp.Serve(ctx, conn) }

// done takes note of what a box asked for.
func (n *netboot) done(t tftp.Transfer) {
	name := bootarea.Clean(t.Name)
	addr := t.Client.Addr().String()
	if !t.Probe {
		n.sawFile("tftp", t.Client.Addr(), name, t.Err)
	}
	switch {
	case t.Probe, errors.Is(t.Err, fs.ErrNotExist): // a loader asks for many names that are not there
		return
	case t.Err != nil:
		if more, ok := n.spare.Take(addr); ok {
			n.Log.Warn("A box did not get a file."+more, "from", addr, "file", name, "error", t.Err)
		}
		return
	}
	if more, ok := n.spare.Take(addr + " " + name); ok {
		n.Log.Info("A box got a file."+more, "from", addr, "file", name, "bytes", t.Size, "took", t.Duration.Round(time.Millisecond))
	}
	if name != path.Join(bootcfg.ConfigDir, bootcfg.DefaultName) {
		return
	}
	if of, err := box.ParseAddr(addr); err == nil {
		n.dispatch.DefaultAsked(of, time.Now())
	}
}
