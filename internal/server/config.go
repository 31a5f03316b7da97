package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/dhcp"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/schedule"
	"testbox-imaging/internal/setting"
	"testbox-imaging/internal/words"
)

// DefaultFile is the configuration file if the admin names none.
const DefaultFile = "/etc/testbox/server.toml"

// maxFile is how many bytes of the configuration file are read at most.
const maxFile = 64 << 10

// Config is what the configuration file says. Keys that are left out have the
// values of DefaultConfig.
type Config struct {
	// State is the folder with the areas of share mode, and beside them the store,
	// the ledger and the keys.
	State  string  `toml:"state"`
	Store  string  `toml:"store"`  // the store's folder; "" is the folder store in State
	Agents string  `toml:"agents"` // address and port for the agents of boxes
	API    string  `toml:"api"`    // address and port for admins; "" is none
	Socket string  `toml:"socket"` // Unix socket for admins on this machine
	TFTP   string  `toml:"tftp"`   // address and port at which boxes get boot files; "" is none
	HTTP   string  `toml:"http"`   // the same, by HTTP; "" is none
	Boxes  int     `toml:"boxes"`  // how many boxes may be at work at once; 0 is any number
	DHCP   DHCP    `toml:"dhcp"`
	Jobs   Jobs    `toml:"jobs"`
	Room   Room    `toml:"room"`
	Upkeep Upkeep  `toml:"upkeep"`
	Hooks  []Hook  `toml:"hooks"` // who is told of each job that has ended
	Enrol  []Enrol `toml:"enrol"` // which machines that nobody knows become boxes
	// Schedules say what the server does again and again, by their names.
	Schedules map[string]Schedule `toml:"schedules"`
	// Power has the ways to switch boxes, by their names. Which one a box has, the box itself, its groups
	// and Jobs.Power say.
	Power map[string]PowerCommand `toml:"power"`
}

// Jobs are the times and numbers of jobs.
type Jobs struct {
	Attempts int      `toml:"attempts"` // how often a job is tried
	Start    Duration `toml:"start"`    // how long a box may take to start maintenance
	Silence  Duration `toml:"silence"`  // how long an agent may be silent
	Up       Duration `toml:"up"`       // how long a box may take to start its own system
	Probe    string   `toml:"probe"`    // how that system is asked for a sign of life: "ping", "tcp:PORT", or "" for not at all
	// Power is the power command of boxes for which nothing else is set; "" is none.
	Power string `toml:"power"`
	// PowerAtOnce is how many boxes may be starting at once after their power command; 0 is any number.
	PowerAtOnce int `toml:"power-at-once"`
}

// Upkeep says when the server looks after its store and its ledger, and how many
// backups of each box it keeps. All Keep of 0 keep all backups.
type Upkeep struct {
	At    string `toml:"at"`    // time of day at which it begins, as "03:30"; "" is never
	Scrub string `toml:"scrub"` // day of the week on which all of the store is read; "" is never
	// BootTest is when the latest backup of each box may be started in a virtual machine, as "20:00-06:00" or
	// "always"; "" is never.
	BootTest    string `toml:"boot-test"`
	KeepLast    int    `toml:"keep-last"`
	KeepDaily   int    `toml:"keep-daily"`
	KeepWeekly  int    `toml:"keep-weekly"`
	KeepMonthly int    `toml:"keep-monthly"`
}

// Schedule is something that the server does again and again.
type Schedule struct {
	When   string   `toml:"when"`   // as cron has it, like "30 2 * * mon-fri" or "@daily"
	Boxes  []string `toml:"boxes"`  // boxes, groups and labels
	Action string   `toml:"action"` // "backup", "verify" or "refresh-info"
	Zone   string   `toml:"zone"`   // time zone; "" is that of this machine
	Window []string `toml:"window"` // when jobs may begin, like "mon-fri 20:00-06:00"; none is always
	Spread Duration `toml:"spread"` // the boxes begin spread over so much time
	Late   Duration `toml:"late"`   // how late a job may begin; 0 is an hour
}

// Duration is a time.Duration as a text, such as "90s", "5m" or "24h".
type Duration time.Duration

// UnmarshalText reads what MarshalText writes, and what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%.40q is no duration like 90s, 5m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes "5m" rather than "5m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(words.Duration(time.Duration(d))), nil }

