package doctor

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"testbox-imaging/internal/child"
)

var errSilent = errors.New("nothing answers")

// AskTFTP asks a TFTP server for the beginning of a file, as a loader does, and ends the
// transfer.
func AskTFTP(ctx context.Context, at netip.AddrPort, name string) error {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	ask := []byte("\x00\x01" + name + "\x00octet\x00")
	buf := make([]byte, 2048)
	for range 3 {
		if _, err := udp.WriteToUDPAddrPort(ask, at); err != nil {
			return err
		}
		udp.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, from, err := udp.ReadFromUDPAddrPort(buf)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil || n < 4 {
			continue
		}
		if from.Addr().Unmap() != at.Addr() {
			return fmt.Errorf("the answer comes from %v, and loaders take none from another address than they asked", from.Addr().Unmap())
		}
		switch binary.BigEndian.Uint16(buf) {
		case 3, 6: // DATA, OACK
			udp.WriteToUDPAddrPort([]byte("\x00\x05\x00\x00enough\x00"), from)
			return nil
		case 5:
			text, _, _ := strings.Cut(string(buf[4:n]), "\x00")
			return fmt.Errorf("it answers with error %d: %.100q", binary.BigEndian.Uint16(buf[2:]), text)
		}
	}
	return errSilent
}

// TFTP asks a TFTP server for the loader. here says that the server is this machine, where
// a firewall lets questions from the machine itself through. So its rules are read then.
func TFTP(ctx context.Context, at netip.AddrPort, file string, here bool, rules func(context.Context) (string, error)) []Finding {
	err := AskTFTP(ctx, at, file)
	switch {
	case errors.Is(err, errSilent) && unanswered("/proc/net/arp", at.Addr()):
		return []Finding{problem("pxe-e11", "Is the TFTP server's machine up, and in this network? Does DHCP name the right one?",
			"no machine of this network has the address %v of the TFTP server, so boxes say PXE-E11 (ARP timeout)", at.Addr())}
	case errors.Is(err, errSilent):
		return []Finding{problem("tftp", "Is the TFTP server started there? Does a firewall let UDP port 69 in, and answers from other "+
			"ports out? "+
			"On the server: `nft list ruleset`, `ss -lunp`.", "no TFTP server answers at %v, so boxes say PXE-E32", at)}
	case err != nil:
		return []Finding{problem("tftp", "The root of that TFTP server must be the folder with "+file+" and pxelinux.cfg.",
			"the TFTP server at %v does not give out %s: %v", at, file, err)}
	}
	all := []Finding{fine("tftp", "the TFTP server at %v gives %s out to this machine", at, file)}
	if !here {
		return all
	}
	text, err := rules(ctx)
	switch {
	case err != nil:
		all = append(all, notLooked("firewall", "the rules cannot be read here (%v), and questions of the server to itself pass no firewall. "+
			"`testbox doctor` on another machine of the boxes' network finds out", err))
	case Blocks(text, at.Port()):
		all = append(all, problem("firewall", fmt.Sprintf("Let it in: `nft insert rule ... udp dport %d accept` in the chain with hook input, "+
			"or firewall-cmd --permanent --add-service=tftp.", at.Port()),
			"the firewall of this machine drops what comes in, and no rule lets UDP port %d (TFTP) in", at.Port()))
	default:
		all = append(all, fine("firewall", "the firewall's rules do not drop TFTP by their policy"))
	}
	return all
}

// unanswered reports whether the kernel's table of IPv4 neighbours, in the form of /proc/net/arp, says
// that nobody answered when it asked for an address.
func unanswered(table string, a netip.Addr) bool {
	text, err := readSome(table, 4<<20)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line) // address, kind of card, flags (0x2: it answered), MAC, mask, card
		if len(w) >= 4 && w[0] == a.String() {
			return w[2] == "0x0"
		}
	}
	return false
}

// Rules reads the rules of this machine's firewall, as JSON. iptables-nft has its rules there
// too.
func Rules(ctx context.Context) (string, error) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/nft"); err != nil {
			return "", errors.New("the program nft is not installed")
		}
		nft = "/usr/sbin/nft"
	}
	out, err := child.Command(ctx, nft, "--json", "list", "ruleset").Output()
	if err != nil {
		return "", errors.New("only root may read them")
	}
	if len(out) > 16<<20 {
		return "", errors.New("they are too long")
	}
	return string(out), nil
}

// Blocks reports whether a chain of nftables that filters what comes in drops all that no
// rule lets in, and none lets this port of UDP in. It is a hint, since rules can say much more.
func Blocks(ruleset string, port uint16) bool {
	var doc struct {
		All []struct {
			Chain *struct{ Family, Table, Name, Hook, Policy string }
			Rule  *struct {
				Family, Table, Chain string
				Expr                 json.RawMessage
			}
		} `json:"nftables"`
	}
	if json.Unmarshal([]byte(ruleset), &doc) != nil {
		return false
	}
	opened := false
	closed := map[string]bool{} // chains with hook input
	for _, o := range doc.All {
		if c := o.Chain; c != nil && c.Hook == "input" {
			closed[c.Family+" "+c.Table+" "+c.Name] = c.Policy == "drop"
		}
	}
	blocks := false
	for _, drops := range closed {
		blocks = blocks || drops
	}
	for _, o := range doc.All {
		r := o.Rule
		if r == nil {
			continue
		}
		text := string(r.Expr)
		mine := strings.Contains(text, `"dport"`) && strings.Contains(text, fmt.Sprint(port))
		accepts, drops := strings.Contains(text, `"accept"`), strings.Contains(text, `"drop"`) || strings.Contains(text, `"reject"`)
		_, input := closed[r.Family+" "+r.Table+" "+r.Chain]
		all := !strings.Contains(text, `"match"`)
		opened = opened || mine && accepts || input && all && accepts
		blocks = blocks || mine && drops && !opened || input && all && drops
	}
	return blocks && !opened
}
