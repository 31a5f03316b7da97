// Package setup finds out what a machine has that is to be a storage server, and decides how
// the server is to be set up there. It changes nothing. Make decides from Facts alone.
package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"testbox-imaging/internal/dhcp"
)

// Facts are what is known of a machine.
type Facts struct {
	Root       bool // this program runs as root
	Addresses  []Address
	Mine       []netip.Prefix // all IPv4 addresses of cards that are up, also those that boxes cannot be told
	Idle       []string       // other cards, and what each lacks, such as "eth1 is down"
	IPv6       bool           // a card has an address of IPv6 that others can reach
	Gateway    netip.Addr     // of the default route
	Busy       []Busy
	DHCP       []dhcp.Found // what other DHCP servers offer
	NoDHCP     error        // why they could not be asked
	Free       uint64       // bytes where the state folder is or will be
	FileSystem string       // of that place, such as "ext4"
	Systemd    bool         // systemd is this machine's process 1
	Missing    []string     // Debian packages that are needed and whose files are not there
	Firewall   string       // why a firewall may be in the way; "" if nothing says so
	Now        time.Time
}

// Address is an IPv4 address of a card.
type Address struct {
	Card    string
	Kind    string // as the kernel calls it: device, bridge, veth, ...
	Prefix  netip.Prefix
	Link    bool // a cable is in, or what stands for one
	Dynamic bool // it ends some time, so it came by DHCP
	Default bool // the default route leaves by its card
}

// Busy is a port that a program has.
type Busy struct {
	Proto   string // "tcp" or "udp"
	At      netip.AddrPort
	PID     int // 0 if it is not known
	Program string
}

func (b Busy) String() string {
	if b.PID == 0 {
		return "a program that is not known"
	}
	return fmt.Sprintf("%q (process %d)", b.Program, b.PID)
}

// Places are where Gather looks.
type Places struct {
	State   string // the state folder, which need not be there
	Loaders string // where Debian's packages put PXELINUX/ and syslinux/
	Proc    string // "/proc"
}

// Gather collects the facts, without those about other DHCP servers.
func Gather(p Places) (*Facts, error) {
	f := &Facts{Root: os.Geteuid() == 0, Now: time.Now()}
	if err := f.Cards(); err != nil {
		return nil, err
	}
	f.Busy = BusyPorts(p.Proc)
	f.Free, f.FileSystem = room(p.State)
	_, err := os.Stat("/run/systemd/system") // as sd_booted(3) does
	f.Systemd = err == nil
	for _, need := range []struct{ pkg, file string }{
		{"pxelinux", filepath.Join(p.Loaders, "PXELINUX/pxelinux.0")},
		{"syslinux-common", filepath.Join(p.Loaders, "syslinux/modules/bios/ldlinux.c32")},
		{"syslinux-efi", filepath.Join(p.Loaders, "syslinux/modules/efi64/ldlinux.e64")},
		{"xz-utils", "/usr/bin/xz"},
	} {
		if _, err := os.Stat(need.file); err != nil {
			f.Missing = append(f.Missing, need.pkg)
		}
	}
	f.Firewall = firewall()
	return f, nil
}

// AskDHCP asks the other DHCP servers. It takes some seconds.
func (f *Facts) AskDHCP(ctx context.Context) {
	if f.DHCP, f.NoDHCP = dhcp.Find(ctx, nil); errors.Is(f.NoDHCP, unix.EADDRINUSE) {
		f.NoDHCP = errors.New("port 67 is in use, so no answer of another server could be heard")
	}
}

// Cards collects the addresses.
func (f *Facts) Cards() error {
	if err := f.cards(); err != nil {
		return fmt.Errorf("the network cards of this machine cannot be listed: %w", err)
	}
	return nil
}