// DefaultConfig is the configuration of an empty file.
func DefaultConfig() Config {
	return Config{
		State: "/var/lib/testbox", Agents: ":8444", API: ":8443", Socket: "/run/testbox/testbox.sock", TFTP: ":69", HTTP: ":80",
		DHCP: DHCP{Lease: Duration(dhcp.DefaultLease)},
		Jobs: Jobs{Attempts: 3, Start: Duration(24 * time.Hour), Silence: Duration(5 * time.Minute), Up: Duration(15 * time.Minute),
			Probe: probePing, PowerAtOnce: 16},
		Room:   Room{Peers: true, Unit: defaultUnit},
		Upkeep: Upkeep{At: "03:30", Scrub: "sunday"},
	}
}

// ReadConfig reads a configuration file strictly. Errors are of package problem,
// and name the line.
func ReadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, problem.Wrongf("the configuration cannot be read: %w; `testbox server init` makes it", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, problem.Wrongf("the configuration cannot be read: %w", err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return nil, problem.Wrongf("%s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig parses the text of a configuration file.
func ParseConfig(data []byte) (*Config, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	cfg := DefaultConfig()
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&cfg); err != nil {
		return nil, tomlError(err)
	}
	cfg.DHCP.tidy()
	cfg.Room.tidy()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if len(cfg.Schedules) == 0 {
		cfg.Schedules = nil
	}
	for name, k := range cfg.Schedules {
		if len(k.Window) == 0 {
			k.Window = nil
			cfg.Schedules[name] = k
		}
	}
	return &cfg, nil
}

// tomlError says in one line where a file is wrong, and how.
func tomlError(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var keys []string
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			keys = append(keys, fmt.Sprintf("line %d: there is no key %s", row, strings.Join(e.Key(), ".")))
		}
		return errors.New(strings.Join(keys, "; "))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, _ := wrong.Position()
		text := strings.TrimPrefix(wrong.Error(), "toml: ")
		switch key := strings.Join(wrong.Key(), "."); {
		case strings.HasSuffix(text, "of type string"), strings.HasSuffix(text, "of type server.Duration"):
			text = fmt.Sprintf("the value of %s is a text, and stands in quotes", key)
		case strings.HasSuffix(text, "of type []string"):
			text = fmt.Sprintf("the value of %s is a list of texts, like [\"one\", \"two\"]", key)
		case strings.HasSuffix(text, "of type bool"):
			text = fmt.Sprintf("the value of %s is true or false, without quotes", key)
		case strings.HasSuffix(text, "of type int"), strings.HasSuffix(text, "of type int64"):
			text = fmt.Sprintf("the value of %s is a whole number, without quotes", key)
		}
		return fmt.Errorf("line %d: %s", row, text)
	}
	return err
}

