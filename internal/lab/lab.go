// Package lab makes virtual testboxes and the site around them. It makes a
// folder with the areas of share mode, and a network of its own with DHCP, TFTP
// and NFS. Its QEMU machines boot from there as real boxes do. It is for the
// demo, for the end-to-end tests, and for admins who want to try things. It
// needs root and the programs of scripts/deps.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/child"
)

// The lab's network, which no other machine sees.
const (
	ServerAddr  = "10.40.41.1"
	routerAddr  = "10.40.41.2"
	networkAddr = "10.40.41.0"
	netmask     = "255.255.255.0"
	bridge      = "lab0"
	routerCard  = "eth0"
	maxBoxes    = 8
)

// DHCP says who tells boxes their addresses and their boot files.
type DHCP int

// The ways of DHCP.
const (
	DHCPNames DHCP = iota // dnsmasq on the storage server's machine, both
	DHCPProxy             // dnsmasq on another machine the addresses, and the storage server the boot files
	DHCPOwn               // the storage server, both
)

// BoxAddr is the address that DHCP gives to box n of the lab.
func BoxAddr(n int) box.Addr {
	a, err := box.ParseAddr(fmt.Sprintf("10.40.41.%d", 42+n))
	if err != nil {
		panic(err) // n is not from outside
	}
	return a
}

// BoxMAC is the hardware address of box n's first network card. Further cards
// are spare and get no address.
func BoxMAC(n int) string { return fmt.Sprintf("52:54:00:40:41:%02x", 42+n) }

func spareMAC(n, card int) string { return fmt.Sprintf("52:54:00:40:%02x:%02x", 0x80+card, 42+n) }

// Lab is a site with its services running. It is one of share mode, or one with a
// storage server.
type Lab struct {
	Dir string // folder with everything of the lab
	KVM bool   // the machines run with KVM, not by emulation

	// OnlyNFS4 makes StartNFS start a server without a portmapper and without
	// version 3.
	OnlyNFS4 bool

	testbox                    string // path of the program, which is run as a user would run it
	ns                         *namespace
	router                     *namespace // nil if there is none
	mode                       DHCP
	rpcbind, dhcp, nfs, server *process // nil if it does not run
	machines                   []*Machine
	say                        func(line string)
	serves                     bool         // there is a storage server
	control                    net.Listener // nil if Listen was not called
}

// Options say how a lab is made.
type Options struct {
	Testbox string            // path of the testbox program
	Server  bool              // there is a storage server in place of share mode's NFS
	DHCP    DHCP              // other than DHCPNames only with a storage server
	KVM     bool              // see ProbeKVM
	Say     func(line string) // gets lines on what goes on; may be nil
}

