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
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
)

// Exports mounts the areas of share mode as a box would, as root, whom the server puts another
// user in place of, and asks what that user may do there. As a box does, it takes version 3 of NFS,
// and version 4 from a server that has no version 3. It speaks with the server itself, so it needs no
// NFS in this kernel, no mount that could hang, and it writes nothing.
func Exports(ctx context.Context, s *site.Site) []Finding { return exports(ctx, s, 111, 2049) }

func exports(ctx context.Context, s *site.Site, portmapper, nfsPort uint16) (all []Finding) {
	c := &nfs{ctx: ctx, server: s.Server, nfsPort: nfsPort}
	defer c.close()
	if err := c.open(portmapper); err != nil {
		if c.files == nil {
			return []Finding{problem("exports", "systemctl status nfs-server (or nfs-ganesha). A firewall must let the ports 111 and 2049 in, "+
				"and that of mountd.",
				"the NFS server %v, with the areas, does not answer: %v", s.Server, err)}
		}
		c.v4, c.silent = true, nil
		switch _, err4 := c.compound(nil); {
		case errors.Is(err4, errMinor):
			return []Finding{notLooked("exports", "the NFS server %v has no version 3 (%v), and of version 4 only 4.1 or later, which is not "+
				"tried here. Try it by hand: mount -t nfs -o vers=4.1 %v:%s /mnt", s.Server, err, s.Server, s.BackupPath)}
		case err4 != nil:
			return []Finding{problem("exports", "systemctl status nfs-server (or nfs-ganesha), and rpcbind.", "the NFS server %v has "+
				"neither version 3 (%v) nor version 4 (%v), so no box can mount the areas", s.Server, err, err4)}
		}
	}
	for _, a := range []struct {
		path, inside string // inside it boxes write
	}{
		{s.TFTPPath, bootcfg.ConfigDir},
		{s.BackupPath, ""},
	} {
		found := c.area(a.path, a.inside)
		if c.silent != nil {
			return append(all, problem("exports", "systemctl status nfs-server (or nfs-ganesha). Restart it if its disk hangs no more.",
				"the NFS server %v takes connections and does not answer (%v), so boxes wait for it", s.Server, c.silent))
		}
		all = append(all, found...)
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

// nfs speaks NFS version 3 (RFC 1813), or version 4.0 (RFC 7530), over ONC RPC (RFC 5531) and TCP.
type nfs struct {
	ctx          context.Context // ends each waiting
	server       netip.Addr
	nfsPort      uint16
	v4           bool // handles of files are their paths
	mountd       net.Conn
	files        net.Conn
	xid          uint32
	mountedPaths []string
	silent       error // why nothing more is asked
}

const (
	progPortmap, progNFS, progMount = 100000, 100003, 100005
	maxReply                        = 64 << 10
	nfsTime                         = 5 * time.Second
)

func (c *nfs) open(portmapper uint16) (err error) {
	if c.files, err = c.dial(c.nfsPort); err != nil {
		return err
	}
	pm, err := c.dial(portmapper)
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
	c.mountd, err = c.dial(uint16(port))
	return err
}

// dial connects from a port below 1024 if it may, as servers want it for "secure" exports.
func (c *nfs) dial(port uint16) (net.Conn, error) {
	to := netip.AddrPortFrom(c.server, port).String()
	d := net.Dialer{Timeout: nfsTime}
	if os.Geteuid() == 0 {
		for local := 1023; local > 1015; local-- {
			d.LocalAddr = &net.TCPAddr{Port: local}
			if conn, err := d.DialContext(c.ctx, "tcp4", to); err == nil {
				return conn, nil
			} else if e := (net.Error)(nil); errors.As(err, &e) && e.Timeout() {
				return nil, err
			}
		}
		d.LocalAddr = nil
	}
	return d.DialContext(c.ctx, "tcp4", to)
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
	if c.v4 {
		_, err := c.compound(strings.Split(path, "/"))
		return []byte(path), err
	}
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
	if c.v4 {
		return c.mount(string(dir) + "/" + name)
	}
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
	if c.v4 {
		r, err := c.compound(strings.Split(string(fh), "/"), words32(opAccess, want)...)
		if err != nil {
			return 0, err
		}
		r.number() // which of them the server knows
		return r.number(), r.err
	}
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

var errMinor = errors.New("it has no version 4.0")

const opAccess, opLookup, opPutRoot = 3, 15, 24 // RFC 7530, section 16

// compound goes to a folder by version 4.0 and does one more operation there, if one is given. It
// returns what follows the number and the status of that one. No client has to be made known for these.
func (c *nfs) compound(path []string, operation ...byte) (*reply, error) {
	n := uint32(1)
	ops := words32(opPutRoot)
	for _, name := range path {
		if name != "" {
			n++
			ops = append(append(ops, words32(opLookup)...), opaque([]byte(name))...)
		}
	}
	if len(operation) > 0 {
		n++
		ops = append(ops, operation...)
	}
	// COMPOUND: no tag, minor version 0, the operations.
	r, err := c.call(c.files, progNFS, 4, 1, append(words32(0, 0, n), ops...))
	if err != nil {
		return nil, err
	}
	status := r.number()
	r.opaque() // the tag
	done := r.number()
	switch {
	case r.err != nil:
		return nil, r.err
	case status == 10021:
		return nil, errMinor
	case status != 0:
		return nil, nfsError(status)
	case done != n:
		return nil, errors.New("the answer is cut off")
	}
	r.skip(int(n) * 8) // PUTROOTFH and LOOKUP return nothing but number and status
	return r, r.err
}

func nfsError(status uint32) error {
	text := map[uint32]string{1: "not permitted", 2: "it is not there", 5: "an I/O error", 13: "permission denied: it is not exported " +
		"to this machine, or its folders are closed to it",
		20: "it is no folder", 22: "invalid", 70: "a stale file handle", 10004: "not supported", 10006: "the server failed",
		10016: "it wants another kind of security than sec=sys"}[status]
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
	if c.silent != nil {
		return nil, c.silent
	}
	r, err := c.ask(conn, prog, vers, proc, args)
	if e := (net.Error)(nil); errors.As(err, &e) && e.Timeout() {
		c.silent = err
	}
	return r, err
}

func (c *nfs) ask(conn net.Conn, prog, vers, proc uint32, args []byte) (*reply, error) {
	c.xid++
	cred := append(words32(0), opaque([]byte("box"))...) // AUTH_SYS: stamp, machine, uid, gid, no groups
	cred = append(cred, words32(0, 0, 0)...)
	msg := words32(c.xid, 0, 2, prog, vers, proc, 1)
	msg = append(append(msg, opaque(cred)...), words32(0, 0)...)
	msg = append(msg, args...)
	end := time.Now().Add(nfsTime)
	if at, ok := c.ctx.Deadline(); ok && at.Before(end) {
		end = at
	}
	conn.SetDeadline(end)
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