var timeOfDay = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])$`)

func (c *Config) check() error {
	u := c.Upkeep
	for _, k := range []struct {
		ok   bool
		text string
	}{
		{filepath.IsAbs(c.State) && bootcfg.ValidPath(c.State) == nil, "state is no absolute path without blanks"},
		{c.Store == "" || filepath.IsAbs(c.Store), "store is no absolute path"},
		{filepath.IsAbs(c.Socket) && len(c.Socket) < 100, "socket is no absolute path of less than 100 characters"},
		{validListen(c.Agents), "agents is no address and port like :8444 or 10.42.1.1:8444"},
		{c.API == "" || validListen(c.API), "api is no address and port like :8443, and not empty"},
		{c.API == "" || c.API != c.Agents, "api and agents need different ports"},
		{c.TFTP == "" || validListen(c.TFTP), "tftp is no address and port like :69, and not empty"},
		{c.HTTP == "" || validListen(c.HTTP), "http is no address and port like :80, and not empty"},
		{c.HTTP == "" || c.HTTP != c.Agents && c.HTTP != c.API, "http needs another port than agents and api"},
		{c.Boxes >= 0 && c.Boxes <= 100_000, "boxes is not a number from 0 to 100000"},
		{c.Jobs.Attempts >= 1 && c.Jobs.Attempts <= 100, "jobs.attempts is not a number from 1 to 100"},
		{within(c.Jobs.Start, time.Minute, 90*24*time.Hour), "jobs.start is not between 1m and 2160h"},
		{within(c.Jobs.Silence, 30*time.Second, 24*time.Hour), "jobs.silence is not between 30s and 24h"},
		{within(c.Jobs.Up, time.Minute, 24*time.Hour), "jobs.up is not between 1m and 24h"},
		{validProbe(c.Jobs.Probe), `jobs.probe is not "ping", not a port like "tcp:22", and not empty`},
		{c.Jobs.PowerAtOnce >= 0 && c.Jobs.PowerAtOnce <= 100_000, "jobs.power-at-once is not a number from 0 to 100000"},
		{u.At == "" || timeOfDay.MatchString(u.At), `upkeep.at is no time of day like "03:30", and not empty`},
		{u.Scrub == "" || weekday(u.Scrub) >= 0, `upkeep.scrub is no day like "sunday", and not empty`},
		{u.BootTest == "" || validBootWindow(u.BootTest),
			`upkeep.boot-test is no window like "20:00-06:00" or "sat,sun 00:00-24:00", not "always", and not empty`},
		{min(u.KeepLast, u.KeepDaily, u.KeepWeekly, u.KeepMonthly) >= 0, "a number of backups to keep is negative"},
	} {
		if !k.ok {
			return errors.New(k.text)
		}
	}
	if err := c.DHCP.check(c.TFTP != ""); err != nil {
		return err
	}
	if err := c.Room.check(); err != nil {
		return err
	}
	if len(c.Hooks) > maxHooks {
		return fmt.Errorf("there are %d hooks, and may be at most %d", len(c.Hooks), maxHooks)
	}
	for i := range c.Hooks {
		if err := c.Hooks[i].check(); err != nil {
			return err
		}
	}
	if _, err := c.Plans(); err != nil {
		return err
	}
	if _, err := c.parsePowers(); err != nil {
		return err
	}
	return c.checkEnrol()
}

func (c *Config) checkEnrol() error {
	if len(c.Enrol) > maxRules {
		return fmt.Errorf("there are %d rules of enrol, and may be at most %d", len(c.Enrol), maxRules)
	}
	for _, r := range c.Enrol {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

const maxHooks = 16

// Plans are the schedules, by their names.
func (c *Config) Plans() (all []*schedule.Plan, err error) {
	if len(c.Schedules) > schedule.Max {
		return nil, fmt.Errorf("there are %d schedules, and may be at most %d", len(c.Schedules), schedule.Max)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Schedules)) {
		k := c.Schedules[name]
		p, err := schedule.New(name, schedule.Config{When: k.When, Zone: k.Zone, Window: k.Window, Spread: time.Duration(k.Spread),
			Late: time.Duration(k.Late), Action: box.Action(k.Action), Boxes: k.Boxes})
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func within(d Duration, least, most time.Duration) bool {
	return time.Duration(d) >= least && time.Duration(d) <= most
}

// validListen reports whether s is an address, or nothing, and a fixed port.
func validListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n > 0 && (host == "" || net.ParseIP(host) != nil)
}

func validBootWindow(s string) bool {
	_, err := bootWindows(s)
	return err == nil
}

// weekday returns the number of a day of the week, and -1 for any other text.
func weekday(s string) time.Weekday {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(s, d.String()) {
			return d
		}
	}
	return -1
}

// Served is where boxes will be told to ask, if the server can open its ports.
func (c *Config) Served() arming.Served {
	return arming.Served{Agents: portIn(c.Agents), HTTP: portIn(c.HTTP), NoHTTP: errNoHTTP}
}

// portIn is the port of an address as validListen takes it, and 0 of an empty text.
func portIn(s string) uint16 {
	_, port, _ := net.SplitHostPort(s)
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// StoreDir is the folder of the store.
func (c *Config) StoreDir() string {
	if c.Store != "" {
		return c.Store
	}
	return filepath.Join(c.State, "store")
}

// LedgerFile is the ledger.
func (c *Config) LedgerFile() string { return filepath.Join(c.State, "ledger.db") }

// LedgerCopy is the copy of the ledger that upkeep makes each day.
func (c *Config) LedgerCopy() string { return filepath.Join(c.State, "ledger-copy.db") }

// HooksFile has what the web hooks were told.
func (c *Config) HooksFile() string { return filepath.Join(c.State, "hooks.json") }

// KeyDir is the folder of keys and certificates.
func (c *Config) KeyDir() string { return filepath.Join(c.State, "tls") }

// TFTPDir is the area that boxes read by TFTP.
func (c *Config) TFTPDir() string { return filepath.Join(c.State, bootcfg.TFTPArea) }

// LeaseFile is the file with the addresses that our DHCP server has given.
func (c *Config) LeaseFile() string { return filepath.Join(c.State, "dhcp-leases") }

// BootDir is the folder of boot files.
func (c *Config) BootDir() string { return filepath.Join(c.TFTPDir(), bootcfg.ConfigDir) }

// BoxesDir is the area with a folder for each box, which has its logs and its
// inventory.
func (c *Config) BoxesDir() string { return filepath.Join(c.State, bootcfg.BackupArea) }

// Site is what holds for boxes of which nothing else is set.
func (c *Config) Site() setting.Site {
	u := c.Upkeep
	off, _ := networks(c.Room.Off) // check has parsed them
	return setting.Site{Power: c.Jobs.Power, Powers: slices.Sorted(maps.Keys(c.Power)), NoPeers: !c.Room.Peers, PeersOff: off,
		Keep: setting.Keep{Last: u.KeepLast, Daily: u.KeepDaily, Weekly: u.KeepWeekly, Monthly: u.KeepMonthly}}
}

// CheckConfig returns an error if a configuration could not be read again.
func CheckConfig(c *Config) error {
	if err := c.check(); err != nil {
		return problem.Wrongf("%w", err)
	}
	return nil
}

// ConfigText is the text of a configuration file, with what each key means.
func ConfigText(c *Config) []byte {
	text := func(v any) string {
		b, err := toml.Marshal(map[string]any{"v": v})
		if err != nil {
			panic(err) // the values are plain
		}
		return strings.TrimSpace(strings.TrimPrefix(string(b), "v = "))
	}
	var b bytes.Buffer
	line := func(key string, v any, help string) { fmt.Fprintf(&b, "# %s\n%s = %s\n\n", help, key, text(v)) }
	b.WriteString("# The configuration of `testbox server`. `testbox server --check` says whether it is right.\n" +
		"# What boxes boot is in site.conf, in the folder of boot files.\n\n")
	line("state", c.State, "The folder with everything: areas, store, ledger, keys.")
	line("store", c.Store, "The folder of the store, if it is not \"store\" in the state folder.")
	line("agents", c.Agents, "Address and port for the agents of boxes. Boxes reach it at the address in site.conf.")
	line("api", c.API, "Address and port for admins and their programs, by HTTPS and with tokens; \"\" for none.")
	line("socket", c.Socket, "Unix socket for root and the group testbox on this machine.")
	line("tftp", c.TFTP, "Address and port at which boxes get boot files by TFTP; \"\" if another TFTP server gives them out.")
	line("http", c.HTTP, "Address and port at which boxes get the same files by HTTP; a rescue needs that. \"\" for none.")
	line("boxes", c.Boxes, "How many boxes may be at work at once; 0 for any number.")
	c.DHCP.text(&b, line, text)
	b.WriteString("[jobs]\n")
	line("attempts", c.Jobs.Attempts, "How often a job is tried.")
	line("start", c.Jobs.Start, "How long a box may take to start maintenance, before its job expires.")
	line("silence", c.Jobs.Silence, "After how much silence a box counts as lost, and its job is tried again.")
	line("up", c.Jobs.Up, "How long a box may take to start its own system, where that is waited for.")
	line("probe", c.Jobs.Probe, "What shows that it is up: \"ping\", or a port that answers, like \"tcp:22\"; \"\" for none.")
	line("power", c.Jobs.Power, "The power command that restarts boxes, by its name below; \"\" for none. Groups and boxes may say otherwise.")
	line("power-at-once", c.Jobs.PowerAtOnce, "How many boxes may be starting at once after their power command; 0 for any number.")
	c.Room.text(&b, line)
	b.WriteString("[upkeep]\n")
	line("at", c.Upkeep.At, "When the server looks after its store and ledger each day; \"\" for never. It goes slowly while a box restores.")
	line("scrub", c.Upkeep.Scrub, "The day of the week on which all of the store is read and checked; \"\" for never.")
	line("boot-test", c.Upkeep.BootTest, "When the latest backup of each box may be started in a virtual machine, to see whether it boots,\n"+
		"# like \"20:00-06:00\" or \"always\"; \"\" for never. It needs the package qemu-system-x86.")
	for _, k := range []struct {
		key, help string
		n         int
	}{
		{"keep-last", "How many backups of each box are kept: the newest. With 0 in all four lines, all are kept.", c.Upkeep.KeepLast},
		{"keep-daily", "And the newest of so many days,", c.Upkeep.KeepDaily},
		{"keep-weekly", "of so many weeks,", c.Upkeep.KeepWeekly},
		{"keep-monthly", "and of so many months. Groups and boxes may say otherwise. Pinned backups and baselines stay.", c.Upkeep.KeepMonthly},
	} {
		line(k.key, k.n, k.help)
	}
	b.WriteString(`# Who is told of each job that has ended, by a signed request (standardwebhooks.com). The file has
