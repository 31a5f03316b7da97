package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagError says what is wrong with a flag's value, and what a right one looks
// like. The library's own words are those of Go's parsers.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var lacks *pflag.ValueRequiredError
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		if hint := valueHint(f); hint != "" {
			return fmt.Errorf("--%s %q is not right: %s", f.Name, invalid.GetValue(), hint)
		}
	case errors.As(err, &lacks):
		f := lacks.GetFlag()
		word, usage := pflag.UnquoteUsage(f)
		return fmt.Errorf("--%s needs a value (%s): %s", f.Name, word, usage)
	}
	return err
}

// valueHint says what the values of a flag look like. It returns "" for a flag
// that takes any words.
func valueHint(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int":
		example := f.DefValue
		switch {
		case f.Name == "sector-size":
			example = "512"
		case example == "0":
			example = "7"
		}
		return fmt.Sprintf("give a whole number, such as --%s=%s", f.Name, example)
	case "duration":
		return fmt.Sprintf("give a time with its unit, h, m or s, such as --%s=90m or --%s=48h", f.Name, f.Name)
	case "bool":
		return fmt.Sprintf("give --%s alone, or --%s=false", f.Name, f.Name)
	}
	return ""
}

// noArgs is for commands that take only flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%q is too much: %s takes only flags", args[0], cmd.CommandPath())
	if cmd.Flags().Lookup("store") != nil {
		err = fmt.Errorf("%w; a store is named by --store FOLDER", err)
	}
	return err
}

// takesWords is for commands with at least least words and at most most; most 0 is no
// limit. An empty word is refused: it is mostly a script's variable that was not set,
// and must never mean a box, let alone all jobs.
func takesWords(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		usage := strings.TrimSuffix(cmd.UseLine(), " [flags]")
		switch {
		case slices.Contains(args, ""):
			return fmt.Errorf("one of the words is empty: is a variable not set? The command is %s", usage)
		case len(args) < least:
			return fmt.Errorf("something is missing: the command is %s", usage)
		case most > 0 && len(args) > most:
			return fmt.Errorf("%q is too much: the command is %s", args[most], usage)
		}
		return nil
	}
}
