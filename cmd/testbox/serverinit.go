package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/server"
	"testbox-imaging/internal/sharesetup"
	"testbox-imaging/internal/store"
)

// serverInit are the options of `testbox server init`.
type serverInit struct {
	address, state, file, user string
	base                       *server.Config // of a configuration that is made; nil is the default
}

func newServerInitCmd(w world) *cobra.Command {
	var o serverInit
	cmd := &cobra.Command{
		Use:   "init --address IP",
		Short: "Make what a server needs: areas, store, configuration",
		Long: `Makes the state folder of a server, and its configuration. The state folder has
  testbox-tftp     the loader's files and the boot files of boxes, which they get by TFTP
                   and HTTP
  testbox-backup   the logs and the inventory of each box
  store            the backups
and later the server's ledger and its keys. Run again, it repairs, and keeps what is there.

The loader's files are those of Debian: apt-get install pxelinux syslinux-common syslinux-efi`,
		Example: `  testbox server init --address 10.42.1.1
  testbox server init --address 10.42.1.1 --state /srv/testbox --user testbox`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServerInit(cmd.Context(), printerOf(cmd), w, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.address, "address", "", "`IP`v4 address of this server, as the boxes reach it; needed the first time")
	f.StringVar(&o.state, "state", "", "the state `FOLDER` (default "+server.DefaultConfig().State+", or as the configuration says)")
	f.StringVar(&o.file, "config", server.DefaultFile, "the configuration `FILE`; it is made if it is not there")
	f.StringVar(&o.user, "user", "", "the `USER` as whom the server runs (default: the user testbox if there is one, else root)")
	mustComplete(cmd.MarkFlagDirname("state"))
	mustComplete(cmd.MarkFlagFilename("config", "toml"))
	return cmd
}

func runServerInit(ctx context.Context, p printer, w world, o serverInit) error {
	plan, _, err := o.make(ctx, p, w)
	if err != nil {
		return err
	}
	p.printf("next:\n  read %s and %s\n  build what boxes boot: %s\n"+
		"  have your DHCP server name this machine (next-server) and pxelinux.0 (filename; shimx64.efi for UEFI), or let the server "+
		"do it: [dhcp] in %s\n  run `testbox server`\n",
		o.file, plan.Boot.Path("site.conf"), plan.Boot.BuildCommand("--form ram"), o.file)
	return nil
}

// make makes what is missing, repairs what is damaged, and says whether there was
// anything to do.
func (o serverInit) make(ctx context.Context, p printer, w world) (plan *sharesetup.Plan, changed bool, err error) {
	cfg, made, err := o.config()
	if err != nil {
		return nil, false, err
	}
	uid, gid, err := o.owner()
	if err != nil {
		return nil, false, err
	}
	if plan, err = o.areas(w, cfg, uid, gid); err != nil {
		return nil, false, err
	}
	result, err := plan.Make(func(c sharesetup.Change) {
		if !c.Many {
			p.printf("%s\n", c)
		}
	})
	if err != nil {
		return plan, true, fmt.Errorf("%w; run it again when the cause is gone", err)
	}
	p.printf("%s: %d made, %d repaired, %d as they should be\n", plan.Dir, result.Made, result.Repaired, result.Right)
	storeMade, err := makeStore(ctx, p, cfg.StoreDir())
	if err != nil {
		return plan, true, err
	}
	if uid > 0 {
		if err := giveTo(uid, gid, cfg); err != nil {
			return plan, true, err
		}
	}
	if made {
		if err := writeConfig(o.file, cfg); err != nil {
			return plan, true, err
		}
		p.printf("%s: made\n", o.file)
	}
	warnings, err := plan.LookOver()
	for _, warning := range warnings {
		p.warnf("%s", warning)
	}
	if err != nil {
		return plan, true, &exitError{exitFailed, err} // a part is done, so this is no refusal
	}
	return plan, made || storeMade || result.Made+result.Repaired > 0, nil
}

// config reads the configuration, or makes the first one.
func (o serverInit) config() (cfg *server.Config, made bool, err error) {
	if _, err := os.Lstat(o.file); errors.Is(err, fs.ErrNotExist) {
		c := server.DefaultConfig()
		if o.base != nil {
			c = *o.base
		}
		if o.state != "" {
			if c.State, err = filepath.Abs(o.state); err != nil {
				return nil, false, err
			}
		}
		return &c, true, server.CheckConfig(&c)
	}
	cfg, err = server.ReadConfig(o.file)
	if err == nil && o.state != "" && filepath.Clean(o.state) != cfg.State {
		err = wrong("%s says that the state folder is %s, and --state says %s; change the file or leave --state out", o.file, cfg.State, o.state)
	}
	return cfg, false, err
}

// owner finds the user as whom the server will run. Both ids are 0 for root.
func (o serverInit) owner() (uid, gid int, err error) {
	name := o.user
	if name == "" {
		name = "testbox"
	}
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) && o.user == "" {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, wrong("--user: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// nobody owns the areas of a server that runs as root, as in share mode.
const nobody = 65534

func (o serverInit) areas(w world, cfg *server.Config, uid, gid int) (*sharesetup.Plan, error) {
	s := sharesetup.Options{Dir: cfg.State, Server: o.address, Clients: "*", UID: uid, GID: gid, KeepAnon: uid == 0, Loaders: w.loaders,
		Flag: "--address", Served: true}
	if uid == 0 {
		s.UID, s.GID = nobody, nobody
	}
	var err error
	if s.Program, err = w.executable(); err != nil {
		return nil, err
	}
	if o.address == "" {
		if _, err := os.Stat(filepath.Join(cfg.BootDir(), "site.conf")); errors.Is(err, fs.ErrNotExist) {
			return nil, wrong("--address is missing: the IPv4 address of this server, as the boxes reach it")
		}
	}
	return sharesetup.New(s)
}

// makeStore makes the store, and says whether it was not there.
func makeStore(ctx context.Context, p printer, dir string) (made bool, err error) {
	if r, err := readRemote(dir); err != nil || r != nil {
		return false, err // it is in object storage, and was made by `testbox store init --s3`
	}
	err = store.InitDir(ctx, dir)
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	if err == nil {
		p.printf("%s: made\n", dir)
	}
	return err == nil, err
}

// giveTo gives what the server itself writes to the user as whom it runs: the state
// folder, the store, the keys, and the ledger with its copy. They may be there from a
// time when the server ran as root. Links are not followed. The areas have owners of
// their own.
func giveTo(uid, gid int, cfg *server.Config) error {
	own := func(path string) error { return os.Lchown(path, uid, gid) }
	for _, path := range []string{cfg.State, filepath.Join(cfg.State, bootcfg.TFTPArea)} {
		if err := own(path); err != nil {
			return err
		}
	}
	trees := []string{cfg.StoreDir(), cfg.KeyDir()}
	entries, err := os.ReadDir(cfg.State)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(cfg.State, e.Name())
		if strings.HasPrefix(path, cfg.LedgerFile()) || strings.HasPrefix(path, cfg.LedgerCopy()) ||
			strings.HasPrefix(path, cfg.LeaseFile()) {
			trees = append(trees, path)
		}
	}
	for _, tree := range trees {
		err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return own(path)
		})
		// There are no keys before the first start, and a server that runs removes files
		// beside its ledger.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func writeConfig(file string, cfg *server.Config) error {
	if err := (durable.OS{}).MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, file, server.ConfigText(cfg), 0o644)
}
