package main

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/inventory"
)

// machine is what is known of a box's hardware. What is not known is empty.
type machine struct {
	macs []string // lower case, with colons
	uuid string   // lower case
}

// machineOf looks the box up where this machine has seen it: among the
// neighbours on the network, and in the inventory of its last action.
func (f *pxeFolder) machineOf(addr box.Addr, backup string, near map[string]string) machine {
	var m machine
	if mac := near[addr.String()]; mac != "" {
		m.macs = append(m.macs, mac)
	}
	data, err := durable.ReadFile(f.fsys, filepath.Join(backup, addr.String(), inventory.JSONName), inventory.MaxJSON)
	if err != nil {
		return m
	}
	inv, err := inventory.ParseJSON(data)
	if err != nil {
		return m
	}
	m.uuid = strings.ToLower(inv.UUID)
	for _, n := range inv.Network {
		if mac, err := net.ParseMAC(n.MAC); err == nil {
			m.macs = append(m.macs, mac.String())
		}
	}
	return m
}

// backupArea is the backup area as it is reached from here: beside the TFTP
// area, as on the storage server and where both are mounted in /mnt.
func (f *pxeFolder) backupArea() string {
	return filepath.Join(filepath.Dir(f.tftp()), "testbox-backup")
}

// checkShadows refuses if the loader of this box takes, or may take, another
// file before the box's boot file: one named by a UUID or a network card. Such
// a file is passed over only if it is known to be another machine's.
func (f *pxeFolder) checkShadows(w world, t target) error {
	names, err := f.fsys.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var near map[string]string
	var m machine
	for _, name := range names {
		owner, early := bootcfg.ParseOwner(name)
		if !early {
			continue
		}
		if near == nil {
			near = readNeighbours(w.neighbours)
			m = f.machineOf(t.addr, f.backupArea(), near)
		}
		switch belongs(owner, m, t.addr, near) {
		case ownerBox:
			return refused("%s is this box's too, and the loader takes it before %s, which would arm %s; move it out of the folder", f.path(name), t.addr.Hex(), t)
		case ownerUnknown:
			return refused("%s is taken by some machine before the file that is named by its address, and it is not known whether that is %s, which would then not be armed; "+
				"move the file out of the folder, or ping the box from here, so that its network card is known", f.path(name), t)
		}
	}
	return nil
}

// Whose a file is that the loader takes early.
const (
	ownerOther = iota
	ownerBox
	ownerUnknown
)

// belongs tells whose the file is, as far as m and the neighbours tell.
func belongs(o bootcfg.Owner, m machine, addr box.Addr, near map[string]string) int {
	known, same := len(m.macs) > 0, o.MAC != nil && slices.Contains(m.macs, o.MAC.String())
	if o.UUID != "" {
		known, same = m.uuid != "", o.UUID == m.uuid
	}
	switch {
	case same:
		return ownerBox
	case known:
		return ownerOther
	}
	for ip, mac := range near {
		if o.MAC != nil && mac == o.MAC.String() && ip != addr.String() {
			return ownerOther
		}
	}
	return ownerUnknown
}

// readNeighbours reads the kernel's table of IPv4 neighbours: addresses, each
// with its card's. proc_pid_net(5); flag 2 is a complete entry, type 1 Ethernet.
func readNeighbours(path string) map[string]string {
	near := map[string]string{}
	file, err := os.Open(path)
	if err != nil {
		return near
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "0x1" || f[2] == "0x0" {
			continue
		}
		if mac, err := net.ParseMAC(f[3]); err == nil {
			near[f[0]] = mac.String()
		}
	}
	return near
}
