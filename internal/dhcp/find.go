package dhcp

import (
	"context"
	"fmt"
	"net"
)

// Find asks which other DHCP servers there are, where no Server runs. None of its
// questions takes an address, and no request of a machine is answered. It opens port 67 for
// some seconds. interfaces are the cards at which it asks. None means all.
func Find(ctx context.Context, interfaces []string) ([]Found, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: portServer})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	running := make(chan struct{})
	ended := make(chan error, 1)
	s := &Server{Interfaces: interfaces, Decide: func(Machine) (Boot, bool) { return Boot{}, false }, Answers: func() { close(running) }}
	go func() { ended <- s.Serve(ctx, conn, nil) }()
	select {
	case <-running:
	case err := <-ended:
		stop()
		return nil, fmt.Errorf("other DHCP servers cannot be looked for: %w", err)
	}
	found, err := s.Look(ctx)
	stop()
	<-ended
	return found, err
}
