package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// agentsPort is where the lab's server takes agents.
const agentsPort = "8444"

// Socket is the Unix socket of the lab's server.
func (l *Lab) Socket() string { return filepath.Join(l.Dir, "testbox.sock") }

// ServerConfig is the configuration file of the lab's server.
func (l *Lab) ServerConfig() string { return filepath.Join(l.Dir, "server.toml") }

// makeServer makes the server's configuration, the areas and the store.
func (l *Lab) makeServer(ctx context.Context) error {
	if err := l.configureServer(); err != nil {
		return err
	}
	_, err := l.Testbox(ctx, "server", "init", "--address", ServerAddr, "--config", l.ServerConfig())
	return err
}

// configureServer writes the server's configuration.
func (l *Lab) configureServer() error {
	text := fmt.Sprintf("state = %q\nsocket = %q\nagents = \":%s\"\napi = \"\"\n[dhcp]\ninterfaces = [%q]\n",
		l.Dir, l.Socket(), agentsPort, bridge)
	switch l.mode {
	case DHCPProxy:
		text += "mode = \"proxy\"\n"
	case DHCPOwn:
		text += fmt.Sprintf("mode = \"full\"\n[[dhcp.subnets]]\nnetwork = \"%s/24\"\n", networkAddr)
	}
	power, err := l.powerCommand()
	if err != nil {
		return err
	}
	return os.WriteFile(l.ServerConfig(), []byte(text+power), 0o644)
}

// addBoxes tells the server of the lab's boxes, whose addresses it gives.
func (l *Lab) addBoxes(ctx context.Context) error {
	for n := range maxBoxes {
		if _, err := l.Testbox(ctx, "box", "add", BoxAddr(n).String(), "--mac", BoxMAC(n)); err != nil {
			return err
		}
	}
	return nil
}

// Power is the name of the power command by which the lab's server switches boxes, once Listen was called.
const Power = "lab"

// powerCommand makes the power command, and its part of the server's configuration.
func (l *Lab) powerCommand() (string, error) {
	file := filepath.Join(l.Dir, "power-switch")
	script := fmt.Sprintf("if rm %[1]s-fails-$1 2>/dev/null; then echo the switch of box $1 is busy; exit 1; fi\n"+
		"exec %[2]s lab power $1 $2 --lab %[3]s\n", file, l.testbox, l.Dir)
	text := fmt.Sprintf("[power.%s]\ncommand = \"sh %s {address} {action}\"\n", Power, file)
	return text, os.WriteFile(file, []byte(script), 0o644)
}

// PowerFails lets the power command fail for a box the next time.
func (l *Lab) PowerFails(m *Machine) error {
	return os.WriteFile(filepath.Join(l.Dir, "power-switch-fails-"+m.Addr.String()), nil, 0o644)
}

// StartServer starts the storage server, and waits until it takes requests.
func (l *Lab) StartServer(ctx context.Context) (err error) {
	if l.server != nil {
		return errors.New("the lab's server runs already")
	}
	l.server, err = l.ns.start("testbox server", l.logFile("server"), nil, l.testbox, "server", "--config", l.ServerConfig())
	if err != nil {
		return err
	}
	return l.up(ctx, l.server, func() bool { return exists(l.Socket()) && l.answers(agentsPort)() })
}

// KillServer kills the storage server, as if its machine lost power.
func (l *Lab) KillServer() {
	if l.server != nil {
		l.server.kill()
		l.server = nil
	}
}

// StopServer ends the storage server as systemd does. The error says that it did
// not end well.
func (l *Lab) StopServer() error {
	if l.server == nil {
		return nil
	}
	p := l.server
	l.server = nil
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(serviceTimeout):
		p.kill()
		return fmt.Errorf("testbox server did not end within %v: %s", serviceTimeout, tail(p.log, 0, 5))
	}
	if p.err != nil {
		return fmt.Errorf("testbox server: %w: %s", p.err, tail(p.log, 0, 5))
	}
	return nil
}

// ServerLog watches the server's log from its beginning.
func (l *Lab) ServerLog() *Watch { return &Watch{Path: l.logFile("server")} }

// CutNetwork takes the server's address away from the network, as a switch does
// that loses power, and gives it back when it is called with false.
func (l *Lab) CutNetwork(cut bool) error {
	state := "up"
	if cut {
		state = "down"
	}
	return l.ns.ip("link set " + bridge + " " + state)
}

// Store is the folder of the lab's store.
func (l *Lab) Store() string { return filepath.Join(l.Dir, "store") }