# the secret: whsec_ and 24 to 64 bytes in base64, as from
# echo whsec_$(openssl rand -base64 32)
# While a secret is changed it may have both, each in a line of its own.
`)
	if len(c.Hooks) == 0 {
		b.WriteString("# [[hooks]]\n# url = \"https://ci.example/hook\"\n# secret-file = \"/etc/testbox/hook.secret\"\n")
	}
	for _, h := range c.Hooks {
		fmt.Fprintf(&b, "[[hooks]]\nurl = %s\nsecret-file = %s\n\n", text(h.URL), text(h.SecretFile))
	}
	b.WriteString(`
# Which machines become boxes by themselves when they ask for their boot files, by subnet, by the
# beginning of the MAC, or both. They are put into the groups, and not more than "most" into each
# (0 means 250). Nothing is armed by that.
`)
	if len(c.Enrol) == 0 {
		b.WriteString("# [[enrol]]\n# subnet = \"10.40.41.0/24\"\n# mac = \"52:54:00\"\n# groups = [\"rack3\"]\n# most = 0\n")
	}
	for _, r := range c.Enrol {
		fmt.Fprintf(&b, "[[enrol]]\nsubnet = %s\nmac = %s\ngroups = %s\nmost = %s\n\n", text(r.Subnet), text(r.MAC), text(r.Groups), text(r.Most))
	}
	b.WriteString("\n# What is done again and again to boxes, groups and labels. The guide says what else a schedule can have.\n")
	if len(c.Schedules) == 0 {
		b.WriteString("# [schedules.nightly]\n# when = \"30 2 * * *\"\n# boxes = [\"group:rack3\"]\n# action = \"backup\"\n")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Schedules)) {
		k := c.Schedules[name]
		fmt.Fprintf(&b, "[schedules.%s]\nwhen = %s\nboxes = %s\naction = %s\n", text(name), text(k.When), text(k.Boxes), text(k.Action))
		if k.Zone != "" {
			fmt.Fprintf(&b, "zone = %s\n", text(k.Zone))
		}
		if len(k.Window) > 0 {
			fmt.Fprintf(&b, "window = %s\n", text(k.Window))
		}
		if k.Spread != 0 {
			fmt.Fprintf(&b, "spread = %s\n", text(k.Spread))
		}
		if k.Late != 0 {
			fmt.Fprintf(&b, "late = %s\n", text(k.Late))
		}
		b.WriteString("\n")
	}
	b.WriteString(c.powerText(text))
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`) // what TOML takes for a key without quotes

