package bootcfg

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
)

func addr(t testing.TB, s string) box.Addr {
	t.Helper()
	a, err := box.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// full is a command line that uses every word.
func full(t testing.TB) Cmdline {
	server := netip.MustParseAddr("10.42.1.1")
	return Cmdline{
		Action: box.Restore, Arming: "0123456789abcdef", Address: addr(t, "10.40.41.42"), Host: "box42.lab.example",
		Expires: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		TFTP:    NFSPath{server, "/export/testbox-tftp"}, Backup: NFSPath{server, "/export/testbox-backup"},
		Root:  NFSPath{server, "/export/testbox-nfsroot/1"},
		Disks: []string{"sda", "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"}, Map: []string{"sda=nvme0n1", "sdb=/dev/disk/by-id/a=b"},
		ShrinkTable: true, PrecheckSize: true, AcceptMachine: true, OldImages: true,
		AcceptFailing: true, From: "10.40.41.99", Hooks: box.Hooks,
		Raw:   true,
		Retry: 5 * time.Second, Stall: time.Minute, Fault: "panic",
		Net: IPConfig{Address: netip.MustParseAddr("10.40.41.42"), Server: server, Gateway: netip.MustParseAddr("10.40.41.1"),
			Netmask: netip.MustParseAddr("255.255.255.0"), Host: "maintenance", Device: "eth0"},
		BootIF: net.HardwareAddr{0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd},
	}
}

const least = "testbox-action-backup testbox-arming=0123456789abcdef testbox-address=10.40.41.42 " +
	"testbox-tftp=10.42.1.1:/export/testbox-tftp testbox-backup=10.42.1.1:/export/testbox-backup"

// fullServer is one of server mode that uses every word.
func fullServer(t testing.TB) Cmdline {
	c := full(t)
	c.Mode, c.TFTP, c.Backup, c.Root = ServerMode, NFSPath{}, NFSPath{}, NFSPath{}
	c.Fetch = RootFile{netip.MustParseAddrPort("10.42.1.1:80"), "/maintenance-boot/1/root.squashfs", strings.Repeat("0a", 32)}
	c.PrecheckSize, c.OldImages, c.Raw = false, false, false
	c.Server, c.Key = netip.MustParseAddrPort("10.42.1.1:8444"), strings.Repeat("0123456789abcdef", 4)
	c.Secret = "1-00112233445566778899aabbccddeeff"
	c.From = "golden"
	return c
}

const leastServer = "testbox-action-backup testbox-mode=server testbox-arming=0123456789abcdef testbox-address=10.40.41.42 " +
	"testbox-server=10.42.1.1:8444 testbox-key=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef " +
	"testbox-secret=1-00112233445566778899aabbccddeeff"

// TestCmdlineMode: share mode has no word, so that boot files are what they were.
func TestCmdlineMode(t *testing.T) {
	c, err := ParseCmdline(leastServer)
	if err != nil || c.Mode != ServerMode || c.Words() != leastServer {
		t.Fatalf("%+v, %v", c, err)
	}
	share, err := ParseCmdline(least)
	if err != nil || share.Mode != ShareMode || strings.Contains(share.Words(), "mode") {
		t.Fatalf("%+v, %v", share, err)
	}
	if Agree(c, share) == nil {
		t.Error("two modes agree")
	}
	for _, bad := range []string{"", "share", "Server"} {
		if _, err := ParseCmdline(least + " testbox-mode=" + bad); err == nil {
			t.Errorf("the mode %q is taken", bad)
		}
	}
}

// TestCmdlineOfOtherMode: a word that only the other mode has is refused, since it
// could not do what whoever wrote it wanted.
func TestCmdlineOfOtherMode(t *testing.T) {
	for _, w := range []string{"testbox-tftp=10.42.1.1:/t", "testbox-backup=10.42.1.1:/b", "testbox-precheck=size", "testbox-image=old",
		"testbox-raw", "nfsroot=10.42.1.1:/r,ro,tcp"} {
		if c, err := ParseCmdline(leastServer + " " + w); err == nil || !strings.Contains(err.Error(), "which server mode does not have") {
			t.Errorf("server mode with %s gave %+v, %v", w, c, err)
		}
	}
	for _, w := range append(strings.Fields(leastServer)[4:], wordFetch+"=http://10.42.1.1:80/x", wordSHA256+"="+strings.Repeat("0a", 32)) {
		if c, err := ParseCmdline(least + " " + w); err == nil || !strings.Contains(err.Error(), "which share mode does not have") {
			t.Errorf("share mode with %s gave %+v, %v", w, c, err)
		}
	}
}

// TestCmdlineFetch: the root of server mode is one file at a web server, with its hash.
func TestCmdlineFetch(t *testing.T) {
	sum := " testbox-root-sha256=" + strings.Repeat("0a", 32)
	c, err := ParseCmdline(leastServer + " testbox-root=http://10.42.1.1:8080/a/b" + sum)
	if err != nil || !c.Debian() || c.Fetch.URL() != "http://10.42.1.1:8080/a/b" || c.Fetch.SHA256 != strings.Repeat("0a", 32) {
		t.Fatalf("%+v, %v", c, err)
	}
	other := *c
	other.Fetch.SHA256 = strings.Repeat("0b", 32)
	if Agree(c, &other) == nil {
		t.Error("two roots agree")
	}
	for _, bad := range []string{
		"testbox-root=http://10.42.1.1:80/x", strings.TrimSpace(sum), "testbox-root=http://10.42.1.1/x" + sum,
		"testbox-root=https://10.42.1.1:443/x" + sum, "testbox-root=http://server:80/x" + sum, "testbox-root=http://10.42.1.1:80" + sum,
		"testbox-root=http://10.42.1.1:80/" + sum, "testbox-root=http://10.42.1.1:80/x?y" + sum, "testbox-root=http://u@10.42.1.1:80/x" + sum,
		"testbox-root=http://10.42.1.1:80/x testbox-root-sha256=" + strings.Repeat("0A", 32),
	} {
		if c, err := ParseCmdline(leastServer + " " + bad); err == nil {
			t.Errorf("%s gave %+v", bad, c)
		}
	}
}

func TestCmdlineRoundTrip(t *testing.T) {
	for _, want := range []Cmdline{full(t), fullServer(t)} {
		roundTrip(t, want)
	}
}

func roundTrip(t *testing.T, want Cmdline) {
	line := "BOOT_IMAGE=maintenance-boot/1/vmlinuz " + want.Words() + ` console=tty0 dyndbg="testbox-x y" panic=30`
	got, err := ParseCmdline(line)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	if err := Agree(got, &want); err != nil {
		t.Error(err)
	}
}

func TestCmdlineLeast(t *testing.T) {
	c, err := ParseCmdline(least)
	if err != nil {
		t.Fatal(err)
	}
	if c.Action != box.Backup || !c.Net.IsZero() || c.BootIF != nil || !c.Expires.IsZero() || c.Words() != least {
		t.Errorf("%+v", c)
	}
}

func TestCmdlineRefuses(t *testing.T) {
	for line, says := range map[string]string{
		"":                                   "no testbox-action",
		"testbox-action-backup":              "no testbox-arming",
		least + " testbox-action-backup":     "more than once",
		least + " testbox-arming=1":          "more than once",
		least + " nfsroot=10.42.1.1:/export": "not of the form",
		least + " nfsroot=10.42.1.1:/export,rw,tcp":              "not of the form",
		least + " nfsroot=/export,ro,tcp":                        "not of the form",
		"testbox-action-explode " + least:                        "unknown action",
		least + " testbox-what=1":                                "unknown word",
		least + " testbox-precheck=all":                          "not size",
		least + " testbox-precheck":                              "takes a value",
		least + " testbox-accept-machine=yes":                    "takes no value",
		least + " testbox-image=new":                             "not old",
		least + " testbox-retry=0":                               "number of seconds",
		least + " testbox-retry=1000000":                         "number of seconds",
		least + " testbox-stall=05":                              "number of seconds",
		least + " testbox-disks=":                                "not a disk",
		least + " testbox-disks=sda,,sdb":                        "not a disk",
		least + " testbox-disks=sda,sda":                         "twice",
		least + " testbox-host=-x":                               "not a host name",
		least + " testbox-expires=tomorrow":                      "not a time",
		least + " testbox-expires=2026-11-22T08:00:00+01:00":     "not a time",
		least + " testbox-expires=2026-11-22T08:00:00.5Z":        "not a time",
		least + " testbox-expires=0001-01-01T00:00:00Z":          "not a time",
		least + " testbox-fault=":                                "not a word",
		least + " ip=10.0.0.1":                                   "neither dhcp",
		least + " ip=10.0.0.1:::255.0.255.0":                     "not an address of a network",
		least + " ip=dhcp ip=dhcp":                               "more than once",
		least + " BOOTIF=01-zz":                                  "not an Ethernet address",
		least + " testbox-from=golden":                           "not an IPv4 address",
		least + " testbox-from=..":                               "not a box",
		least + " testbox-from=10.40.41.99/..":                   "not a box",
		least + " testbox-from=10.40.41.42":                      "is the box itself",
		least + " testbox-from=":                                 "not a box",
		least + " testbox-hooks=hostname,all":                    "there is no hook",
		strings.Repeat("x", maxCmdline+1):                        "longer",
		strings.Replace(least, "10.40.41.42", "127.0.0.1", 1):    "not the address of a testbox",
		strings.Replace(least, "0123456789abcdef", "ABC", 1):     "not an arming id",
		strings.Replace(least, "10.42.1.1:/export", "/exp", 1):   "IPv4:/path",
		strings.Replace(least, "10.42.1.1:/export", "::1:/x", 1): "IPv4:/path",
	} {
		if c, err := ParseCmdline(line); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gave %+v, %v; want an error with %q", line, c, err, says)
		}
	}
	for _, all := range []string{least, strings.Replace(leastServer, "testbox-mode=server ", "", 1)} {
		words := strings.Fields(all)
		for i, w := range words {
			line := strings.Join(slices.Delete(slices.Clone(words), i, i+1), " ")
			if all != least {
				line += " testbox-mode=server"
			}
			if c, err := ParseCmdline(line); err == nil || !strings.Contains(err.Error(), "has no testbox-") {
				t.Errorf("without %s it gave %+v, %v", w, c, err)
			}
		}
	}
}

