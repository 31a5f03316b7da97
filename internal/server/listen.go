package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/activation"

	"testbox-imaging/internal/api"
)

// Names of the sockets that systemd opens, in the FileDescriptorName of its units.
// With them the server needs no rights of its own to open its ports.
const (
	fdAgents = "agents"
	fdAPI    = "api"
	fdSocket = "socket"
	fdTFTP   = "tftp"
	fdHTTP   = "http"
	fdDHCP   = "dhcp"
	fdBoot   = "proxydhcp"
)

// The ports at which machines ask by DHCP. Tests put others here.
var dhcpAt, bootAt = ":67", ":4011"

// listeners are the open sockets of a server.
type listeners struct {
	agents net.Listener
	api    net.Listener // nil if there is none
	socket net.Listener
	tftp   *net.UDPConn // nil if there is none
	http   net.Listener // nil if there is none
	noHTTP error        // why there is no http; nil if there is one
	dhcp   *net.UDPConn // port 67; nil if DHCP is off or could not open it, as is boot
	boot   *net.UDPConn // port 4011
}

func (l *listeners) close() {
	for _, one := range []net.Listener{l.agents, l.api, l.socket, l.http} {
		if one != nil {
			one.Close()
		}
	}
	for _, one := range []*net.UDPConn{l.tftp, l.dhcp, l.boot} {
		if one != nil {
			one.Close()
		}
	}
}

// given takes a socket that systemd has opened out of the list. The error says that
// there are several with this name.
func given(files map[string][]*os.File, name string) (*os.File, error) {
	switch have := files[name]; len(have) {
	case 0:
		return nil, nil
	case 1:
		return have[0], nil
	default:
		return nil, fmt.Errorf("systemd opened %d sockets with the name %s, and one is needed", len(have), name)
	}
}

// listen takes the sockets that systemd has opened, and opens the others.
func listen(cfg *Config) (_ *listeners, err error) {
	files := map[string][]*os.File{}
	for _, f := range activation.Files(true) {
		files[f.Name()] = append(files[f.Name()], f)
		defer f.Close() // what is used has a descriptor of its own
	}
	l := &listeners{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, one := range []struct {
		name string
		into *net.Listener
		open func() (net.Listener, error)
	}{
		{fdAgents, &l.agents, func() (net.Listener, error) { return net.Listen("tcp", cfg.Agents) }},
		{fdAPI, &l.api, func() (net.Listener, error) {
			if cfg.API == "" {
				return nil, nil
			}
			return net.Listen("tcp", cfg.API)
		}},
		{fdSocket, &l.socket, func() (net.Listener, error) {
			if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
				return nil, err
			}
			return api.Listen(cfg.Socket, api.AdminGroup)
		}},
	} {
		f, err := given(files, one.name)
		switch {
		case err != nil:
			return nil, err
		case f != nil:
			if *one.into, err = net.FileListener(f); err != nil {
				return nil, fmt.Errorf("the socket %s that systemd opened cannot be used: %w", one.name, err)
			}
		default:
			if *one.into, err = one.open(); err != nil {
				return nil, fmt.Errorf("%w; is another server running, or does another program have this port?", err)
			}
		}
	}
	if err = l.listenBoot(cfg, files); err != nil {
		return nil, err
	}
	f, err := given(files, fdHTTP)
	switch {
	case err != nil:
	case f != nil:
		if l.http, err = net.FileListener(f); err != nil {
			err = fmt.Errorf("the socket %s that systemd opened cannot be used: %w", fdHTTP, err)
		}
	default:
		l.http, l.noHTTP = listenHTTP(cfg)
	}
	return l, err
}

var errNoHTTP = errors.New(`http is "" in the configuration of the server; give it a port like ":80", and restart the server`)

// listenHTTP opens the port at which boxes get files by HTTP. Another web server often
// has it. All but a rescue works without it, so the server starts all the same.
func listenHTTP(cfg *Config) (net.Listener, error) {
	if cfg.HTTP == "" {
		return nil, errNoHTTP
	}
	l, err := net.Listen("tcp", cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("the server could not open its port for HTTP: %w; "+
			"if another program has this port, give http another one in the configuration, such as \":8080\", and restart the server", err)
	}
	return l, nil
}

// listenUDP opens a socket of UDP, or takes the one that systemd has opened. at may be "",
// for none.
func listenUDP(files map[string][]*os.File, name, at, other string) (*net.UDPConn, error) {
	f, err := given(files, name)
	if err != nil {
		return nil, err
	}
	if f != nil {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, fmt.Errorf("the socket %s that systemd opened cannot be used: %w", name, err)
		}
		udp, ok := c.(*net.UDPConn)
		if !ok {
			c.Close()
			return nil, fmt.Errorf("the socket %s that systemd opened is none of UDP; it needs ListenDatagram", name)
		}
		return udp, nil
	}
	if at == "" {
		return nil, nil
	}
	a, err := net.ResolveUDPAddr("udp4", at)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp4", a)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, other)
	}
	return c, nil
}

// listenBoot opens the sockets for boxes that start. Those for DHCP that systemd has not
// opened are opened later, since another DHCP server often has the port, and all else
// works without.
func (l *listeners) listenBoot(cfg *Config, files map[string][]*os.File) (err error) {
	if l.tftp, err = listenUDP(files, fdTFTP, cfg.TFTP,
		`if another TFTP server gives boot files out, set tftp = "" in the configuration`); err != nil || cfg.DHCP.Mode == dhcpOff {
		return err
	}
	if l.dhcp, err = listenUDP(files, fdDHCP, "", ""); err == nil {
		l.boot, err = listenUDP(files, fdBoot, "", "")
	}
	return err
}

// listenDHCP opens what is missing of the sockets for DHCP.
func (l *listeners) listenDHCP() (err error) {
	const other = `if another DHCP server runs on this machine, stop it, or set dhcp.mode = "" and have that one name the boot file`
	if l.dhcp == nil {
		if l.dhcp, err = listenUDP(nil, fdDHCP, dhcpAt, other); err != nil {
			return err
		}
	}
	if l.boot == nil {
		l.boot, err = listenUDP(nil, fdBoot, bootAt, other)
	}
	return err
}
