package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// The limits of Get.
const (
	getAgain = 2 * time.Second // after so long without an answer it asks again
	getTries = 4
	getBlock = 512 // of RFC 1350, which every server can
)

// Get reads a file from a TFTP server as an old loader does: without options, block by
// block. It is for small files and for trials. A file of more than most bytes is an error.
func Get(ctx context.Context, server netip.AddrPort, name string, most int) ([]byte, error) {
	if len(name) > 400 || bytes.IndexByte([]byte(name), 0) >= 0 {
		return nil, fmt.Errorf("%.40q is no file name for TFTP", name)
	}
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The answers come from a port that the server chooses, so the socket is not connected.
	to, packet := server, append(append([]byte{0, 1}, name...), "\x00octet\x00"...)
	var data []byte
	buf := make([]byte, 4+getBlock+1)
	for want := uint16(1); ; {
		n, from, err := exchange(ctx, conn, packet, to, server.Addr(), buf, want, want == 1)
		if err != nil {
			return nil, err
		}
		to = from
		if data = append(data, buf[4:n]...); len(data) > most {
			return nil, fmt.Errorf("the file has more than %d bytes", most)
		}
		packet = binary.BigEndian.AppendUint16([]byte{0, 4}, want)
		if n-4 < getBlock {
			conn.WriteToUDPAddrPort(packet, to) // the server may end
			return data, nil
		}
		want++
	}
}

// exchange sends a packet until the wanted block comes.
func exchange(ctx context.Context, conn *net.UDPConn, packet []byte, to netip.AddrPort, server netip.Addr, buf []byte, want uint16,
	first bool) (n int, from netip.AddrPort, err error) {
	for range getTries {
		if _, err := conn.WriteToUDPAddrPort(packet, to); err != nil {
			return 0, from, err
		}
		until := time.Now().Add(getAgain)
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		}
		conn.SetReadDeadline(until)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.As(err, new(net.Error)) {
				break
			}
			if err != nil {
				return 0, from, err
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if from.Addr() != server || !first && from != to || n < 4 {
				continue // somebody else's packet
			}
			switch kind := binary.BigEndian.Uint16(buf); {
			case kind == 5:
				text, _, _ := bytes.Cut(buf[4:n], []byte{0})
				return 0, from, fmt.Errorf("the TFTP server refuses: %.200q", text)
			case kind == 3 && binary.BigEndian.Uint16(buf[2:]) == want && n <= 4+getBlock:
				return n, from, nil
			}
		}
		if ctx.Err() != nil {
			return 0, from, context.Cause(ctx)
		}
	}
	return 0, from, fmt.Errorf("no answer by TFTP from %v: nothing listens there, or a firewall is in the way", server)
}