func TestCmdlineRefusesServer(t *testing.T) {
	for bad, says := range map[string]string{
		"testbox-server=10.42.1.1":                           "IPv4:PORT",
		"testbox-server=10.42.1.1:0":                         "IPv4:PORT",
		"testbox-server=10.42.1.1:08444":                     "IPv4:PORT",
		"testbox-server=[::1]:8444":                          "IPv4:PORT",
		"testbox-server=server:8444":                         "IPv4:PORT",
		"testbox-key=":                                       "not 64 hexadecimal digits",
		"testbox-key=" + strings.Repeat("A", 64):             "not 64 hexadecimal digits",
		"testbox-key=" + strings.Repeat("a", 63):             "not 64 hexadecimal digits",
		"testbox-secret=":                                    "not a secret",
		"testbox-secret=a/b":                                 "not a secret",
		"testbox-secret=" + strings.Repeat("a", maxSecret+1): "not a secret",
	} {
		key, _, _ := strings.Cut(bad, "=")
		words := slices.DeleteFunc(strings.Fields(leastServer), func(w string) bool { return strings.HasPrefix(w, key+"=") })
		line := strings.Join(append(words, bad), " ")
		if c, err := ParseCmdline(line); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gave %+v, %v; want an error with %q", bad, c, err, says)
		}
	}
}