// powerText is the part of a configuration file with the power commands.
func (c *Config) powerText(text func(any) string) string {
	key := func(s string) string {
		if bareKey.MatchString(s) {
			return s
		}
		return text(s)
	}
	var b strings.Builder
	b.WriteString("\n# Commands that switch boxes on and off, each with a name of its own. docs/guide.md says what they can be.\n")
	if len(c.Power) == 0 {
		b.WriteString("# [power.bmc]\n# template = \"ipmitool\"\n")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Power)) {
		p := c.Power[name]
		fmt.Fprintf(&b, "[power.%s]\n", key(name))
		for _, k := range []struct{ key, value string }{{"template", p.Template}, {"command", p.Command}, {"broadcast", p.Broadcast},
			{"password-file", p.PasswordFile}} {
			if k.value != "" {
				fmt.Fprintf(&b, "%s = %s\n", k.key, text(k.value))
			}
		}
		if p.Timeout != 0 {
			fmt.Fprintf(&b, "timeout = %s\n", text(p.Timeout))
		}
		for _, m := range []struct {
			key    string
			values map[string]string
		}{{"actions", p.Actions}, {"env", p.Env}, {"env-files", p.EnvFiles}} {
			var pairs []string
			for _, k := range slices.Sorted(maps.Keys(m.values)) {
				pairs = append(pairs, key(k)+" = "+text(m.values[k]))
			}
			if m.values != nil {
				fmt.Fprintf(&b, "%s = { %s }\n", m.key, strings.Join(pairs, ", "))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