// New makes a folder in os.TempDir, the areas in it (by `testbox share init` or
// `testbox server init`), the network and the services. After an error, nothing of
// it is left.
func New(ctx context.Context, opt Options) (_ *Lab, err error) {
	if err := Check(); err != nil {
		return nil, err
	}
	l := &Lab{KVM: opt.KVM, testbox: opt.Testbox, say: opt.Say, serves: opt.Server, mode: opt.DHCP}
	if l.say == nil {
		l.say = func(string) {}
	}
	defer func() {
		if err != nil {
			l.Close(false)
		}
	}()
	if err := l.makeDir(); err != nil {
		return nil, err
	}
	l.say("making the areas in " + l.Dir)
	services := []func(context.Context) error{l.startPortmapper, l.startDHCP, l.StartNFS}
	what := "the portmapper, DHCP, TFTP and NFS"
	if opt.Server {
		services, what = []func(context.Context) error{l.startDHCP, l.StartServer}, "DHCP and the storage server"
		switch opt.DHCP {
		case DHCPProxy:
			services[0] = l.startRouter
		case DHCPOwn:
			services, what = []func(context.Context) error{l.startRouter, l.StartServer, l.addBoxes}, "the storage server"
		}
		err = l.makeServer(ctx)
	} else {
		_, err = l.Testbox(ctx, "share", "init", "--server", ServerAddr, l.Dir)
	}
	if err != nil {
		return nil, err
	}
	l.say("making a network, and starting " + what + " in it")
	if l.ns, err = newNamespace(); err != nil {
		return nil, err
	}
	if err := l.ns.ip(
		"link set lo up",
		"link add "+bridge+" type bridge forward_delay 0",
		"addr add "+ServerAddr+"/24 dev "+bridge,
		"addr add fd77::1/64 dev "+bridge+" nodad",
		"link set "+bridge+" up",
	); err != nil {
		return nil, err
	}
	for _, start := range services {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// makeDir makes the lab's folder, and in it the file that says which process it
// belongs to.
func (l *Lab) makeDir() (err error) {
	if l.Dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return err
	}
	// A box's agent is nobody on the storage server, and must be able to pass
	// through this folder.
	if err := os.Chmod(l.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(l.Dir, "log"), 0o755); err != nil {
		return err
	}
	return writeOwner(l.Dir)
}

// Close ends all machines and services, and removes the folder. If keep is set,
// the folder stays, so that somebody can look at it. Clean removes it after
// this process has ended.
func (l *Lab) Close(keep bool) error {
	if l.control != nil {
		l.control.Close()
	}
	for _, m := range l.machines {
		m.PowerOff()
	}
	for _, p := range []*process{l.server, l.nfs, l.dhcp, l.rpcbind} {
		if p != nil {
			p.stop(3 * time.Second)
		}
	}
	if l.router != nil {
		l.router.close()
		l.router = nil
	}
	if l.ns != nil {
		l.ns.close()
		l.ns = nil
	}
	if keep {
		return nil
	}
	return os.RemoveAll(l.Dir)
}

// TFTP is the folder of the TFTP area.
func (l *Lab) TFTP() string { return filepath.Join(l.Dir, bootcfg.TFTPArea) }

// Backup is the folder of the backup area.
func (l *Lab) Backup() string { return filepath.Join(l.Dir, bootcfg.BackupArea) }

// NFSRoot is the folder of the maintenance roots of the form debian.
func (l *Lab) NFSRoot() string { return filepath.Join(l.Dir, bootcfg.RootArea) }

// BoxDir is the folder of a box in the backup area.
func (l *Lab) BoxDir(a box.Addr) string { return filepath.Join(l.Backup(), a.String()) }

// BootFile is the path of the box's boot file. The file exists while the box is
// armed.
func (l *Lab) BootFile(a box.Addr) string {
	return filepath.Join(l.TFTP(), "pxelinux.cfg", a.Hex())
}

func (l *Lab) logFile(name string) string { return filepath.Join(l.Dir, "log", name+".log") }

// Testbox runs the testbox program as an admin would, and returns what it
// printed. Its error has that text too.
func (l *Lab) Testbox(ctx context.Context, args ...string) (string, error) {
	return l.run(ctx, func(string) {}, args...)
}

// TestboxInside is like Testbox, in the lab's network. So the program reaches boxes, and
// nothing outside of the lab.
func (l *Lab) TestboxInside(ctx context.Context, args ...string) (string, error) {
	return l.runBy(ctx, l.ns.do, func(string) {}, args...)
}

// run is like Testbox, and also calls tell for each line as it is printed.
func (l *Lab) run(ctx context.Context, tell func(line string), args ...string) (string, error) {
	return l.runBy(ctx, func(start func() error) error { return start() }, tell, args...)
}

// runBy is like run. by calls the function that starts the program.
func (l *Lab) runBy(ctx context.Context, by func(start func() error) error, tell func(line string), args ...string) (string, error) {
	cmd := child.Command(ctx, l.testbox, args...)
	cmd.Env = append(os.Environ(), "TESTBOX_SERVER="+l.Socket())
	printed := &linesTold{tell: tell}
	cmd.Stdout, cmd.Stderr = printed, printed
	err := by(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	err = child.Err(ctx, err)
	text := strings.TrimSpace(printed.all.String())
	if errors.Is(err, context.Canceled) {
		return text, fmt.Errorf("testbox %s: %w", args[0], err)
	}
	if err != nil {
		return text, fmt.Errorf("testbox %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return text, nil
}

// BuildMaintenance builds the maintenance system of a form ("ram", "debian") in
// the areas, and returns what that printed. args are further options of
// `testbox maintenance build`.
func (l *Lab) BuildMaintenance(ctx context.Context, form string, args ...string) (string, error) {
	return l.run(ctx, l.say, append([]string{"maintenance", "build", "--form", form, l.Dir}, args...)...)
}

// Arm arms a box. args are further options of `testbox pxe-conf`.
func (l *Lab) Arm(ctx context.Context, m *Machine, action box.Action, args ...string) error {
	_, err := l.Testbox(ctx, append([]string{"pxe-conf", "-c", filepath.Join(l.TFTP(), "pxelinux.cfg"), m.Addr.String(), string(action)},
		args...)...)
	return err
}

// linesTold collects what a program prints, and calls tell for each line.
type linesTold struct {
	tell func(line string)
	all  strings.Builder
	line []byte // start of a line that has not ended yet
}

func (t *linesTold) Write(p []byte) (int, error) {
	t.all.Write(p)
	t.line = append(t.line, p...)
	for {
		line, rest, whole := bytes.Cut(t.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		t.tell(string(line))
		t.line = rest
	}
}