func TestIPConfig(t *testing.T) {
	for in, want := range map[string]string{
		"dhcp":           "dhcp",
		":::::eth0:dhcp": ":::::eth0:dhcp",
		"10.0.0.2:10.0.0.1:10.0.0.1:255.255.255.0":                  "10.0.0.2:10.0.0.1:10.0.0.1:255.255.255.0::",
		"10.0.0.2:::255.255.0.0:maintenance:enp3s0":                 "10.0.0.2:::255.255.0.0:maintenance:enp3s0",
		"10.0.0.2:10.0.0.1:10.0.0.1:255.255.255.0:maintenance:eth1": "10.0.0.2:10.0.0.1:10.0.0.1:255.255.255.0:maintenance:eth1",
	} {
		c, err := ParseIPConfig(in)
		if err != nil || c.String() != want {
			t.Errorf("%q gave %q, %v; want %q", in, c, err, want)
		}
	}
	c, _ := ParseIPConfig("10.0.0.2:::255.255.0.0")
	if c.Prefix() != netip.MustParsePrefix("10.0.0.2/16") {
		t.Errorf("prefix is %v", c.Prefix())
	}
}

func TestBootIFOfOtherHardware(t *testing.T) {
	c, err := ParseCmdline(least + " BOOTIF=20-00-11-22-33-44-55-66-77")
	if err != nil || c.BootIF != nil {
		t.Errorf("InfiniBand's BOOTIF gave %v, %v", c, err)
	}
}

