package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
)

// Exports mounts the areas of share mode as a box would, by NFS version 3 and as root, whom
// the server puts another user in place of, and asks what that user may do there. It speaks
// with the server itself, so it needs no NFS in this kernel, and it writes nothing.
func Exports(ctx context.Context, s *site.Site) []Finding { return exports(ctx, s, 111, 2049) }

func exports(ctx context.Context, s *site.Site, portmapper, nfsPort uint16) (all []Finding) {
	c := &nfs{server: s.Server, nfsPort: nfsPort}
	defer c.close()
	if err := c.open(ctx, portmapper); err != nil {
		if c.files != nil {
			return []Finding{notLooked("exports", "the NFS server %v answers at port %d, but has no portmapper or no mountd (%v). Boxes use NFS "+
				"version 4.1 then, which is not tried here", s.Server, nfsPort, err)}
		}
		return []Finding{problem("exports", "systemctl status nfs-server (or nfs-ganesha). A firewall must let the ports 111 and 2049 in, "+
			"and that of mountd.",
			"the NFS server %v, with the areas, does not answer: %v", s.Server, err)}
	}
	for _, a := range []struct {
		path, inside string // inside it boxes write
	}{
		{s.TFTPPath, bootcfg.ConfigDir},
		{s.BackupPath, ""},
	} {
		all = append(all, c.area(a.path, a.inside)...)
	}
	if len(all) == 0 {
		all = append(all, fine("exports", "boxes can mount %s and %s, and write where they must", s.TFTPPath, s.BackupPath))
	}
	return all
}

const exportAdvice = "testbox share init says the lines for /etc/exports; then `exportfs -ra`. The user that root is squashed to " +
	"(anonuid) must be the area's owner."

// area looks at one exported folder.
func (c *nfs) area(path, inside string) []Finding {
	dir, err := c.mount(path)
	if err != nil {
		return []Finding{problem("exports", exportAdvice, "a box cannot mount %v:%s: %v", c.server, path, err)}
	}
	if inside != "" {
		if dir, err = c.lookup(dir, inside); err != nil {
			return []Finding{problem("exports", exportAdvice, "in the export %s a box does not find %s: %v", path, inside, err)}
		}
	} else if _, err := c.lookup(dir, sharedir.Marker); err != nil {
		return []Finding{problem("exports", "testbox share init, on the storage server", "in the export %s a box does not find %s: %v. Is "+
			"its disk mounted there?",
			path, sharedir.Marker, err)}
	}
	const read, enter, modify, extend = 1, 2, 4, 8
	may, err := c.access(dir, read|enter|modify|extend)
	switch {
	case err != nil:
		return []Finding{problem("exports", exportAdvice, "what a box may do in %s cannot be asked: %v", path, err)}
	case may&(read|enter) != read|enter:
		return []Finding{problem("exports", exportAdvice, "a box may not read %s/%s", path, inside)}
	case may&(modify|extend) != modify|extend:
		return []Finding{problem("exports", exportAdvice,
			"a box may not write to %s/%s: it is exported read-only (ro), or belongs to another user than root is squashed to", path, inside)}
	}
	return nil
}

// nfs speaks NFS version 3 (RFC 1813) over ONC RPC (RFC 5531) and TCP.
type nfs struct {
	server       netip.Addr
	nfsPort      uint16
	mountd       net.Conn
	files        net.Conn
	xid          uint32
	mountedPaths []string
}

const (
	progPortmap, progNFS, progMount = 100000, 100003, 100005
	maxReply                        = 64 << 10
	nfsTime                         = 5 * time.Second
)

func (c *nfs) open(ctx context.Context, portmapper uint16) (err error) {
	if c.files, err = c.dial(ctx, c.nfsPort); err != nil {
		return err
	}
	pm, err := c.dial(ctx, portmapper)
	if err != nil {
		return err
	}
	defer pm.Close()
	// GETPORT of mountd, version 3, over TCP (RFC 1833)
	r, err := c.call(pm, progPortmap, 2, 3, words32(progMount, 3, 6, 0))
	if err != nil {
		return err
	}
	port := r.number()
	if r.err != nil || port == 0 || port > 0xffff {
		return errors.New("it has no mountd for version 3 over TCP")
	}
	c.mountd, err = c.dial(ctx, uint16(port))
	return err
}

// dial connects from a port below 1024 if it may, as servers want it for "secure" exports.
func (c *nfs) dial(ctx context.Context, port uint16) (net.Conn, error) {
	to := netip.AddrPortFrom(c.server, port).String()
	d := net.Dialer{Timeout: nfsTime}
	if os.Geteuid() == 0 {
		for local := 1023; local > 1015; local-- {
			d.LocalAddr = &net.TCPAddr{Port: local}
			if conn, err := d.DialContext(ctx, "tcp4", to); err == nil {
				return conn, nil
			} else if e := (net.Error)(nil); errors.As(err, &e) && e.Timeout() {
				return nil, err
			}
		}
		d.LocalAddr = nil
	}
	return d.DialContext(ctx, "tcp4", to)
}

