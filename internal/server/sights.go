package server

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"testbox-imaging/internal/bootarea"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/sight"
)

// sawFile notes that a machine asked for a file. over is "tftp" or "http", and err is nil
// if it was given the file.
func (s *server) sawFile(over string, client netip.Addr, name string, err error) {
	// Setup asks from an address of ours as a box would. No rule of enrol may make a box of that.
	if s.own.has(client) {
		return
	}
	name = bootarea.Clean(name)
	id := sight.Identity{Addr: client, Arch: firmwareOf(name)}
	if dir, file := path.Split(name); path.Base(dir) == bootcfg.ConfigDir {
		// A loader tells by these names which machine it runs on.
		if o, ok := bootcfg.ParseOwner(file); ok {
			id.UUID = s.knownUUID(o.UUID)
			if o.MAC != nil {
				id.MAC = o.MAC.String()
			}
		} else if _, _, part := bootcfg.ParsePrefix(file); part && errors.Is(err, fs.ErrNotExist) {
			return // it asks for seven of these in a row
		}
	}
	ask := sight.Ask{Time: time.Now(), Over: over, Asked: name}
	if err == nil {
		ask.Given = name
	}
	s.sights.Saw(id, ask)
	if err == nil && name == path.Join(bootcfg.ConfigDir, bootcfg.DefaultName) {
		s.sights.AskedDefault(client, ask.Time)
	}
}

// firmwareOf tells by a loader which firmware asks for it. So it is known too where another DHCP server is asked.
func firmwareOf(loader string) string {
	if slices.Contains(bootcfg.BIOSLoaders, loader) {
		return archText(dhcp.BIOS)
	}
	for arch, l := range byArch {
		if l.uefi != nil && (loader == l.uefi.Shim || loader == l.uefi.GRUB) && !strings.HasSuffix(archText(arch), "HTTP") {
			return archText(arch)
		}
	}
	return ""
}

// ownAddresses knows the addresses of this machine's network cards.
type ownAddresses struct {
	mu     sync.Mutex
	addrs  map[netip.Addr]bool
	looked time.Time
}

// ownAge is how long the list of our addresses is taken for right.
const ownAge = 10 * time.Second

func (o *ownAddresses) has(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.looked) > ownAge {
		o.addrs, o.looked = map[netip.Addr]bool{}, time.Now()
		for _, all := range cardsWithAddresses() {
			for _, p := range all {
				o.addrs[p.Addr()] = true
			}
		}
	}
	return o.addrs[a]
}

// knownUUID is the UUID as the list of boxes has it, if a box with it is known. Loaders
// and firmware may tell its bytes in another order.
func (s *server) knownUUID(uuid string) string {
	if all := s.roster.withUUID(uuid); uuid != "" && len(all) > 0 {
		return all[0].UUID
	}
	return uuid
}

// archs are words for the architectures that a PXE ROM tells (RFC 4578 and IANA's list).
var archs = map[dhcp.Arch]string{
	dhcp.BIOS: "BIOS", dhcp.IA32: "UEFI x86", dhcp.X64: "UEFI x86-64", dhcp.X64BC: "UEFI x86-64", dhcp.ARM32: "UEFI arm",
	dhcp.ARM64: "UEFI arm64", dhcp.HTTPIA32: "UEFI x86, HTTP", dhcp.HTTPX64: "UEFI x86-64, HTTP", dhcp.HTTPARM32: "UEFI arm, HTTP",
	dhcp.HTTPARM64: "UEFI arm64, HTTP",
}

func archText(a dhcp.Arch) string {
	if text, ok := archs[a]; ok {
		return text
	}
	return fmt.Sprintf("architecture %d", a)
}

// sawDHCP notes a request of DHCP. Machines that run ask too, and renew what they have, so
// only those count that ask what to start, and boxes that are known.
func (s *server) sawDHCP(e dhcp.Event) {
	id := sight.Identity{MAC: e.MAC.String(), UUID: s.knownUUID(uuidText(e.UUID))}
	switch {
	case e.Answer == "ACK" && e.Address.IsValid():
		id.Addr = e.Address
	case e.Asked == "REQUEST" && e.Answer != "NAK":
		id.Addr = e.Machine.Address // another server gives it
	}
	if !e.PXE && len(s.roster.withMAC(id.MAC)) == 0 {
		return
	}
	ask := sight.Ask{Time: time.Now(), Over: "dhcp", Asked: e.Asked, Given: toldText(e)}
	if e.PXE {
		id.Arch = archText(e.Arch)
		ask.Asked += " for " + id.Arch
		if e.IPXE {
			ask.Asked += ", iPXE"
		}
	}
	s.sights.Saw(id, ask)
}

// toldText says what an answer of DHCP told.
func toldText(e dhcp.Event) string {
	var all []string
	if e.Address.IsValid() {
		all = append(all, e.Address.String())
	}
	switch {
	case e.Given && e.HTTP:
		all = append(all, e.Boot.URI)
	case e.Given:
		all = append(all, e.Boot.File)
	}
	return strings.Join(all, ", ")
}

// uuidText is a UUID in the order of its bytes. It is "" if all are zero.
func uuidText(b [16]byte) string {
	if b == [16]byte{} {
		return ""
	}
	h := hex.EncodeToString(b[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