func TestAgree(t *testing.T) {
	for name, change := range map[string]func(*Cmdline){
		"action":  func(c *Cmdline) { c.Action = box.Backup },
		"arming":  func(c *Cmdline) { c.Arming = "fedcba9876543210" },
		"address": func(c *Cmdline) { c.Address = addr(t, "10.40.41.43") },
		"disks":   func(c *Cmdline) { c.Disks = nil },
		"order":   func(c *Cmdline) { c.Disks = []string{c.Disks[1], c.Disks[0]} },
		"expiry":  func(c *Cmdline) { c.Expires = time.Time{} },
		"tftp":    func(c *Cmdline) { c.TFTP.Path = "/x" },
		"backup":  func(c *Cmdline) { c.Backup.Path = "/x" },
		"check":   func(c *Cmdline) { c.PrecheckSize = false },
		"machine": func(c *Cmdline) { c.AcceptMachine = false },
		"raw":     func(c *Cmdline) { c.Raw = false },
		"old":     func(c *Cmdline) { c.OldImages = false },
		"failing": func(c *Cmdline) { c.AcceptFailing = false },
		"server":  func(c *Cmdline) { c.Server = netip.MustParseAddrPort("10.42.1.1:8445") },
		"key":     func(c *Cmdline) { c.Key = "0" + c.Key[1:len(c.Key)-1] + "0" },
		"secret":  func(c *Cmdline) { c.Secret = "2-" },
		"from":    func(c *Cmdline) { c.From = "10.40.41.98" },
		"hooks":   func(c *Cmdline) { c.Hooks = c.Hooks[1:] },
	} {
		a, b := full(t), full(t)
		a.Server, a.Key, a.Secret = fullServer(t).Server, fullServer(t).Key, fullServer(t).Secret
		b.Server, b.Key, b.Secret = a.Server, a.Key, a.Secret
		change(&b)
		if Agree(&a, &b) == nil || Agree(&b, &a) == nil {
			t.Errorf("%s: a difference was not seen", name)
		}
	}
	a, b := full(t), full(t)
	b.BootIF, b.Net, b.Host = nil, IPConfig{}, "" // the loader's and the network's, not the arming's
	if err := Agree(&a, &b); err != nil {
		t.Error(err)
	}
}

func FuzzParseCmdline(f *testing.F) {
	all := full(f)
	server := fullServer(f)
	f.Add(least)
	f.Add(leastServer)
	f.Add(all.Words())
	f.Add(server.Words())
	f.Add(least + ` ip=:::::eth0:dhcp a="b testbox-x c" BOOTIF=01-00-11-22-33-44-55`)
	f.Fuzz(func(t *testing.T, line string) {
		c, err := ParseCmdline(line)
		if (c == nil) != (err != nil) {
			t.Fatalf("got both or neither of %v and %v", c, err)
		}
		if err != nil {
			return
		}
		again, err := ParseCmdline(c.Words())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%q became %q, which is %+v, %v", line, c.Words(), again, err)
		}
		if err := Agree(c, again); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCmdlineOfNewerProgram: words that this version cannot use are an error, and what
// an agent needs for ending an expired arming is there all the same.
func TestCmdlineOfNewerProgram(t *testing.T) {
	line := least + " testbox-expires=2026-12-01T16:42:08Z testbox-host=box11"
	want, err := ParseCmdline(line)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{
		"testbox-later=1", "testbox-later", "testbox-hooks=later", "testbox-image=later", "testbox-from=10.42.1.7.8", "testbox-raw=1",
	} {
		for _, line := range []string{line + " " + w, w + " " + line} {
			c, err := ParseCmdline(line)
			if err == nil || c == nil {
				t.Fatalf("%s gave %+v, %v", w, c, err)
			}
			if !strings.Contains(err.Error(), strings.SplitN(w, "=", 2)[0]) {
				t.Errorf("%s: the error does not name it: %v", w, err)
			}
			if c.Arming != want.Arming || c.Address != want.Address || c.Expires != want.Expires || c.TFTP != want.TFTP || c.Backup != want.Backup {
				t.Errorf("with %s: %+v, want %+v", w, c, want)
			}
		}
	}
	for _, w := range []string{"testbox-mode=later", "testbox-stall=1 testbox-stall=2", "testbox-server=10.42.1.1:8444", "ip=later"} {
		if c, err := ParseCmdline(line + " testbox-later=1 " + w); err == nil || c != nil {
			t.Errorf("%s gave %+v, %v", w, c, err)
		}
	}
}
