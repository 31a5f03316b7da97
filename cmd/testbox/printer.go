package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// printer prints for a command. Results go to stdout, everything else goes to
// stderr. Answers to questions come from in.
type printer struct {
	in       io.Reader
	out, err io.Writer
}

func printerOf(cmd *cobra.Command) printer {
	return printer{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()}
}

// printf writes to stdout.
func (p printer) printf(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }

// notef writes a line to stderr.
func (p printer) notef(format string, args ...any) {
	fmt.Fprintf(p.err, "testbox: "+format+"\n", args...)
}

// warnf writes a line to stderr about something that can do harm.
func (p printer) warnf(format string, args ...any) { p.notef("warning: "+format, args...) }

// tellf writes a line to stderr that begins with its subject, such as a disk.
func (p printer) tellf(format string, args ...any) { fmt.Fprintf(p.err, format+"\n", args...) }

// printJSON writes v to stdout as JSON, for programs.
func printJSON(p printer, v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", " ")
	return enc.Encode(v)
}

// readYes waits for an answer, or until ctx ends.
func readYes(ctx context.Context, in io.Reader) error {
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
	case <-ctx.Done():
	}
	return refused("nothing was written")
}
