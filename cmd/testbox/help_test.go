package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: every command has an example, its examples have no flag that it does
// not know, and its help fits a terminal.
func TestHelp(t *testing.T) {
	root := newRootCmd(realWorld())
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			if len(line) > 110 {
				t.Errorf("%s: a line of its help has %d characters: %s", cmd.CommandPath(), len(line), line)
			}
		}
		if strings.Contains(cmd.Use, "BACKUP") && !strings.Contains(cmd.Long, backupHelp) {
			t.Errorf("%s: its help does not say where BACKUP is explained", cmd.CommandPath())
		}
		if cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			example, _, _ := strings.Cut(line, " | ")
			words := strings.Fields(example)
			if len(words) == 0 || words[0] != root.Name() {
				continue
			}
			meant, args, err := root.Find(words[1:])
			if err != nil {
				t.Errorf("%s: the example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			for _, arg := range args {
				if arg == "--" { // what follows is for another program
					break
				}
				name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
				if strings.HasPrefix(arg, "--") && meant.Flag(name) == nil {
					t.Errorf("%s: the example %q has no such flag", cmd.CommandPath(), line)
				}
			}
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(root)
}
