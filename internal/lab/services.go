package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/pause"
)

// serviceTimeout is how long a service of the lab may need to start. Services
// need about half a second.
const serviceTimeout = 30 * time.Second

// dnsmasqConf gives addresses and boot files to the lab's boxes and to nobody
// else. Two settings shorten the time to a box's boot sector from 21 s to 5 s.
// Router advertisements do so because QEMU's iPXE waits for IPv6. iPXE's option
// 176 says that no ProxyDHCP will come. With DHCPProxy only the addresses are left
// of that, and with DHCPOwn only the router advertisements.
func (l *Lab) dnsmasqConf() string {
	var b strings.Builder
	card := bridge
	if l.router != nil {
		card = routerCard
	}
	fmt.Fprintf(&b, "port=0\ninterface=%s\nbind-interfaces\ndhcp-range=fd77::,ra-only,64\nenable-ra\nuser=root\n", card)
	if l.mode == DHCPOwn {
		return b.String()
	}
	fmt.Fprintf(&b, `dhcp-authoritative
no-ping
dhcp-range=%s,static,%s
dhcp-leasefile=%s
log-dhcp
`, networkAddr, netmask, filepath.Join(l.Dir, "leases"))
	if l.mode == DHCPNames {
		fmt.Fprintf(&b, "dhcp-option=encap:175,176,1b\ndhcp-boot=pxelinux.0\n")
		// Architectures of RFC 4578: 7 and 9 are UEFI on x86-64. shim takes its folder from the field for the file's name.
		fmt.Fprintf(&b, "dhcp-match=set:uefi,option:client-arch,7\ndhcp-match=set:uefi,option:client-arch,9\n"+
			"dhcp-boot=tag:uefi,shimx64.efi\ndhcp-no-override\n")
	}
	if !l.serves { // a storage server has TFTP of its own
		fmt.Fprintf(&b, "enable-tftp\ntftp-root=%s\n", l.TFTP())
	}
	for n := range maxBoxes {
		fmt.Fprintf(&b, "dhcp-host=%s,%s\n", BoxMAC(n), BoxAddr(n))
	}
	return b.String()
}

// ganeshaConf exports the areas as a site's server would. Boxes write to the
// first two. These have root squash, so an agent, which is root on its box, is
// nobody here. The maintenance roots are read-only and without root squash. The
// paths are those that `testbox share init` writes into the site file.
func (l *Lab) ganeshaConf() string {
	protocols := "3, 4"
	if l.OnlyNFS4 {
		protocols = "4"
	}
	conf := `NFS_CORE_PARAM {
	Protocols = ` + protocols + `;
	Enable_NLM = false;
	Enable_RQUOTA = false;
}
NFSV4 { Graceless = true; Only_Numeric_Owners = true; }
LOG { Default_Log_Level = EVENT; }
`
	for i, e := range []struct{ dir, access, squash string }{
		{l.TFTP(), "RW", "Root_Squash"}, {l.Backup(), "RW", "Root_Squash"}, {l.NFSRoot(), "RO", "No_Root_Squash"},
	} {
		conf += fmt.Sprintf(`EXPORT {
	Export_Id = %[1]d;
	Path = %[2]q;
	Pseudo = %[2]q;
	Access_Type = %[3]s;
	Squash = %[4]s;
	Anonymous_Uid = 65534;
	Anonymous_Gid = 65534;
	SecType = sys;
	FSAL { Name = VFS; }
}
`, i+1, e.dir, e.access, e.squash)
	}
	return conf
}

// startRouter makes a host beside the storage server, which is the network's router
// and, unless the storage server does it, gives the addresses.
func (l *Lab) startRouter(ctx context.Context) (err error) {
	if l.router, err = newNamespace(); err != nil {
		return err
	}
	// Processes of the lab's namespaces do not see the numbers of ours, but they see
	// our /proc.
	there := fmt.Sprintf("/proc/%d/ns/net", l.router.first.Process.Pid)
	if err := l.ns.ip(
		"link add router0 type veth peer name "+routerCard+" netns "+there,
		"link set router0 master "+bridge+" up",
	); err != nil {
		return err
	}
	if err := l.router.ip(
		"link set lo up",
		"addr add "+routerAddr+"/24 dev "+routerCard,
		"addr add fd77::2/64 dev "+routerCard+" nodad",
		"link set "+routerCard+" up",
	); err != nil {
		return err
	}
	return l.startDHCP(ctx)
}

