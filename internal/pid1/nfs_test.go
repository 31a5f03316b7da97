package pid1

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bootcfg"
)

// nfsServer answers as the test says; asked has what was tried.
type nfsServer struct {
	portmap, nfs error // of a dial
	v3, v4       error // of a mount
	asked        []string
}

func (n *nfsServer) client() *nfsClient {
	return &nfsClient{
		id: "10.40.41.42",
		dial: func(to netip.AddrPort) error {
			return map[uint16]error{portmapPort: n.portmap, nfsPort: n.nfs}[to.Port()]
		},
		mount: func(source, dir, kind string, flags uintptr, options string) error {
			version, _, _ := strings.Cut(options, ",")
			n.asked = append(n.asked, version)
			if !strings.HasSuffix(options, ",hard,addr=10.0.0.1") || source != "10.0.0.1:/export/a" || dir != "/mnt/a" || kind != "nfs" {
				return fmt.Errorf("mount(%q, %q, %q, %q)", source, dir, kind, options)
			}
			if version == "vers=3" {
				return n.v3
			}
			return n.v4
		},
		setID: func(id string) error { n.asked = append(n.asked, id); return nil },
	}
}

func TestNFSVersions(t *testing.T) {
	timeout := fmt.Errorf("dial tcp: %w", os.ErrDeadlineExceeded)
	refused := fmt.Errorf("dial tcp: %w", unix.ECONNREFUSED)
	for name, c := range map[string]struct {
		server nfsServer
		asked  string
		errors string // "|" between texts that the error has; "" is success
	}{
		"version 3":                    {nfsServer{}, "vers=3", ""},
		"version 3 is not registered":  {nfsServer{v3: unix.EPROTONOSUPPORT}, "vers=3 10.40.41.42 vers=4.1", ""},
		"mount daemon is gone":         {nfsServer{v3: unix.EOPNOTSUPP}, "vers=3 10.40.41.42 vers=4.1", ""},
		"mount daemon refuses":         {nfsServer{v3: unix.ECONNREFUSED}, "vers=3 10.40.41.42 vers=4.1", ""},
		"mount daemon is silent":       {nfsServer{v3: unix.ETIMEDOUT}, "vers=3 10.40.41.42 vers=4.1", ""},
		"no portmapper":                {nfsServer{portmap: refused}, "10.40.41.42 vers=4.1", ""},
		"portmapper behind a firewall": {nfsServer{portmap: timeout}, "10.40.41.42 vers=4.1", ""},
		"neither": {nfsServer{portmap: refused, v4: unix.EPROTONOSUPPORT}, "10.40.41.42 vers=4.1",
			"NFS version 3: no portmapper|refused|version 4.1: protocol not supported"},
		"exported by neither": {nfsServer{v3: unix.EIO, v4: unix.EACCES}, "vers=3 10.40.41.42 vers=4.1",
			"NFS version 3: input/output|version 4.1: permission denied; the server does not export"},
		"other path in version 4": {nfsServer{v3: unix.ECONNREFUSED, v4: unix.ENOENT}, "vers=3 10.40.41.42 vers=4.1",
			"version 3: connection refused|no such folder"},
		"not exported":   {nfsServer{v3: unix.EACCES}, "vers=3", "permission denied; the server does not export it"},
		"no such folder": {nfsServer{v3: unix.ENOENT}, "vers=3", "no such file"},
		"no NFS client":  {nfsServer{v3: unix.ENODEV}, "vers=3", "no NFS client"},
		"server is away": {nfsServer{portmap: timeout, nfs: timeout, v3: unix.EHOSTUNREACH}, "vers=3",
			"no route to host; no NFS server answers"},
		"NFS is away": {nfsServer{nfs: refused, v3: unix.ECONNREFUSED}, "vers=3",
			"connection refused; no NFS server answers"},
		"server that only mount(2) meets": {nfsServer{portmap: timeout, nfs: timeout}, "vers=3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			from, err := bootcfg.ParseNFSPath("10.0.0.1:/export/a")
			if err != nil {
				t.Fatal(err)
			}
			err = c.server.client().forFiles(area{from: from, dir: "/mnt/a"})
			if got := strings.Join(c.server.asked, " "); got != c.asked {
				t.Errorf("asked %q, want %q", got, c.asked)
			}
			if (err == nil) != (c.errors == "") {
				t.Fatalf("error %v", err)
			}
			for _, want := range strings.Split(c.errors, "|") {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q", err, want)
				}
			}
		})
	}
}

// Two boxes of one name would end each other's sessions: no id, no version 4.
func TestNFSWithoutID(t *testing.T) {
	s := nfsServer{v3: unix.EPROTONOSUPPORT}
	c := s.client()
	c.setID = func(string) error { return errors.New("read-only") }
	if err := c.toRun(area{from: bootcfg.NFSPath{Server: netip.MustParseAddr("10.0.0.1"), Path: "/export/a"}, dir: "/mnt/a"}); err == nil ||
		!strings.Contains(err.Error(), "cannot name this box") || len(s.asked) != 1 {
		t.Errorf("asked %v, %v", s.asked, err)
	}
}

// A restart of the unit finds the areas mounted.
func TestNFSAgain(t *testing.T) {
	a := area{from: bootcfg.NFSPath{Server: netip.MustParseAddr("10.0.0.1"), Path: "/export/a"}, dir: "/mnt/a"}
	for answer, want := range map[error]error{nil: nil, unix.EBUSY: nil, unix.EACCES: unix.EACCES} {
		if err := (&nfsServer{v3: answer}).client().again(a); !errors.Is(err, want) {
			t.Errorf("%v gave %v", answer, err)
		}
	}
}

// The root's set-uid programs must work, the areas have none.
func TestNFSFlags(t *testing.T) {
	var got uintptr
	c := (&nfsServer{}).client()
	c.mount = func(_, _, _ string, flags uintptr, _ string) error { got = flags; return nil }
	if c.toRun(area{}); got != unix.MS_RDONLY|unix.MS_NOATIME {
		t.Errorf("root: %#x", got)
	}
	if c.forFiles(area{}); got&(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC) == 0 || got&unix.MS_RDONLY != 0 {
		t.Errorf("areas: %#x", got)
	}
}
