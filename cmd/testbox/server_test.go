package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"syscall"

	"testbox-imaging/internal/testenv/fakelab"
)

// runFakeServer is a program of the scripts: a server with boxes that are not there. It
// listens at $TESTBOX_SERVER, and writes its URL and the fingerprint of its key into
// files.
func runFakeServer() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fakeServer(ctx, os.Args[1], os.Getenv("TESTBOX_SERVER")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fakeServer(ctx context.Context, dir, socket string) error {
	u, err := user.Current()
	if err != nil {
		return err
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	l, err := fakelab.Start(dir, socket, g.Name)
	if err != nil {
		return err
	}
	defer l.Close()
	for name, text := range map[string]string{"url": l.URL, "key": l.Key.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
