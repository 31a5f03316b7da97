package server

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tftpGet asks a TFTP server once, and returns the first block of a file, or the text
// of an error. from is the address of the box.
func tftpGet(t *testing.T, from string, at net.Addr, name string) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)})
	must(t, err)
	defer c.Close()
	request := []byte("\x00\x01" + name + "\x00octet\x00")
	buf := make([]byte, 600)
	for range 30 {
		_, err = c.WriteTo(request, at)
		must(t, err)
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			continue
		}
		if buf[1] == 3 {
			c.WriteTo([]byte{0, 4, buf[2], buf[3]}, peer)
		}
		return strings.TrimRight(string(buf[4:n]), "\x00")
	}
	t.Fatalf("no answer to the request for %s", name)
	return ""
}

// A box gets the boot files of the area by TFTP, but no other box's.
func TestNetboot(t *testing.T) {
	p := newParts(t)
	dir := filepath.Join(p.Config.TFTPDir(), "pxelinux.cfg")
	must(t, os.WriteFile(filepath.Join(dir, "default"), []byte("DEFAULT local"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "0A000007"), []byte("secret"), 0o644))
	at, stop := run(t, p)
	defer stop()
	for name, want := range map[string]string{
		"pxelinux.cfg/default": "DEFAULT local", "/pxelinux.cfg//default": "DEFAULT local", "pxelinux.cfg/0A000007": "there is no such file",
		"../ledger.db": "there is no such file", "pxelinux.cfg/7F000001": "there is no such file",
	} {
		if got := tftpGet(t, "127.0.0.1", at.TFTP, name); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}

// Without TFTP the server has no socket for it.
func TestNoNetboot(t *testing.T) {
	p := newParts(t)
	p.Config.TFTP = ""
	at, stop := run(t, p)
	defer stop()
	if at.TFTP != nil {
		t.Errorf("TFTP is at %v", at.TFTP)
	}
}