func (c *nfs) close() {
	for _, p := range c.mountedPaths {
		c.call(c.mountd, progMount, 3, 3, opaque([]byte(p))) // UMNT
	}
	for _, conn := range []net.Conn{c.mountd, c.files} {
		if conn != nil {
			conn.Close()
		}
	}
}

func (c *nfs) mount(path string) ([]byte, error) {
	r, err := c.call(c.mountd, progMount, 3, 1, opaque([]byte(path)))
	if err != nil {
		return nil, err
	}
	if err := nfsError(r.number()); err != nil {
		return nil, err
	}
	c.mountedPaths = append(c.mountedPaths, path)
	return r.opaque(), r.err
}

func (c *nfs) lookup(dir []byte, name string) ([]byte, error) {
	r, err := c.call(c.files, progNFS, 3, 3, append(opaque(dir), opaque([]byte(name))...))
	if err != nil {
		return nil, err
	}
	if err := nfsError(r.number()); err != nil {
		return nil, err
	}
	return r.opaque(), r.err
}

func (c *nfs) access(fh []byte, want uint32) (uint32, error) {
	r, err := c.call(c.files, progNFS, 3, 4, append(opaque(fh), words32(want)...))
	if err != nil {
		return 0, err
	}
	if err := nfsError(r.number()); err != nil {
		return 0, err
	}
	if r.number() == 1 {
		r.skip(84) // the folder's attributes
	}
	return r.number(), r.err
}

func nfsError(status uint32) error {
	text := map[uint32]string{1: "not permitted", 2: "it is not there", 5: "an I/O error", 13: "permission denied: it is not exported " +
		"to this machine, or its folders are closed to it",
		20: "it is no folder", 22: "invalid", 70: "a stale file handle", 10004: "not supported", 10006: "the server failed"}[status]
	switch {
	case status == 0:
		return nil
	case text == "":
		return fmt.Errorf("NFS error %d", status)
	}
	return errors.New(text)
}

// call sends one request as root and reads the answer.
func (c *nfs) call(conn net.Conn, prog, vers, proc uint32, args []byte) (*reply, error) {
	if conn == nil {
		return nil, errors.New("there is no connection")
	}
	c.xid++
	cred := append(words32(0), opaque([]byte("box"))...) // AUTH_SYS: stamp, machine, uid, gid, no groups
	cred = append(cred, words32(0, 0, 0)...)
	msg := words32(c.xid, 0, 2, prog, vers, proc, 1)
	msg = append(append(msg, opaque(cred)...), words32(0, 0)...)
	msg = append(msg, args...)
	conn.SetDeadline(time.Now().Add(nfsTime))
	if _, err := conn.Write(append(words32(0x80000000|uint32(len(msg))), msg...)); err != nil {
		return nil, err
	}
	var body []byte
	for last := false; !last; {
		var head [4]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		last = n&0x80000000 != 0
		if n &= 0x7fffffff; int64(n)+int64(len(body)) > maxReply {
			return nil, errors.New("the answer is too long")
		}
		part := make([]byte, n)
		if _, err := io.ReadFull(conn, part); err != nil {
			return nil, err
		}
		if body = append(body, part...); n == 0 && !last {
			return nil, errors.New("the answer has an empty part")
		}
	}
	r := &reply{b: body}
	xid, kind, denied := r.number(), r.number(), r.number()
	r.number() // the verifier
	r.opaque()
	status := r.number()
	switch {
	case r.err != nil:
		return nil, r.err
	case xid != c.xid || kind != 1:
		return nil, errors.New("this is no answer to what was asked")
	case denied != 0:
		return nil, errors.New("the server takes no requests of user root by AUTH_SYS (sec=sys)")
	case status != 0:
		return nil, fmt.Errorf("RPC error %d", status)
	}
	return r, nil
}

// reply is what is left of an answer.
type reply struct {
	b   []byte
	err error
}

func (r *reply) skip(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		if r.err == nil {
			r.err = errors.New("the answer is cut off")
		}
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reply) number() uint32 {
	b := r.skip(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reply) opaque() []byte {
	n := r.number()
	if n > maxReply {
		r.err = errors.New("the answer is cut off")
		return nil
	}
	b := r.skip(int(n))
	r.skip(int(-n & 3))
	return b
}

func words32(list ...uint32) (b []byte) {
	for _, n := range list {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func opaque(p []byte) []byte {
	b := append(words32(uint32(len(p))), p...)
	return append(b, make([]byte, -len(p)&3)...)
}
