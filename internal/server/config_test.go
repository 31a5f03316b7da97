package server

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEmptyConfig(t *testing.T) {
	cfg, err := ParseConfig(nil)
	if err != nil || !reflect.DeepEqual(*cfg, DefaultConfig()) {
		t.Fatalf("an empty file gives %+v, %v", cfg, err)
	}
	text := ConfigText(cfg)
	if !strings.Contains(string(text), "silence = '5m'") || !strings.Contains(string(text), "start = '24h'") {
		t.Fatalf("the defaults are written as\n%s", text)
	}
	again, err := ParseConfig(text)
	if err != nil || !reflect.DeepEqual(*again, *cfg) {
		t.Errorf("what was written is read as %+v, %v", again, err)
	}
}

func TestConfigRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.toml")
	text := `state = "/srv/testbox"
agents = "10.42.1.1:8444"
boxes = 8
[jobs]
attempts = 5
silence = "90s"
[upkeep]
at = "23:59"
scrub = ""
keep-last = 3
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.StoreDir() != "/srv/testbox/store" || cfg.Boxes != 8 || cfg.Jobs.Attempts != 5 || cfg.Site().Keep.Last != 3 ||
		time.Duration(cfg.Jobs.Silence) != 90*time.Second || cfg.API != ":8443" {
		t.Errorf("read as %+v", cfg)
	}
	if _, err := ReadConfig(path + "x"); err == nil || !strings.Contains(err.Error(), "testbox server init") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func subnet(network, addrs string) string {
	return fmt.Sprintf("[dhcp]\nmode = \"full\"\n[[dhcp.subnets]]\nnetwork = %q\nrange = %q\n", network, addrs)
}

func TestConfigOfDHCP(t *testing.T) {
	cfg, err := ParseConfig([]byte("[dhcp]\ninterfaces = []\nlease = \"1h\"\nmode = \"full\"\n[[dhcp.subnets]]\nnetwork = \"10.42.1.0/24\"\n" +
		"range = \"10.42.1.100 - 10.42.1.199\"\nrouters = [\"10.42.1.1\"]\ndns = []\n"))
	must(t, err)
	all, err := cfg.DHCP.subnets()
	must(t, err)
	if n := all[0]; len(all) != 1 || n.First.String() != "10.42.1.100" || n.Last.String() != "10.42.1.199" || n.Lease != time.Hour ||
		len(n.Router) != 1 || n.DNS != nil || cfg.DHCP.Interfaces != nil {
		t.Errorf("%+v, %+v", all, cfg.DHCP)
	}
	for text, want := range map[string]string{
		subnet("10.42.1.1/24", ""):                        "the network \"10.42.1.1/24\" is none",
		subnet("fd00::/64", ""):                           "no IPv4 subnet",
		subnet("10.42.1.0/24", "10.42.1.9"):               "the range \"10.42.1.9\" is none",
		subnet("10.42.1.0/24", "10.0.0.1-10.0.0.2"):       "no range of the subnet",
		subnet("10.42.1.0/24", "") + "routers = [\"10\"]": "no IPv4 address",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if again, err := ParseConfig(ConfigText(cfg)); err != nil || !reflect.DeepEqual(*again, *cfg) {
		t.Errorf("what was written is read as %+v, %v", again, err)
	}
}

// TestConfigRefused has for each mistake a part of the sentence that names it.
func TestConfigRefused(t *testing.T) {
	for text, want := range map[string]string{
		"state = 1":                               "line 1: the value of state is a text, and stands in quotes",
		"[jobs]\nattempts = \"3\"":                "line 2: the value of jobs.attempts is a whole number, without quotes",
		"\n\nagent = \":1\"":                      "line 3: there is no key agent",
		"[jobs]\nretries = 2":                     "line 2: there is no key jobs.retries",
		"[job]\n":                                 "there is no key job",
		"boxes = 1\nboxes = 2":                    "line 2",
		"state = \"var\"":                         "state is no absolute path",
		"state = \"/a b\"":                        "state is no absolute path",
		"store = \"store\"":                       "store is no absolute path",
		"socket = \"x\"":                          "socket is no absolute path",
		"agents = \"\"":                           "agents is no address and port",
		"agents = \":0\"":                         "agents is no address and port",
		"agents = \":70000\"":                     "agents is no address and port",
		"agents = \"host:1\"":                     "agents is no address and port",
		"api = \"8443\"":                          "api is no address and port",
		"tftp = \"69\"":                           "tftp is no address and port",
		"http = \"80\"":                           "http is no address and port",
		"http = \":8444\"":                        "http needs another port",
		"api = \":8444\"":                         "different ports",
		"jobs.power = \"bmc\"":                    "there is no section [power.bmc]",
		"jobs.power-at-once = -1":                 "jobs.power-at-once is not a number",
		"power = \"bmc\"":                         "line 1",
		"[power.bmc]\nprogram = \"x\"":            "line 2: there is no key power.bmc.program",
		"[power.bmc]\ntemplate = \"no\"":          "power.bmc: there is no power template \"no\"; there are ipmitool, ssh-reboot, wake",
		"[power.bmc]\ncommand = \"a | b\"":        "power.bmc: the power command is wrong",
		"[power.bmc]\n":                           "power.bmc: the power command is wrong: it is empty",
		"[power.none]\ntemplate = \"wake\"":       "cannot be called \"none\"",
		"[power.'a b']\ntemplate = \"wake\"":      "cannot be the name of a power command",
		"[power.bmc]\ncommand = \"x\"\ntimeout=1": "the time-out of power is 1ns",
		"room.peers = \"on\"":                     "the value of room.peers is true or false",
		"room.off = [\"10.0.0.1/24\"]":            "room.off: the network \"10.0.0.1/24\" is none",
		"room.zones = [\"fd00::/64\"]":            "room.zones: the network",
		"room.zones = \"10.0.0.0/24\"":            "line 1",
		"room.upload = 1000":                      "room.upload is not 0",
		"room.upload = -1":                        "room.upload is not 0",
		"room.upload = \"1MB\"":                   "the value of room.upload is a whole number",
		"room.unit = 0":                           "room.unit is not a number",
		"room.unit = 100000000":                   "room.unit is not a number",
		"boxes = -1":                              "boxes is not a number",
		"jobs.attempts = 0":                       "jobs.attempts is not a number",
		"jobs.start = \"1s\"":                     "jobs.start is not between",
		"jobs.silence = \"1s\"":                   "jobs.silence is not between",
		"jobs.up = \"1s\"":                        "jobs.up is not between",
		"jobs.up = \"five minutes\"":              "is no duration",
		"upkeep.at = \"24:00\"":                   "upkeep.at is no time of day",
		"upkeep.scrub = \"caturday\"":             "upkeep.scrub is no day",
		"[[hooks]]\nurl = \"ftp://x\"":            "hooks: ",
		"[dhcp]\nmode = \"on\"":                   "dhcp.mode is not",
		"tftp = \"\"\n[dhcp]\nmode = \"proxy\"":   "tftp is empty",
		"[dhcp]\nmode = \"full\"":                 "no [[dhcp.subnets]]",
		"[dhcp]\ninterfaces = [\"a/b\"]":          "no name of a network card",
		"[dhcp]\nlease = \"1m\"":                  "dhcp.lease is not between",
		"[dhcp]\nrange = \"\"":                    "line 2: there is no key dhcp.range",
		"[[hooks]]\nurl = \"https://x\"":          "secret-file",
		"[[hooks]]\nurl = \"https://u:p@x\"":      "hooks: ",
		"upkeep.keep-last = -1":                   "a number of backups to keep is negative",
		"x = \"" + strings.Repeat("x", maxFile):   "more than",
		"socket = \"/" + strings.Repeat("x", 100): "line 1",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// TestConfigOfSchedules reads schedules, writes them, and has for each mistake a part of the sentence that names it.
func TestConfigOfSchedules(t *testing.T) {
	const begin = "[schedules.nightly]\nwhen = \"@daily\"\naction = \"backup\"\n"
	const rest = "boxes = [\"group:a\", \"b\"]\nzone = \"UTC\"\nwindow = [\"01:00-05:00\"]\nspread = \"1h\"\nlate = \"90m\"\n"
	cfg, err := ParseConfig([]byte(begin + rest))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseConfig(ConfigText(cfg)); err != nil || !reflect.DeepEqual(again, cfg) {
		t.Errorf("written as %s, read as %+v, %v", ConfigText(cfg), again, err)
	}
	plans, err := cfg.Plans()
	if err != nil || len(plans) != 1 || plans[0].Name != "nightly" || plans[0].LateText() != "1h30m" || plans[0].SpreadText() != "1h" {
		t.Errorf("%+v, %v", plans, err)
	}
	for text, want := range map[string]string{
		"[schedules.nightly]\nwhen = \"30 2 * * *\"":                                    "schedule nightly: its action is",
		"[schedules.nightly]\nwhen = \"\"\naction = \"backup\"\nboxes = [\"a\"]":        "schedule nightly: ",
		"[schedules.nightly]\nwhen = \"@daily\"\naction = \"restore\"\nboxes = [\"a\"]": "its action is \"restore\"",
		begin:                    "it names no boxes",
		begin + "boxes = [\"\"]": "names no box and no group",
		begin + "boxes = \"a\"":  "line 4: the value of schedules.nightly.boxes is a list",
		begin + "boxes = [\"a\"]\nzone = \"CEST\"":                                            "there is no time zone",
		begin + "boxes = [\"a\"]\nlate = \"1s\"":                                              "may be late by",
		begin + "boxes = [\"a\"]\nwindow = [\"at night\"]":                                    "is no window",
		"[schedules.nightly]\nevery = \"1h\"":                                                 "there is no key schedules.nightly.every",
		"[schedules.\"Each night\"]\nwhen = \"@daily\"\naction = \"backup\"\nboxes = [\"a\"]": "cannot be the name of a schedule",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(subnet("10.42.1.0/24", "10.42.1.1-10.42.1.2") + "dns = []\n"))
	f.Add([]byte("[schedules.\"a.b\"]\nwhen = \"5 4 * * sun\"\nboxes = [\"b\"]\naction = \"verify\"\nwindow = [\"01:00-05:00\"]\n"))
	f.Add([]byte("state = \"/srv\"\n[upkeep]\nat = \"\"\n[[hooks]]\nurl = \"https://x\"\nsecret-file = \"/y\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err != nil {
			return
		}
		text := ConfigText(cfg)
		if again, err := ParseConfig(text); err != nil || !reflect.DeepEqual(*again, *cfg) {
			t.Fatalf("%q is written as %q, which is read as %+v, %v", data, text, again, err)
		}
	})
}

// TestConfigPower: power commands are read, and written again as they were.
func TestConfigPower(t *testing.T) {
	text := `
