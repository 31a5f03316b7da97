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

// The options of both versions. Every mount is hard: a server that is away for
// a while only makes its users wait. nolock, because locks over version 3 need
// daemons and nothing here needs locks. The kernel itself asks the server's
// portmapper and mount daemon; version 4 has neither.
const (
	optionsV3 = "vers=3,proto=tcp,mountproto=tcp,nolock,hard"
	optionsV4 = "vers=4.1,proto=tcp,hard"
)

const (
	portmapPort = 111
	nfsPort     = 2049
	dialTimeout = 5 * time.Second
)

// uniqueIDFile takes the name by which a version 4 server tells its clients
// apart. The kernel's own is made of the host name: of two boxes with the same
// one, each would end the other's session.
const uniqueIDFile = "/sys/module/nfs/parameters/nfs4_unique_id"

// nfsClient mounts exported folders: by version 3 if the server has it, else
// by 4.1.
type nfsClient struct {
	id    string                                                              // of this box among all of the server
	mount func(source, dir, kind string, flags uintptr, options string) error // mount(2)
	dial  func(netip.AddrPort) error                                          // nil: something listens there
	setID func(id string) error
}

func newNFSClient(id string) *nfsClient {
	return &nfsClient{id: id, mount: unix.Mount, dial: dialTCP, setID: setUniqueID}
}

// setUniqueID passes over a missing file: the kernel's NFS client is not loaded
// yet, as it is in a root that was not mounted by the keeper.
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

// forFiles mounts a folder of files that nobody may run.
func (c *nfsClient) forFiles(a area) error {
	return c.mountAt(a, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME)
}

// toRun mounts a system to run, read-only. Set-uid programs must work.
func (c *nfsClient) toRun(a area) error { return c.mountAt(a, unix.MS_RDONLY|unix.MS_NOATIME) }

// mountAt tries version 3, and 4.1 when the server has no version 3 but listens
// for NFS.
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

// noVersion3 are the errors that say that a server, or what is left of its
// services, does not do version 3. All others are its answer: another version
// would only hide it. EIO is what the kernel makes of most that it cannot ask
// the portmapper (net/sunrpc/clnt.c, call_bind_status).
var noVersion3 = []error{errNoPortmapper, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	unix.EPFNOSUPPORT, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.EIO}

var errNoPortmapper = errors.New("no portmapper answers")

// version3 does not even try when NFS has a listener and the portmapper has
// none: mount(2) waits minutes for a port behind a firewall that swallows
// packets. A server where neither answers is left to mount(2).
func (c *nfsClient) version3(a area, flags uintptr) error {
	noPortmapper := c.dial(netip.AddrPortFrom(a.from.Server, portmapPort))
	if noPortmapper != nil && c.dial(netip.AddrPortFrom(a.from.Server, nfsPort)) == nil {
		return fmt.Errorf("%w: %w", errNoPortmapper, noPortmapper)
	}
	return c.mount(a.from.String(), a.dir, "nfs", flags, optionsV3+",addr="+a.from.Server.String())
}

// explain adds what to do to answers that many sites see.
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
