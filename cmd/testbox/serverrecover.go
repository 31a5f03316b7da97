package main

import (
	"time"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/server"
	"testbox-imaging/internal/words"
)

func newServerRecoverCmd() *cobra.Command {
	var file string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Take the copy of the ledger in the place of a damaged one",
		Long: `Takes the copy of the ledger that the server makes each day, if the ledger is damaged or lost. The
ledger has boxes, jobs, users, tokens and the audit log. What came after the copy is lost; backups and
the boxes' logs are not in it, and stay. The files of the ledger of before are moved away, and not
removed. The server must have ended.

No job of the copy goes on, since it may have been done after the copy. A restore whose box has its boot
file still leaves that box held: its disk may not be fit to run. Restore it, or ` + "`testbox release BOX`" + `.

A box that was armed after the copy comes with a job that the server does not know, and is told so.
` + "`testbox pxe-conf list`" + ` names such boxes. One that was being restored must be restored anew: its disk may
not be fit to run. The others are disarmed by ` + "`testbox pxe-conf disarm BOX`" + `.`,
		Example: `  testbox server recover`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.ReadConfig(file)
			if err != nil {
				return err
			}
			did, err := server.Recover(cmd.Context(), cfg, yes)
			if err != nil {
				return err
			}
			p := printerOf(cmd)
			p.printf("%s: it is the copy of %s now\n", cfg.LedgerFile(), did.Made.UTC().Format(time.RFC3339))
			if did.Away != "" {
				p.printf("the ledger of before is %s\n", did.Away)
			}
			if did.Jobs > 0 {
				p.printf("%s had not ended in the copy and will not go on; `testbox jobs` names boxes that are held\n", words.Count(did.Jobs, "job"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", server.DefaultFile, "the configuration `FILE`")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "take the copy even if the ledger is whole")
	mustComplete(cmd.MarkFlagFilename("config", "toml"))
	return cmd
}
