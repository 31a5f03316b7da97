package server

import (
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
)

// listeners are the open sockets of a server.
type listeners struct {
	agents net.Listener
	api    net.Listener // nil if there is none
	socket net.Listener
}

func (l *listeners) close() {
	for _, one := range []net.Listener{l.agents, l.api, l.socket} {
		if one != nil {
			one.Close()
		}
	}
}

// listen takes the sockets that systemd has opened, and opens the others.
func listen(cfg *Config) (_ *listeners, err error) {
	given, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("the sockets that systemd opened cannot be used: %w", err)
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
		switch have := given[one.name]; {
		case len(have) > 1:
			return nil, fmt.Errorf("systemd opened %d sockets with the name %s, and one is needed", len(have), one.name)
		case len(have) == 1 && have[0] != nil:
			*one.into = have[0]
		default:
			if *one.into, err = one.open(); err != nil {
				return nil, fmt.Errorf("%w; is another server running, or does another program have this port?", err)
			}
		}
	}
	return l, nil
}