func (f *Facts) cards() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	leaves := map[int]bool{}
	if routes, err := netlink.RouteList(nil, netlink.FAMILY_V4); err == nil {
		for _, r := range routes {
			if r.Dst == nil || r.Dst.IP.IsUnspecified() && ones(r.Dst.Mask) == 0 {
				leaves[r.LinkIndex] = true
				if gw, ok := netip.AddrFromSlice(r.Gw.To4()); ok && !f.Gateway.IsValid() {
					f.Gateway = gw
				}
			}
		}
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 {
			continue
		}
		if a.Flags&net.FlagUp == 0 {
			f.Idle = append(f.Idle, a.Name+" is down")
			continue
		}
		before := len(f.Addresses)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, x := range addrs {
			ip, ok := netip.AddrFromSlice(x.IP)
			ip = ip.Unmap()
			if ok && ip.Is4() && !ip.IsLoopback() {
				f.Mine = append(f.Mine, netip.PrefixFrom(ip, ones(x.Mask)))
			}
			switch {
			case !ok || ip.IsLoopback() || ip.IsLinkLocalUnicast():
			case !ip.Is4():
				f.IPv6 = true
			case x.Flags&unix.IFA_F_SECONDARY == 0:
				f.Addresses = append(f.Addresses, Address{Card: a.Name, Kind: l.Type(), Prefix: netip.PrefixFrom(ip, ones(x.Mask)),
					Link: a.RawFlags&unix.IFF_RUNNING != 0, Dynamic: x.Flags&unix.IFA_F_PERMANENT == 0, Default: leaves[a.Index]})
			}
		}
		if len(f.Addresses) == before {
			f.Idle = append(f.Idle, a.Name+" has no IPv4 address that others can reach")
		}
	}
	return nil
}

func ones(m net.IPMask) int {
	n, _ := m.Size()
	return n
}

// fileSystems are names of the numbers in statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.MSDOS_SUPER_MAGIC: "vfat", unix.RAMFS_MAGIC: "ramfs",
	unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "cifs", 0x2fc12fc1: "zfs", unix.FUSE_SUPER_MAGIC: "fuse",
}

// room says how much is free where a folder is or will be.
func room(dir string) (free uint64, fileSystem string) {
	for {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil {
			name, ok := fileSystems[int64(uint32(st.Type))]
			if !ok {
				name = fmt.Sprintf("of the kind %#x", uint32(st.Type))
			}
			return st.Bavail * uint64(st.Bsize), name
		}
		above := filepath.Dir(dir)
		if above == dir {
			return 0, "unknown"
		}
		dir = above
	}
}

// firewall reports what speaks for a firewall. Its rules are not understood.
func firewall() string {
	if b, err := os.ReadFile("/etc/ufw/ufw.conf"); err == nil && strings.Contains(string(b), "\nENABLED=yes") {
		return "ufw is on"
	}
	if _, err := os.Stat("/run/firewalld"); err == nil {
		return "firewalld is on"
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(b), "filter") {
		return "there are rules of iptables"
	}
	if b, err := os.ReadFile("/etc/nftables.conf"); err == nil && strings.Contains(string(b), "policy drop") {
		return "/etc/nftables.conf drops what no rule lets in"
	}
	return ""
}

// maxLine bounds what is read of a line of /proc.
const maxLine = 4096

// BusyPorts lists the ports of TCP at which programs listen, and those of UDP that are open.
// What cannot be read is left out.
func BusyPorts(proc string) (all []Busy) {
	owners := socketOwners(proc)
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(filepath.Join(proc, "net", name))
		if err != nil {
			continue
		}
		for _, s := range parseSockets(f, name[:3]) {
			s.busy.PID = owners[s.inode]
			if s.busy.PID != 0 {
				comm, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(s.busy.PID), "comm"))
				s.busy.Program = strings.TrimSpace(string(comm))
			}
			all = append(all, s.busy)
		}
		f.Close()
	}
	return all
}

type socket struct {
	busy  Busy
	inode string
}

// parseSockets reads a table as /proc/net/tcp. Lines that are not understood are left out.
func parseSockets(r io.Reader, proto string) (all []socket) {
	const listen, open = "0A", "07" // states of TCP and UDP in include/net/tcp_states.h
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 10 || proto == "tcp" && w[3] != listen || proto == "udp" && w[3] != open {
			continue
		}
		if at, ok := parseAddrPort(w[1]); ok {
			all = append(all, socket{Busy{Proto: proto, At: at}, w[9]})
		}
	}
	return all
}

// parseAddrPort reads an address and port in hexadecimal. Each word of 32 bits of the address has the order
// of bytes of this machine, which is little-endian.
func parseAddrPort(s string) (at netip.AddrPort, ok bool) {
	host, port, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return at, false
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return at, false
		}
		b = append(b, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// socketOwners has for the inode of each socket a process that has it open. Where several
// have it, it is the one with the lowest number, which is systemd for its sockets.
func socketOwners(proc string) map[string]int {
	owners := map[string]int{}
	dirs, _ := os.ReadDir(proc)
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		fds, err := filepath.Glob(filepath.Join(proc, strconv.Itoa(pid), "fd/*"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			to, _ := os.Readlink(fd)
			inode, ok := strings.CutPrefix(strings.TrimSuffix(to, "]"), "socket:[")
			if _, known := owners[inode]; ok && !known {
				owners[inode] = pid
			}
		}
	}
	return owners
}
