package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/server"
	"testbox-imaging/internal/setup"
	"testbox-imaging/internal/site"
	"testbox-imaging/internal/tftp"
	"testbox-imaging/internal/wire"
	"testbox-imaging/internal/words"
)

type setupOptions struct {
	wish setup.Wish
	file string
	show bool
}

func newSetupCmd(w world) *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Set this machine up as the storage server, and say where it stands",
		Long: `Leads from the installed program to a server that is ready for its first box. It finds out the address
by which boxes reach this machine, other DHCP servers, ports that are in use, and the room that there is. It
makes the configuration and the state folder, builds what boxes boot, starts the server, makes the first
admin, and asks the server as a box would. It asks nothing, and says of each thing what it chose and how to
choose otherwise.

Run again, it repairs what is missing or damaged. The configuration, site.conf, keys, users and tokens that
are there stay as they are. If something is missing at the end, it says what, and the exit code is 1.`,
		Example: `  testbox setup --show
  testbox setup
  testbox setup --address 10.42.1.1 --dhcp full --state /srv/testbox`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSetup(cmd.Context(), printerOf(cmd), w, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.wish.Address, "address", "", "the `IP`v4 address by which boxes reach this machine")
	f.StringVar(&o.wish.Card, "interface", "", "the network `CARD` in the boxes' network")
	f.StringVar(&o.wish.State, "state", "", "the state `FOLDER` (default "+server.DefaultConfig().State+")")
	f.StringVar(&o.wish.DHCP, "dhcp", "", "`WHO` tells boxes their boot server: proxy (ours, beside another DHCP server), full (ours, "+
		"which gives the addresses too) or none (another one)")
	f.StringVar(&o.file, "config", server.DefaultFile, "the configuration `FILE`; it is made if it is not there")
	f.BoolVar(&o.show, "show", false, "only say what would be chosen; nothing is changed")
	mustComplete(cmd.MarkFlagDirname("state"))
	mustComplete(cmd.MarkFlagFilename("config", "toml"))
	mustComplete(cmd.RegisterFlagCompletionFunc("dhcp",
		cobra.FixedCompletions([]string{"proxy", "full", "none"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// setupRun is a setup that is under way.
type setupRun struct {
	setupOptions
	p       printer
	w       world
	plan    *setup.Plan
	facts   *setup.Facts
	missing []string
}

// say says how one thing stands.
func (r *setupRun) say(kind setup.Kind, what, format string, args ...any) {
	lines := strings.Split(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	r.p.printf("[%s] %s: %s\n", kind, what, strings.Join(lines, "\n    "))
	if kind == setup.Wrong {
		r.missing = append(r.missing, what)
	}
}

const doneNow setup.Kind = "done"

func runSetup(ctx context.Context, p printer, w world, o setupOptions) error {
	syscall.Umask(0o022) // boxes must be able to read what is made
	if !o.show && os.Geteuid() != 0 {
		return wrong("only root can set a server up; run: sudo testbox setup. `testbox setup --show` says what it would do")
	}
	r := &setupRun{setupOptions: o, p: p, w: w}
	given, err := r.look(ctx)
	if err != nil {
		return err
	}
	if r.plan, err = setup.Make(r.facts, r.wish, given); err != nil {
		return err
	}
	for _, n := range r.plan.Notes {
		r.say(n.Kind, n.What, "%s", n.Text)
		if n.Else != "" && n.Kind != setup.Right {
			p.printf("    To choose otherwise: %s.\n", n.Else)
		}
	}
	if o.show {
		p.printf("Nothing was changed.\n")
		return r.end()
	}
	r.make(ctx)
	if ctx.Err() == nil && isFolder(r.plan.Config.TFTPDir()) {
		r.build(ctx)
	}
	// Without a configuration the server would take another one, or none.
	if _, err := os.Stat(r.file); err == nil && ctx.Err() == nil && r.start(ctx, given.Runs) {
		r.admin(ctx)
		r.ask(ctx)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("setup is not finished, run it again: %w", err)
	}
	return r.end()
}

// look collects what is known before anything is decided.
func (r *setupRun) look(ctx context.Context) (given setup.Given, err error) {
	given.File = r.file
	cfg := server.DefaultConfig()
	if r.wish.State != "" {
		if r.wish.State, err = filepath.Abs(r.wish.State); err != nil {
			return given, err
		}
		cfg.State = r.wish.State
	}
	if _, err := os.Lstat(r.file); !errors.Is(err, fs.ErrNotExist) {
		if given.Config, err = server.ReadConfig(r.file); err != nil {
			return given, err
		}
		if r.wish.State != "" && r.wish.State != given.Config.State {
			return given, wrong("%s says that the state folder is %s, and --state says %s; change the file or leave --state out", r.file,
				given.Config.State, r.wish.State)
		}
		cfg = *given.Config
	}
	s, err := site.Read(durable.OS{}, cfg.BootDir())
	switch {
	case err == nil:
		given.Server = s.Server
	case !errors.Is(err, fs.ErrNotExist):
		return given, err
	}
	_, err = r.status(ctx, cfg.Socket)
	given.Runs = err == nil
	if r.facts, err = setup.Gather(setup.Places{State: cfg.State, Loaders: r.w.loaders, Proc: "/proc"}); err != nil {
		return given, err
	}
	if len(r.facts.Addresses) == 0 {
		r.facts.NoDHCP = errors.New("no card has an IPv4 address")
	} else if cfg.DHCP.Mode == "" && os.Geteuid() == 0 {
		r.p.tellf("Looking for other DHCP servers, which takes 5 seconds.")
		r.facts.AskDHCP(ctx)
	} else {
		r.facts.NoDHCP = errors.New("they were not asked")
	}
	return given, ctx.Err()
}

// make makes the areas, the store and the configuration.
func (r *setupRun) make(ctx context.Context) {
	const what = "state folder and configuration"
	o := serverInit{address: r.plan.Address.Prefix.Addr().String(), file: r.file, base: &r.plan.Config}
	quiet := r.p
	quiet.out = io.Discard
	_, changed, err := o.make(ctx, quiet, r.w)
	switch {
	case errors.Is(err, syscall.EROFS):
		r.say(setup.Wrong, what, "%v. Make that place writable, or choose others by --config FILE and --state FOLDER.", err)
	case err != nil:
		r.say(setup.Wrong, what, "%v", err)
	case changed:
		r.say(doneNow, what, "%s and %s are made or repaired.", r.plan.Config.State, r.file)
	default:
		r.say(setup.Right, what, "%s and %s are as they should be.", r.plan.Config.State, r.file)
	}
}

// build builds what boxes boot, if it is not there or older than the agent's program.
func (r *setupRun) build(ctx context.Context) {
	const what = "maintenance system"
	agent, err := agentBeside()
	var newer time.Time
	if err == nil {
		newer, err = putThere(agent)
	}
	boot := bootOf(r.plan.Config.TFTPDir())
	have := ""
	if whole, _, listErr := boot.Versions(); listErr == nil {
		for _, v := range whole {
			if v.Form != bootcfg.FormRAM {
				continue
			}
			if have = v.Version; err == nil && v.Built.After(newer) {
				r.say(setup.Right, what, "%s was built after the agent's program was put here.", v.Version)
				r.uefi(nil)
				return
			}
			break
		}
	}
	if err != nil {
		r.say(setup.Wrong, what, "The agent's program is not beside this one (%v). Put testbox-maintenance there.", err)
		return
	}
	r.p.tellf("Building what boxes boot, which takes some minutes the first time.")
	o := buildOptions{form: string(bootcfg.FormRAM), agent: agent}
	build, err := o.build(r.p, r.plan.Config.State)
	if err == nil {
		result, buildErr := build(ctx)
		if err = buildErr; err == nil {
			err = boot.OpenVersion(&result.Version)
		}
		if err == nil {
			kind := doneNow
			if result.Existed {
				kind = setup.Right
			}
			r.say(kind, what, "%s is there, with kernel %s.", result.Version.Version, result.Version.Kernel)
			r.uefi(result.Notes)
			return
		}
	}
	text := fmt.Sprintf("It could not be built: %v. The command is testbox maintenance build --form ram %s", err, r.plan.Config.State)
	if have != "" {
		text += ". Boxes go on with " + have
	}
	r.say(setup.Wrong, what, "%s.", text)
}

// uefi says which loaders there are for UEFI machines, and what a build had to say.
func (r *setupRun) uefi(notes []string) {
	const what = "UEFI"
	for _, n := range notes {
		r.say(setup.Hint, "build", "%s.", n)
	}
	for _, k := range loaders.Kinds {
		switch pair, err := loaders.Read(durable.OS{}, r.plan.Config.TFTPDir(), k); {
		case err == nil:
			r.say(setup.Right, what, "%v.", pair)
		case !errors.Is(err, fs.ErrNotExist):
			r.say(setup.Wrong, what, "%v. `testbox maintenance build %s` puts other loaders there.", err, r.plan.Config.State)
		case k == loaders.X64:
			r.say(setup.Hint, what, "There are no loaders for UEFI machines, so only boxes with BIOS can be imaged. "+
				"`testbox maintenance build %s` gets them, from Debian's packages.", r.plan.Config.State)
		}
	}
}

// putThere is when a file was put where it is. Packages and copies keep an older time of the content.
func putThere(path string) (time.Time, error) {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	at := st.ModTime()
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		if changed := time.Unix(s.Ctim.Unix()); changed.After(at) {
			at = changed
		}
	}
	return at, nil
}

const unitFile = "/etc/systemd/system/testbox.service"

// unit is for a program that came without packages.
func unit(program, config, user string) []byte {
	rights := ""
	if user != "" {
		rights = "User=" + user + "\nAmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW\n"
	}
	return []byte(`# Made by "testbox setup", which does not change it any more.
[Unit]
Description=Testbox Imaging server
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart=` + program + " server --config " + config + "\n" + rights + `RuntimeDirectory=testbox
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
`)
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %.500s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// start starts the service, and waits until the server answers.
func (r *setupRun) start(ctx context.Context, runs bool) bool {
	const what = "server"
	command := "testbox server"
	if r.file != server.DefaultFile {
		command += " --config " + r.file
	}
	if !r.facts.Systemd {
		if !runs {
			r.say(setup.Wrong, what, "It does not run, and there is no systemd to start it. Run `%s &`, and then `testbox setup` again.", command)
			return false
		}
		r.say(setup.Right, what, "It runs. There is no systemd, so it has to be started after each start of this machine: %s", command)
		return true
	}
	if err := r.service(ctx); err != nil {
		r.say(setup.Wrong, "service", "%v. See: journalctl -u testbox", err)
	}
	if runs {
		r.say(setup.Right, what, "It runs.")
		return true
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := r.status(ctx, r.plan.Config.Socket); err == nil {
			r.say(doneNow, what, "It is started and answers.")
			return true
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	r.say(setup.Wrong, what, "It does not answer at %s. See: systemctl status testbox, and journalctl -u testbox", r.plan.Config.Socket)
	return false
}

// service enables and starts the unit. It makes one if no package brought it.
func (r *setupRun) service(ctx context.Context) error {
	const name = "testbox.service"
	if systemctl(ctx, "cat", name) != nil {
		program, err := r.w.executable()
		if err != nil {
			return err
		}
		user := ""
		if uid, _, err := (serverInit{}).owner(); err == nil && uid > 0 {
			user = "testbox"
		}
		if err := durable.WriteFile(durable.OS{}, unitFile, unit(program, r.file, user), 0o644); err != nil {
			return err
		}
		if err := systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
		r.say(doneNow, "service", "%s is made, since no package brought it.", unitFile)
	}
	if systemctl(ctx, "is-enabled", "--quiet", name) == nil && systemctl(ctx, "is-active", "--quiet", name) == nil {
		r.say(setup.Right, "service", "%s is enabled and runs.", name)
		return nil
	}
	if err := systemctl(ctx, "enable", "--now", name); err != nil {
		return err
	}
	r.say(doneNow, "service", "%s is enabled and started.", name)
	return nil
}

// client asks the server of this machine.
func (r *setupRun) client(socket string, do func(*apiclient.Client) error) error {
	c, err := apiclient.New(apiclient.Config{Server: socket, Away: 2 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func (r *setupRun) status(ctx context.Context, socket string) (st api.ServerStatus, err error) {
	if _, err := os.Stat(socket); err != nil {
		return st, err
	}
	err = r.client(socket, func(c *apiclient.Client) error { return c.Do(ctx, "GET", apiclient.Path("status"), nil, &st) })
	return st, err
}

const adminName = "admin"

// admin makes the first admin, if there is none who can come in from elsewhere.
func (r *setupRun) admin(ctx context.Context) {
	const what = "admin"
	const another = "Another token: testbox token add NAME --user admin --role admin"
	err := r.client(r.plan.Config.Socket, func(c *apiclient.Client) error {
		var users []api.User
		var tokens []api.Token
		if err := c.Do(ctx, "GET", apiclient.Path("users"), nil, &users); err != nil {
			return err
		}
		if err := c.Do(ctx, "GET", apiclient.Path("tokens"), nil, &tokens); err != nil {
			return err
		}
		now := r.w.now()
		if slices.ContainsFunc(tokens, func(t api.Token) bool {
			return t.Role == ledger.Admin && t.Group == "" && (t.Expires.IsZero() || t.Expires.After(now))
		}) {
			r.say(setup.Right, what, "There is one with a token. %s", another)
			return nil
		}
		if !slices.ContainsFunc(users, func(u api.User) bool { return u.Name == adminName }) {
			q := api.SetUser{Role: string(ledger.Admin), Why: "the first admin, by testbox setup"}
			if err := c.Do(ctx, "PUT", apiclient.Path("users", adminName), q, nil); err != nil {
				return err
			}
		}
		var t api.Token
		q := api.NewToken{Name: "setup", User: adminName, Role: string(ledger.Admin), Why: "the first token, by testbox setup"}
		if err := c.Do(ctx, "POST", apiclient.Path("tokens"), q, &t); err != nil {
			return err
		}
		r.say(doneNow, what, "The user %s has this token, which is not said again. Give it where the server's page or `testbox login` "+
			"asks for one.",
			adminName)
		r.p.printf("    %s\n    %s.\n", t.Secret, another)
		return nil
	})
	if err != nil {
		r.say(setup.Wrong, what, "%v", err)
	}
}

// ask asks the server as a box would, and as an admin elsewhere.
func (r *setupRun) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, at := &r.plan.Config, r.plan.Address.Prefix.Addr()
	names := []string{bootcfg.LoaderName, bootcfg.ConfigDir + "/" + bootcfg.DefaultName}
	if _, err := loaders.Read(durable.OS{}, c.TFTPDir(), loaders.X64); err == nil {
		names = append(names, loaders.X64.Shim, loaders.X64.GRUB)
	}
	for _, name := range names {
		got, err := tftp.Get(ctx, netip.AddrPortFrom(at, 69), name, loaders.MaxSize)
		if err == nil {
			want, readErr := os.ReadFile(filepath.Join(c.TFTPDir(), name))
			if err = readErr; err == nil && !bytes.Equal(want, got) {
				err = fmt.Errorf("the server at %v gives another file than %s", at, filepath.Join(c.TFTPDir(), name))
			}
		}
		r.checked("TFTP "+name, "It was read from the server as a box reads it.", err)
	}
	r.checked("agents", "The server answers where boxes say hello.", func() error {
		is, err := apiclient.KeyOf(ctx, "https://"+netip.AddrPortFrom(at, c.Served().Agents).String())
		if err != nil {
			return err
		}
		want, err := server.KeyPrint(c.KeyDir(), "agents")
		if err == nil && is != want {
			err = errors.New("another server answers there, since it has another key")
		}
		return err
	}())
	if port := c.Served().HTTP; port != 0 {
		err := getOK(ctx, fmt.Sprintf("http://%v/%s/%s", netip.AddrPortFrom(at, port), bootcfg.ConfigDir, bootcfg.DefaultName))
		if err != nil {
			r.say(setup.Hint, "HTTP for boxes", "%v. All but a rescue works without.", err)
		}
	}
	st, err := r.status(ctx, c.Socket)
	if err != nil {
		r.say(setup.Wrong, "status", "%v", err)
	}
	for _, part := range st.Parts {
		for _, m := range part.Missing {
			kind := setup.Wrong
			if part.Name == "HTTP for boxes" || part.Name == "wait=up" {
				kind = setup.Hint
			}
			r.say(kind, part.Name, "%s", m)
		}
	}
	if c.API != "" {
		r.page(ctx, at)
	}
}

func (r *setupRun) page(ctx context.Context, at netip.Addr) {
	_, port, _ := strings.Cut(r.plan.Config.API[strings.LastIndexByte(r.plan.Config.API, ':'):], ":")
	base := fmt.Sprintf("https://%v:%s", at, port)
	var want wire.Fingerprint
	key, err := apiclient.KeyOf(ctx, base)
	if err == nil {
		if want, err = server.KeyPrint(r.plan.Config.KeyDir(), "api"); err == nil && key != want {
			err = errors.New("another server answers there, since it has another key")
		}
	}
	if err == nil {
		err = apiclient.Speaks(ctx, base, key)
	}
	r.checked("page", fmt.Sprintf("%s/ answers. Its certificate has the key %v.", base, key), err)
}

func getOK(ctx context.Context, url string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is answered by %s", url, a.Status)
	}
	return nil
}

func (r *setupRun) checked(what, text string, err error) {
	if err != nil {
		r.say(setup.Wrong, what, "%v", err)
		return
	}
	r.say(setup.Right, what, "%s", text)
}

// end says where it all stands.
func (r *setupRun) end() error {
	if r.plan.Config.DHCP.Mode == "" && !r.plan.Named {
		r.p.printf("\n%s", r.plan.DHCPLines())
	}
	if n := len(r.missing); n > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s missing: %s. When that is done, run `testbox setup` again",
			words.Count(n, "thing is", "things are"), strings.Join(r.missing, ", "))}
	}
	if r.show {
		return nil
	}
	r.p.printf("\nThe server is ready. The first backup, with the address of a box:\n  testbox backup 10.40.41.42 --wait\n")
	return nil
}