[jobs]
power = "bmc"
power-at-once = 4
[power.bmc]
template = "ipmitool"
timeout = "20s"
[power.pdu]
command = "snmpset -v 3 10.40.99.1 1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.{label:outlet} i {action}"
env = { SNMPCONFPATH = "/etc/testbox/snmp" }
[power.pdu.actions]
on = "1"
off = "2"
[power.'wake"x"']
template = "wake"
broadcast = "10.40.41.255"
password-file = "/etc/testbox/secureon"
[power.files]
command = "x"
actions = { on = "" }
env-files = { "A_b" = "/etc/testbox/a" }
`
	cfg, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s := cfg.Site(); s.Power != "bmc" || strings.Join(s.Powers, " ") != `bmc files pdu wake"x"` || cfg.Jobs.PowerAtOnce != 4 {
		t.Errorf("%+v", s)
	}
	again, err := ParseConfig(ConfigText(cfg))
	if err != nil || !reflect.DeepEqual(again, cfg) {
		t.Errorf("%v, what was written is read as %+v\n%s", err, again, ConfigText(cfg))
	}
}

// TestGuidePower: the power commands of the guide are right.
func TestGuidePower(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "### Power\n")
	text, _, _ = strings.Cut(text, "Say which one a box has")
	var config []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			config = append(config, line)
		}
	}
	cfg, err := ParseConfig([]byte(strings.Join(config, "")))
	if err != nil || len(cfg.Power) != 5 || cfg.Jobs.Power != "bmc" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