// startDHCP starts DHCP, and TFTP unless the storage server has it.
func (l *Lab) startDHCP(ctx context.Context) error {
	conf, err := l.writeConf("dnsmasq.conf", l.dnsmasqConf())
	if err != nil {
		return err
	}
	host := l.ns
	if l.router != nil {
		host = l.router
	}
	l.dhcp, err = host.start("dnsmasq", l.logFile("dnsmasq"), nil, program("dnsmasq"), "--keep-in-foreground", "--conf-file="+conf,
		"--log-facility=-", "--pid-file=")
	if err != nil || l.mode == DHCPOwn { // then nobody waits for it
		return err
	}
	return l.upIn(ctx, host, l.dhcp, func() bool {
		// DHCP answers broadcasts only, so it is not asked. If the port were tried, dnsmasq could find it in use.
		sockets, err := os.ReadFile("/proc/thread-self/net/udp")
		return err == nil && bytes.Contains(sockets, []byte(" 00000000:0043 "))
	})
}

// GiveAddresses ends the lab's DHCP server, and has the storage server give the
// addresses. It must know the boxes.
func (l *Lab) GiveAddresses(ctx context.Context) error {
	if err := l.StopServer(); err != nil {
		return err
	}
	l.dhcp.kill()
	l.mode = DHCPOwn
	if err := l.startDHCP(ctx); err != nil {
		return err
	}
	if err := l.configureServer(); err != nil {
		return err
	}
	return l.StartServer(ctx)
}

// StartNFS starts the storage server's NFS service.
func (l *Lab) StartNFS(ctx context.Context) error {
	conf, err := l.writeConf("ganesha.conf", l.ganeshaConf())
	if err != nil {
		return err
	}
	said := &Watch{Path: l.logFile("ganesha")}
	said.SkipAll()
	l.nfs, err = l.ns.start("nfs-ganesha", l.logFile("ganesha-output"), nil, program("ganesha.nfsd"), "-F", "-f", conf, "-L", said.Path,
		"-p", filepath.Join(l.Dir, "ganesha.pid"))
	if err != nil {
		return err
	}
	if err := l.up(ctx, l.nfs, l.answers("2049")); err != nil {
		return err
	}
	// nfs-ganesha starts without its exports too. It has logged that by now.
	line, failed, err := said.scan(noExport)
	if failed {
		return fmt.Errorf("nfs-ganesha does not export the areas (see %s): %s", said.Path, line)
	}
	return err
}

// noExport matches what nfs-ganesha logs for an area that it cannot export.
// That happens where /etc/mtab is missing.
var noExport = regexp.MustCompile(`:FSAL :CRIT :`)

// StopNFS kills the NFS service, as if the storage server died.
func (l *Lab) StopNFS() {
	if l.nfs != nil {
		l.nfs.kill()
		l.nfs = nil
	}
}

// StopPortmapper kills the portmapper, as if a firewall kept boxes from it.
func (l *Lab) StopPortmapper() {
	if l.rpcbind != nil {
		l.rpcbind.kill()
		l.rpcbind = nil
	}
}

func (l *Lab) startPortmapper(ctx context.Context) (err error) {
	l.rpcbind, err = l.ns.start("rpcbind", l.logFile("rpcbind"), nil, program("rpcbind"), "-f")
	if err != nil {
		return err
	}
	return l.up(ctx, l.rpcbind, l.answers("111"))
}

// answers returns a function that reports whether a TCP port of the server is
// open.
func (l *Lab) answers(port string) func() bool {
	return func() bool {
		c, err := net.DialTimeout("tcp4", ServerAddr+":"+port, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

// up waits until ready, called in the storage server's namespaces, returns true.
func (l *Lab) up(ctx context.Context, p *process, ready func() bool) error {
	return l.upIn(ctx, l.ns, p, ready)
}

func (l *Lab) upIn(ctx context.Context, host *namespace, p *process, ready func() bool) error {
	for end := time.Now().Add(serviceTimeout); ; {
		if err := p.alive(); err != nil {
			return err
		}
		yes := false
		host.do(func() error { yes = ready(); return nil })
		if yes {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer after %v: %s", p.name, serviceTimeout, tail(p.log, 0, 5))
		}
		if err := pause.For(ctx, pollEvery); err != nil {
			return err
		}
	}
}

func (l *Lab) writeConf(name, text string) (string, error) {
	path := filepath.Join(l.Dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// program finds a program that may be in a folder for administrators only.
func program(name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
