package doctor

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/testenv"
)

// fakeNFS is portmapper, mountd and NFS server at one port. It has two exports, /tftp and /backup.
type fakeNFS struct {
	port             uint16
	noMountd         bool
	v4               bool   // it has version 4
	minor            uint32 // the only one of version 4 that it has
	noExport, noFile string // what is not there
	closedTo         string // export in which a box may do no more than may says
	may              uint32
	silent           uint32 // the program that never answers
}

// answer is the result of a call. Handles of files are their paths.
func (f *fakeNFS) answer(prog, vers, proc uint32, args *reply) []byte {
	switch {
	case prog == progPortmap && f.noMountd:
		return words32(0)
	case prog == progPortmap:
		return words32(uint32(f.port))
	case prog == progNFS && vers == 4 && f.v4:
		return f.compound(args)
	case prog == progNFS && vers == 4:
		return nil
	case prog == progMount && proc == 1:
		path := string(args.opaque())
		if path == f.noExport || path != "/tftp" && path != "/backup" {
			return words32(13)
		}
		return append(append(words32(0), opaque([]byte(path))...), words32(1, 1)...)
	case prog == progNFS && proc == 3:
		dir, name := string(args.opaque()), string(args.opaque())
		if name == f.noFile {
			return words32(2)
		}
		if name == bootcfg.ConfigDir {
			dir += "/" + name
		}
		return append(words32(0), opaque([]byte(dir))...)
	case prog == progNFS && proc == 4:
		dir, may := string(args.opaque()), args.number()
		if dir == f.closedTo {
			may &= f.may
		}
		b := words32(0, 1)
		return append(append(b, make([]byte, 84)...), words32(may)...)
	}
	return nil
}

// compound has the same exports by version 4.
func (f *fakeNFS) compound(args *reply) []byte {
	args.opaque()
	if args.number() != f.minor {
		return words32(10021, 0, 0)
	}
	at, may := "", uint32(0)
	var results []byte
	n := args.number()
	for i := range n {
		status, op := uint32(0), args.number()
		if op == opLookup {
			switch name := string(args.opaque()); {
			case name == f.noFile || at == "" && "/"+name == f.noExport || at == "" && name != "tftp" && name != "backup":
				status = 2
			case name != sharedir.Marker:
				at += "/" + name
			}
		}
		results = append(results, words32(op, status)...)
		if op == opAccess {
			if may = args.number(); at == f.closedTo {
				may &= f.may
			}
			results = append(results, words32(31, may)...)
		}
		if status != 0 {
			return append(words32(status, 0, i+1), results...)
		}
	}
	return append(words32(0, 0, n), results...)
}

func (f *fakeNFS) serve(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	f.port = uint16(l.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for f.one(c) == nil {
				}
			}()
		}
	}()
}

// one answers a call (RFC 5531, section 9).
func (f *fakeNFS) one(c net.Conn) error {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	msg := &reply{b: make([]byte, binary.BigEndian.Uint32(head[:])&0x7fffffff)}
	if _, err := io.ReadFull(c, msg.b); err != nil {
		return err
	}
	xid, _, _ := msg.number(), msg.number(), msg.number()
	prog, vers, proc := msg.number(), msg.number(), msg.number()
	msg.number()
	msg.opaque()
	msg.number()
	msg.opaque()
	if prog == f.silent {
		return nil
	}
	out := append(words32(xid, 1, 0, 0, 0, 0), f.answer(prog, vers, proc, msg)...)
	// In two parts, as servers may.
	half := words32(8)
	half = append(append(half, out[:8]...), words32(0x80000000|uint32(len(out)-8))...)
	_, err := c.Write(append(half, out[8:]...))
	return err
}

func TestExports(t *testing.T) {
	s := &site.Site{Server: ip("127.0.0.1"), TFTPPath: "/tftp", BackupPath: "/backup"}
	for name, c := range map[string]struct {
		f    fakeNFS
		s    Severity
		text string
	}{
		"right":         {fakeNFS{}, Fine, "boxes can mount /tftp and /backup"},
		"no mountd":     {fakeNFS{noMountd: true}, Problem, "neither version 3 (it has no mountd"},
		"not exported":  {fakeNFS{noExport: "/backup"}, Problem, "cannot mount 127.0.0.1:/backup: permission denied"},
		"no folder":     {fakeNFS{noFile: bootcfg.ConfigDir}, Problem, "does not find pxelinux.cfg: it is not there"},
		"no disk":       {fakeNFS{noFile: sharedir.Marker}, Problem, "Is its disk mounted there?"},
		"read-only":     {fakeNFS{closedTo: "/backup", may: 3}, Problem, "a box may not write to /backup"},
		"no new files":  {fakeNFS{closedTo: "/tftp/pxelinux.cfg", may: 7}, Problem, "a box may not write to /tftp/pxelinux.cfg"},
		"not to change": {fakeNFS{closedTo: "/backup", may: 11}, Problem, "a box may not write to /backup"},
		"closed":        {fakeNFS{closedTo: "/backup", may: 0}, Problem, "a box may not read /backup"},
		"version 4":     {fakeNFS{noMountd: true, v4: true}, Fine, "boxes can mount /tftp and /backup"},
		"only 4.1":      {fakeNFS{noMountd: true, v4: true, minor: 1}, NotLooked, "only 4.1 or later"},
		"4, no export":  {fakeNFS{noMountd: true, v4: true, noExport: "/backup"}, Problem, "cannot mount 127.0.0.1:/backup: it is not there"},
		"4, no disk":    {fakeNFS{noMountd: true, v4: true, noFile: sharedir.Marker}, Problem, "Is its disk mounted there?"},
		"4, read-only":  {fakeNFS{noMountd: true, v4: true, closedTo: "/tftp/pxelinux.cfg", may: 3}, Problem, "a box may not write to /tftp"},
	} {
		t.Run(name, func(t *testing.T) {
			c.f.serve(t)
			has(t, exports(t.Context(), s, c.f.port, c.f.port), c.s, "exports", c.text)
		})
	}
}

// TestExportsHang: a server that takes connections and never answers does not hold the doctor.
func TestExportsHang(t *testing.T) {
	testenv.Long(t, "5 seconds")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	f := &fakeNFS{port: port}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			go f.one(c)
		}
	}()
	s := &site.Site{Server: ip("127.0.0.1"), TFTPPath: "/tftp", BackupPath: "/backup"}
	f.silent = progMount
	has(t, exports(t.Context(), s, port, port), Problem, "exports", "takes connections and does not answer")
}
