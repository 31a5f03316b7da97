package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/server"
)

func newServerCmd(w world) *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Be the storage server: give out jobs, take backups, restore boxes",
		Long: `Is the storage server as one process, until it is told to end (SIGTERM or Ctrl-C). It keeps the
backups of boxes in a store, gives them out again, and knows of each box what it is to do. Boxes
that are at work when it ends go on when it is started again.

The configuration is ` + server.DefaultFile + `, which ` + "`testbox server init`" + ` makes. Keys that are not
there have the values that init writes. A key that the server does not know is an error.

Two servers cannot work on one state folder: the second one refuses.`,
		Example: `  testbox server
  testbox server --check
  testbox server --config /srv/lab/server.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.ReadConfig(file)
			if err != nil {
				return err
			}
			if check {
				return checkServer(cmd.Context(), printerOf(cmd), w, file, cfg)
			}
			return runServer(cmd.Context(), printerOf(cmd), w, cfg)
		},
	}
	cmd.Flags().StringVar(&file, "config", server.DefaultFile, "the configuration `FILE`")
	cmd.Flags().BoolVar(&check, "check", false, "only say whether the configuration and the state folder are right; nothing is changed")
	mustComplete(cmd.MarkFlagFilename("config", "toml"))
	cmd.AddCommand(newServerInitCmd(w), newServerRecoverCmd(), newServerStatusCmd(w))
	return cmd
}

// checkServer says how a server would find its configuration and its state folder.
func checkServer(ctx context.Context, p printer, w world, file string, cfg *server.Config) error {
	p.printf("%s: nothing is wrong with it\n", file)
	all := server.Look(ctx, cfg, func(a box.Action) error {
		place, err := w.place(cfg.BootDir())
		if err != nil {
			return err
		}
		return place.Ready(a, cfg.Served())
	})
	for _, f := range all {
		if f.Err == nil {
			p.printf("%s: %s\n", f.What, f.Text)
		}
	}
	return server.Wrong(all)
}

func runServer(ctx context.Context, p printer, w world, cfg *server.Config) (err error) {
	log := slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{ReplaceAttr: logAttr}))
	place, err := w.place(cfg.BootDir())
	if err != nil {
		return fmt.Errorf("%w; `testbox server init` makes what the state folder %s lacks", err, cfg.State)
	}
	s, err := openStore(ctx, p, cfg.StoreDir(), false)
	if err != nil {
		return err
	}
	// The store is closed last, also when ctx has ended: what was found damaged is
	// noted then.
	defer closing(context.WithoutCancel(ctx), p, s, &err)
	return server.Run(ctx, server.Parts{Config: cfg, Place: place, Store: s, Log: log, Ready: func(at server.Addresses) {
		log.Info("The server is ready.", "agents", at.Agents, "key", at.Key, "admins", at.API, "admins' key", at.APIKey, "socket", at.Socket,
			"TFTP", at.TFTP, "HTTP", at.HTTP)
	}})
}

// logAttr leaves the time out where systemd's journal writes its own.
func logAttr(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 && a.Value.Kind() == slog.KindTime {
		if os.Getenv("JOURNAL_STREAM") != "" {
			return slog.Attr{}
		}
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format(time.RFC3339))
	}
	return a
}
