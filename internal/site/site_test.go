package site

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`# our lab
server=10.42.1.1
	tftp-path = /srv/tftp
network = static
netmask = 255.255.252.0
gateway = 10.40.41.1
device = enp3s0
maintenance = 12.5-1
kernel-args = nomodeset   module.x=1
expire = 36h
retry = 90s
local-boot = -1` + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Site{
		Server: netip.MustParseAddr("10.42.1.1"), TFTPPath: "/srv/tftp", BackupPath: "/export/testbox-backup",
		RootPath: "/export/testbox-nfsroot",
		Static:   true, Netmask: netip.MustParseAddr("255.255.252.0"), Gateway: netip.MustParseAddr("10.40.41.1"), Device: "enp3s0",
		Maintenance: "12.5-1", KernelArgs: "nomodeset   module.x=1", LocalBoot: "-1", Expire: 36 * time.Hour, Retry: 90 * time.Second,
	}
	if *got != want {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	const ok = "server = 10.42.1.1\n"
	for text, says := range map[string]string{
		"":                                   "server is missing",
		ok + "sever = 1":                     "line 2: unknown key \"sever\"; the keys are server, tftp-path",
		ok + ok:                              "line 2: server is already in line 1",
		"server = nas.example":               "not the IPv4 address",
		"server = ::1":                       "not the IPv4 address",
		ok + "tftp-path = tftp":              "not an absolute path",
		ok + "backup-path = /a b":            "not an absolute path",
		ok + "network = auto":                "none of: dhcp; static",
		ok + "network = static":              "needs netmask",
		ok + "netmask = 255.0.0.0":           "for network = static",
		ok + "netmask = 255.0.255.0":         "not a netmask",
		ok + "device = ../eth0":              "not the name of a network device",
		ok + "maintenance = ../../etc":       "name of a version",
		ok + "expire = 10s":                  "from 1m to 2160h",
		ok + "expire = 1.5s":                 "not a duration",
		ok + "retry = 0s":                    "from 1s to 24h",
		ok + "retry = 5":                     "not a duration",
		ok + "local-boot = hd1":              "none of: -1; 0; 0x80",
		ok + "device =":                      "has no value",
		ok + "device":                        "key = value",
		ok + "kernel-args = a\x01":           "printable",
		ok + `kernel-args = a="b`:            "partner",
		"#" + strings.Repeat("x", MaxFile):   "larger",
		"#" + strings.Repeat("x", maxLine+1): "longer",
	} {
		if s, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60q gave %+v, %v; want an error with %q", text, s, err, says)
		}
	}
}

// TestTemplate: the first site file explains every key and is read as it was meant.
func TestTemplate(t *testing.T) {
	s := Defaults()
	s.Server = netip.MustParseAddr("10.42.1.1")
	text := s.Template()
	got, err := Parse(text)
	if err != nil || *got != *s {
		t.Fatalf("read as %+v, %v\n%s", got, err, text)
	}
	for _, want := range []string{"\nserver = 10.42.1.1\n", "\n#expire = 24h\n", "\n#retry = 5m\n", "\n#netmask =\n", "\n#network = dhcp\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func FuzzParseSite(f *testing.F) {
	s := Defaults()
	s.Server = netip.MustParseAddr("10.42.1.1")
	f.Add(s.Template())
	f.Add([]byte("server=1.2.3.4\nnetwork=static\nnetmask=255.0.0.0\nkernel-args=a=\"b c\"\nexpire=1h1m1s"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(s.Template())
		if err != nil || *again != *s {
			t.Fatalf("%q became %q: %v", data, s.Template(), err)
		}
	})
}
