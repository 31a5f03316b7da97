//go:build packaging

// With the build tag packaging the program is another one: it writes the man pages and the
// completions of the packages into a folder. So the library for that is in no product.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run -tags packaging ./cmd/testbox DIR")
		os.Exit(2)
	}
	if err := writePages(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "testbox packaging:", err)
		os.Exit(1)
	}
}

func writePages(dir string) error {
	root := newRootCmd(realWorld())
	for name, write := range map[string]func(string) error{
		"testbox.bash": func(file string) error { return root.GenBashCompletionFileV2(file, true) },
		"_testbox":     root.GenZshCompletionFile,
		"testbox.fish": func(file string) error { return root.GenFishCompletionFile(file, true) },
	} {
		if err := write(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	asMarkdown(root)
	return doc.GenManTreeFromOpts(root, doc.GenManTreeOptions{Path: dir, CommandSeparator: "-",
		Header: &doc.GenManHeader{Section: "1", Source: "Testbox Imaging", Manual: "Testbox Imaging"}}) // the date is SOURCE_DATE_EPOCH
}

// asMarkdown makes of the plain texts of a command and of those below it what the library
// takes them for.
func asMarkdown(cmd *cobra.Command) {
	if cmd.Long == "" {
		cmd.Long = cmd.Short
	}
	cmd.Long, cmd.Short = markdown(cmd.Long), escape(cmd.Short)
	flags := func(f *pflag.Flag) {
		if word, usage := pflag.UnquoteUsage(f); strings.Contains(f.Usage, "`") {
			f.Usage = strings.Replace(f.Usage, "`"+word+"`", word, 1)
		} else {
			f.Usage = usage
		}
		f.Usage = escape(f.Usage)
	}
	cmd.LocalNonPersistentFlags().VisitAll(flags)
	cmd.PersistentFlags().VisitAll(flags)
	for _, c := range cmd.Commands() {
		asMarkdown(c)
	}
}

var escape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "[", `\[`, "]", `\]`, "#", `\#`, "`", "").Replace

// markdown keeps lines that are indented as they are.
func markdown(text string) string {
	var b strings.Builder
	was := false
	for line := range strings.Lines(text) {
		is := strings.HasPrefix(line, " ")
		if is != was {
			b.WriteString("\n")
		}
		if was = is; is {
			b.WriteString("    " + strings.TrimPrefix(line, "  "))
		} else {
			b.WriteString(escape(line))
		}
	}
	return b.String()
}
