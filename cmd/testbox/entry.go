//go:build !packaging

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"testbox-imaging/internal/cpu"
)

func main() {
	cpu.LetDisksBlock()
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup makes it ignored
		ends = append(ends, syscall.SIGHUP) // sent when the terminal is closed
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	code := run(ctx, newRootCmd(realWorld()), os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
