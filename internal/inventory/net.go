package inventory

import (
	"net"
	"path"
	"strconv"
	"strings"
)

// collectNetwork lists the network cards. They are the interfaces with a device
// below them. Bridges, tunnels and the loopback interface have none.
func (c *collector) collectNetwork() {
	const top = "class/net"
	entries, err := c.sys.list(top)
	if err != nil {
		c.problem("network cards: %v", err)
		return
	}
	for _, e := range entries {
		dir := path.Join(top, e.Name())
		if !c.sys.exists(path.Join(dir, "device")) {
			continue
		}
		if len(c.inv.Network) == maxDevices {
			c.problem("network cards: more than %d, the rest is left out", maxDevices)
			return
		}
		c.inv.Network = append(c.inv.Network, c.readNIC(e.Name(), dir))
	}
}

func (c *collector) readNIC(name, dir string) NIC {
	n := NIC{
		Name:   clean(name),
		Driver: c.sys.linkBase(path.Join(dir, "device/driver")),
		PCI:    lastPCI(c.sys.link(dir)),
		Up:     c.sys.attr(path.Join(dir, "carrier")) == "1",
	}
	if n.PCI == "" {
		n.PCI = lastPCI(c.sys.link(path.Join(dir, "device")))
	}
	if mac, err := net.ParseMAC(c.sys.attr(path.Join(dir, "address"))); err == nil {
		n.MAC = mac.String()
	} else {
		c.problem("network card %s: its MAC is not readable", n.Name)
	}
	// Without a link the speed is -1 or cannot be read. Virtual cards do not
	// know it.
	if speed, err := strconv.Atoi(c.sys.attr(path.Join(dir, "speed"))); err == nil && speed > 0 {
		n.Speed = speed
	}
	return n
}

// lastPCI is the last PCI address in a path of /sys/devices, which is the
// nearest one to the device.
func lastPCI(link string) string {
	parts := strings.Split(link, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if pciAddress.MatchString(parts[i]) {
			return parts[i]
		}
	}
	return ""
}
