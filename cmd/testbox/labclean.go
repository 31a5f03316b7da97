package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/lab"
)

func newLabCleanCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove the folders of labs that have ended",
		Long: `A lab's processes and networks end with the program that made them, whatever happens to
it; a demo that failed, or a lab that was killed, leaves its folder. This removes the
folders in the folder for temporary files that no running lab uses.`,
		Example: `  testbox lab clean`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runLabClean(cmd.OutOrStdout()) },
	}
}

func runLabClean(out io.Writer) error {
	gone, err := lab.Clean("")
	for _, dir := range gone {
		fmt.Fprintf(out, "removed %s\n", dir)
	}
	return err
}
