package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootcfg"
)

func newMaintenanceListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list [DIR]",
		Short: "List the maintenance systems, the newest first",
		Long: `Lists the maintenance systems in the areas in DIR (default /export), the newest first. 'testbox
pxe-conf' takes the newest of the form ram, for rescue the newest of the form debian, unless the site
file names one. One that no box is armed for or runs can be removed by removing its folder in
` + bootcfg.MaintDir + `, then that in testbox-nfsroot.`,
		Example:           `  testbox maintenance list /srv/export`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMaintenanceList(printerOf(cmd), tftpArea(exportDir(args)))
		},
	}
}

func runMaintenanceList(p printer, tftp string) error {
	boot := bootOf(tftp)
	if _, err := os.Stat(tftp); err != nil {
		return wrong("there is no TFTP area in %s: %w; name the folder that has the areas (`testbox maintenance list DIR`), "+
			"or make them with `testbox share init`", filepath.Dir(tftp), err)
	}
	versions, broken, err := boot.Versions()
	if err != nil {
		return err
	}
	for _, b := range broken {
		p.notef("%s cannot be booted: %v", b.Name, b.Err)
	}
	var whole []*bootcfg.Version
	for _, v := range versions {
		if err := boot.CheckFiles(v.KernelPath(), v.InitrdPath()); err != nil {
			p.notef("%s cannot be booted: %v", v.Version, err)
			continue
		}
		whole = append(whole, v)
	}
	if len(whole) == 0 {
		return wrong("no maintenance system in %s; %s makes one", tftp, boot.BuildCommand(""))
	}
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	for _, v := range whole {
		fmt.Fprintf(w, "%s\t%s\t%s\tkernel %s\n", v.Version, v.Form, v.Built.UTC().Format("2006-01-02 15:04:05Z"), v.Kernel)
	}
	return w.Flush()
}
