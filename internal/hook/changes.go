package hook

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"testbox-imaging/internal/box"
)

// changes is what one hook does.
type changes struct {
	tree
	host  string
	alive func()
	warn  func(format string, args ...any)
	wants []want
	said  []string
}

func (c *changes) say(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}
func (c *changes) text() string { return strings.Join(c.said, "; ") }

func (c *changes) do(h box.Hook) error {
	switch h {
	case box.HookHostname:
		return c.hostname()
	case box.HookMachineID:
		return c.machineID()
	case box.HookSSHKeys:
		return c.sshKeys()
	}
	return errors.New("this maintenance system does not know it; build it anew with the program that armed the box")
}

// put gives a file its content, and notes that it must have it.
func (c *changes) put(path string, data []byte) error {
	if err := c.write(path, data); err != nil {
		return err
	}
	c.wants = append(c.wants, want{path: path, data: data})
	return nil
}

// drop removes a file, and notes that it must be gone.
func (c *changes) drop(folder, name string) error {
	if err := c.remove(folder, name); err != nil {
		return err
	}
	c.wants = append(c.wants, want{path: folder + "/" + name, absent: true})
	return nil
}

// hostname gives the system the box's name. That /etc/hosts has the old name is a flaw
// alone, and is found when all disks are written. So it is no reason to fail.
func (c *changes) hostname() error {
	if !box.ValidHost(c.host) {
		return errors.New("this box has no name")
	}
	data, err := c.read("etc/hostname")
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	old := nameIn(data)
	hosts, err := c.read("etc/hosts")
	var other *unfitError
	if err != nil && !errors.Is(err, errAbsent) && !errors.As(err, &other) {
		return err
	}
	if err := c.put("etc/hostname", []byte(c.host+"\n")); err != nil {
		return err
	}
	if old == "" {
		c.say("/etc/hostname says %s", c.host)
		return nil
	}
	c.say("/etc/hostname says %s in place of %s", c.host, old)
	if other != nil {
		c.say("/etc/hosts is not changed, because %v", other)
		c.warn("the hook %s has not changed /etc/hosts, because %v; names in it stay as they are, such as %s",
			box.HookHostname, other, old)
		return nil
	}
	text := renameHosts(string(hosts), old, c.host)
	if text == string(hosts) {
		c.say("/etc/hosts stays as it is")
		return nil
	}
	if err := c.put("etc/hosts", []byte(text)); err != nil {
		return err
	}
	c.say("/etc/hosts too, for this machine's own addresses")
	return nil
}

// nameIn is the host name in the text of /etc/hostname, or "".
func nameIn(data []byte) string {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !box.ValidHost(line) {
			return ""
		}
		return line
	}
	return ""
}

// word matches a word of /etc/hosts.
var word = regexp.MustCompile(`[^ \t\r\n]+`)

// renameHosts gives the loopback addresses in the text of /etc/hosts another host name. What
// other addresses are called stays as it is.
func renameHosts(text, old, host string) string {
	oldShort, _, _ := strings.Cut(old, ".")
	short, _, full := strings.Cut(host, ".")
	if oldShort == "localhost" {
		return text
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		names, comment, _ := strings.Cut(line, "#")
		if len(names) < len(line) {
			comment = "#" + comment
		}
		at := word.FindString(names)
		if a, err := netip.ParseAddr(at); err == nil && a.IsLoopback() {
			names = word.ReplaceAllStringFunc(names, func(w string) string {
				rest, longer := strings.CutPrefix(w, oldShort+".")
				switch {
				case w == old:
					return host
				case w == oldShort:
					return short
				case longer && full:
					return host
				case longer:
					return short + "." + rest
				}
				return w
			})
		}
		out.WriteString(names + comment)
	}
	return out.String()
}

// machineID takes the machine's id away. systemd makes a new one at the next start if the
// file is empty, and takes the start for no first one (machine-id(5)).
func (c *changes) machineID() error {
	const folder, name = "var/lib/dbus", "machine-id"
	_, err := c.read("etc/machine-id")
	switch {
	case errors.Is(err, errAbsent):
		c.say("there is no /etc/machine-id")
	case err != nil:
		return err
	default:
		if err := c.put("etc/machine-id", nil); err != nil {
			return err
		}
		c.say("/etc/machine-id is empty")
	}
	if c.isLink(folder + "/" + name) {
		return nil // it is the other one
	}
	err = c.drop(folder, name)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err == nil {
		c.say("/%s/%s is removed", folder, name)
	}
	return err
}

// hostKey matches the names of ssh's host keys.
var hostKey = regexp.MustCompile(`^ssh_host_(.+_)?key$`)

// rsaBits is what OpenSSH's ssh-keygen makes by default.
const rsaBits = 3072

// sshKeys makes the host keys of the ssh server anew. Not every distribution would make new
// ones by itself if they were removed, and a server without keys does not start.
func (c *changes) sshKeys() error {
	const folder = "etc/ssh"
	names, err := c.names(folder)
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	slices.Sort(names)
	made := 0
	for _, n := range names {
		if !hostKey.MatchString(n) {
			continue
		}
		c.alive()
		key, err := newKey(n)
		if err != nil {
			return fmt.Errorf("/%s/%s: %w", folder, n, err)
		}
		if key == nil {
			err = c.drop(folder, n)
			c.say("%s is removed, since ssh takes no such key any more", n)
		} else if made++; err == nil {
			err = c.putKey(folder+"/"+n, key)
		}
		if err != nil {
			return err
		}
		gone := []string{n + "-cert.pub"} // it is for the old key
		if key == nil {
			gone = append(gone, n+".pub")
		} else if slices.Contains(names, n+".pub") {
			if err := c.putPublic(folder+"/"+n+".pub", key); err != nil {
				return err
			}
		}
		for _, g := range gone {
			if slices.Contains(names, g) {
				if err := c.drop(folder, g); err != nil {
					return err
				}
			}
		}
	}
	if made == 0 {
		c.say("/%s has no host keys", folder)
		return nil
	}
	c.say("%d host keys in /%s are new", made, folder)
	return nil
}

// newKey makes a key of the type that a file's name says. Without an error, nil means that
// there should be no such key.
func newKey(name string) (any, error) {
	switch name {
	case "ssh_host_ed25519_key":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "ssh_host_rsa_key":
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case "ssh_host_ecdsa_key":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ssh_host_dsa_key", "ssh_host_key":
		return nil, nil
	}
	return nil, errors.New("this is a host key of a type for which no new one can be made; remove it, and back the box up again")
}

func (c *changes) comment() string {
	if box.ValidHost(c.host) {
		return "root@" + c.host
	}
	return "root"
}

func (c *changes) putKey(path string, key any) error {
	block, err := ssh.MarshalPrivateKey(key, c.comment())
	if err != nil {
		return err
	}
	return c.put(path, pem.EncodeToMemory(block))
}

func (c *changes) putPublic(path string, key any) error {
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "\n")
	return c.put(path, []byte(line+" "+c.comment()+"\n"))
}
