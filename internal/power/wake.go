package power

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"testbox-imaging/internal/problem"
)

const (
	wake     = "wake" // the template
	wakePort = 9      // discard
	// A packet that is lost is not answered for, so it is sent more than once.
	wakeTimes = 3
	wakePause = 100 * time.Millisecond
)

// parseWake understands where packets go.
func (p *Power) parseWake() error {
	p.actions = map[Action]string{On: ""}
	if len(p.spec.Env)+len(p.spec.EnvFiles) > 0 {
		return fmt.Errorf("the power template %q runs no command, and has no variables", wake)
	}
	if f := p.spec.PasswordFile; f != "" && !strings.HasPrefix(f, "/") {
		return fmt.Errorf("the password file %.100q is no whole path; write one like /etc/testbox/secureon.secret", f)
	}
	p.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), wakePort)
	text := p.spec.Broadcast
	if text == "" {
		return nil
	}
	addr, err := netip.ParseAddr(text)
	if err == nil {
		p.to = netip.AddrPortFrom(addr, wakePort)
	} else if p.to, err = netip.ParseAddrPort(text); err != nil {
		return fmt.Errorf("%.100q is no broadcast address; write one like 10.40.41.255 or 10.40.41.255:9", text)
	}
	if !p.to.Addr().Is4() || p.to.Port() == 0 {
		return fmt.Errorf("%.100q is no IPv4 address to send to; write one like 10.40.41.255 or 10.40.41.255:9", text)
	}
	return nil
}

// MagicPacket is what wakes the network card with a MAC. The password is of 0, 4 or 6 bytes.
func MagicPacket(mac string, password []byte) ([]byte, error) {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return nil, fmt.Errorf("%.40q is no MAC like 52:54:00:12:34:56", mac)
	}
	if n := len(password); n != 0 && n != 4 && n != 6 {
		return nil, fmt.Errorf("a SecureOn password has 4 or 6 bytes, and not %d", n)
	}
	packet := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for range 16 {
		packet = append(packet, hw...)
	}
	return append(packet, password...), nil
}

// password reads the SecureOn password.
func (p *Power) password() ([]byte, error) {
	if p.spec.PasswordFile == "" {
		return nil, nil
	}
	text, err := readSecret(p.spec.PasswordFile)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() {
		return a.AsSlice(), nil
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(text))
	if err != nil || len(b) != 6 {
		return nil, fmt.Errorf("%s has no SecureOn password like 00:11:22:33:44:55 or 1.2.3.4", p.spec.PasswordFile)
	}
	return b, nil
}

// wake sends the packets for all network cards of a box.
func (r *Runner) wake(ctx context.Context, p *Power, f Facts, may func() error) (Result, error) {
	begun := time.Now()
	refuse := func(err error) (Result, error) { return Result{Reason: Refused}, problem.Refusef("%w", err) }
	if len(f.MACs) == 0 {
		return refuse(errors.New("the box cannot be woken, since nothing is known of its MAC"))
	}
	password, err := p.password()
	if err != nil {
		return refuse(err)
	}
	var packets [][]byte
	for _, mac := range f.MACs {
		packet, err := MagicPacket(mac, password)
		if err != nil {
			return refuse(fmt.Errorf("the box cannot be woken: %w", err))
		}
		packets = append(packets, packet)
	}
	if may != nil {
		if err := may(); err != nil {
			return Result{Reason: Refused}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err = sendAll(ctx, p.to, packets)
	res := Result{Reason: Done, Took: time.Since(begun)}
	switch {
	case ctx.Err() != nil && err != nil:
		res.Reason = Stopped
	case err != nil:
		res.Reason = Failed
	}
	if err != nil {
		err = fmt.Errorf("the packets that wake the box could not be sent to %s: %w", p.to, err)
	}
	return res, err
}

// sendAll sends each packet several times.
func sendAll(ctx context.Context, to netip.AddrPort, packets [][]byte) error {
	conn, err := net.ListenUDP("udp4", nil) // it may send to broadcast addresses
	if err != nil {
		return err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(end)
	}
	for i := range wakeTimes {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wakePause):
			}
		}
		for _, packet := range packets {
			if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
				return err
			}
		}
	}
	return nil
}
