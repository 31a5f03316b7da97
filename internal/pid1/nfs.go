package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The mount options of both versions. Every mount is hard, so a server that is
// away for a while only makes its users wait. nolock is there because locks
// over version 3 need daemons, and nothing here needs locks. The kernel itself
// asks the server's portmapper and mount daemon. Version 4 does not need these.
const (
	optionsV3 = "vers=3,proto=tcp,mountproto=tcp,nolock,hard"
	optionsV4 = "vers=4.1,proto=tcp,hard"
)

const (
	portmapPort = 111
	nfsPort     = 2049
	dialTimeout = 5 * time.Second
)

// uniqueIDFile sets the name by which a version 4 server tells its clients
// apart. By default the kernel makes it of the host name. Of two boxes with the
// same host name, each would end the other's session.
const uniqueIDFile = "/sys/module/nfs/parameters/nfs4_unique_id"

// nfsClient mounts exported folders. It uses version 3 if the server has it,
// else 4.1.
type nfsClient struct {
	id    string                                                              // of this box among all clients of the server
	mount func(source, dir, kind string, flags uintptr, options string) error // mount(2)
	dial  func(netip.AddrPort) error                                          // returns nil if something listens there
	setID func(id string) error
}

func newNFSClient(id string) *nfsClient {
	return &nfsClient{id: id, mount: unix.Mount, dial: dialTCP, setID: setUniqueID}
}

// setUniqueID ignores a missing file. It is missing while the kernel's NFS
// client is not loaded, as in a root that the keeper did not mount.
func setUniqueID(id string) error {
	err := os.WriteFile(uniqueIDFile, []byte(id), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func dialTCP(to netip.AddrPort) error {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(context.Background(), "tcp4", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// forFiles mounts a folder of files, from which nothing may be run.
func (c *nfsClient) forFiles(a area) error {
	return c.mountAt(a, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME)
}

// toRun mounts a root, read-only. Its set-uid programs must work.
func (c *nfsClient) toRun(a area) error { return c.mountAt(a, unix.MS_RDONLY|unix.MS_NOATIME) }

// mountAt tries version 3. It tries 4.1 if the server has no version 3 but
// listens on the NFS port.
func (c *nfsClient) mountAt(a area, flags uintptr) error {
	err3 := c.version3(a, flags)
	if err3 == nil || !slices.ContainsFunc(noVersion3, func(e error) bool { return errors.Is(err3, e) }) {
		return explain(err3)
	}
	if c.dial(netip.AddrPortFrom(a.from.Server, nfsPort)) != nil {
		return fmt.Errorf("%w; no NFS server answers there", err3)
	}
	if err := c.setID(c.id); err != nil {
		return fmt.Errorf("NFS version 3: %w; version 4.1: cannot name this box: %w", err3, err)
	}
	if err := c.mount(a.from.String(), a.dir, "nfs", flags, optionsV4+",addr="+a.from.Server.String()); err != nil {
		return fmt.Errorf("NFS version 3: %w; version 4.1: %w", err3, explain(err))
	}
	return nil
}

// noVersion3 has the errors by which a server, or what remains of its services,
// shows that it does not do version 3. Any other error is the server's answer,
// and an attempt with another version would only hide it. If the kernel cannot
// ask the portmapper, it mostly gives EIO (net/sunrpc/clnt.c,
// call_bind_status).
var noVersion3 = []error{errNoPortmapper, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	unix.EPFNOSUPPORT, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.EIO}

var errNoPortmapper = errors.New("no portmapper answers")

// version3 does not try to mount if something listens on the NFS port but not
// on the portmapper's port. If a firewall drops the packets, mount(2) would
// wait minutes for that port. If neither answers, mount(2) is tried.
func (c *nfsClient) version3(a area, flags uintptr) error {
	noPortmapper := c.dial(netip.AddrPortFrom(a.from.Server, portmapPort))
	if noPortmapper != nil && c.dial(netip.AddrPortFrom(a.from.Server, nfsPort)) == nil {
		return fmt.Errorf("%w: %w", errNoPortmapper, noPortmapper)
	}
	return c.mount(a.from.String(), a.dir, "nfs", flags, optionsV3+",addr="+a.from.Server.String())
}

// explain adds to errors that many sites see what to do about them.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; the server does not export it to this box", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w; the server has no such folder", err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w; the kernel has no NFS client: build the maintenance system anew", err)
	}
	return err
}
