package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// printer is the voice of a command. What it was asked for goes to stdout, what
// has to be said beside that goes to stderr. Answers to its questions come from in.
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

// tellf writes a line to stderr that begins with what it is about, such as a
// disk.
func (p printer) tellf(format string, args ...any) { fmt.Fprintf(p.err, format+"\n", args...) }
