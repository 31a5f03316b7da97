package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/sharesetup"
	"testbox-imaging/internal/site"
)

func newShareInitCmd(w world) *cobra.Command {
	var o sharesetup.Options
	cmd := &cobra.Command{
		Use:   "init --server IP [DIR]",
		Short: "Make or repair the three areas",
		Long: `Makes the three areas of share mode in DIR (default /export) on the storage server:
  testbox-tftp     the loader's files, the folder of boot files pxelinux.cfg with the site file,
                   and in it this program with the script testbox-pxe-conf.sh, so that boxes can be
                   armed from any machine that mounts the area
  testbox-backup   images and logs
  testbox-nfsroot  the roots of maintenance systems of the form debian
and testbox.exports, a file for the NFS server. Boxes come as root, whom the NFS server takes for
the user nobody; folders that they write to are given to that user.

Run again, it repairs: missing or changed loader files, this program, owners and modes. Images,
armed boxes, the site file, the exports file and a default boot file of your own (that starts the
local disk) are kept.

The loader's files are those of Debian: apt-get install pxelinux syslinux-common syslinux-efi`,
		Example: `  testbox share init --server 10.42.1.1
  testbox share init --server 10.42.1.1 --clients 10.40.0.0/16 /srv/nfs`,
		Args:              atMostOneFolder,
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Dir = exportDir(args)
			if err := mayBeFolder(o.Dir); err != nil {
				return err
			}
			var err error
			if o.Program, err = w.executable(); err != nil {
				return err
			}
			o.Loaders = w.loaders
			o.KeepAnon = !cmd.Flags().Changed("anon-uid") && !cmd.Flags().Changed("anon-gid")
			// The user gave something that the exports file should contain.
			asked := !o.KeepAnon || cmd.Flags().Changed("clients") || cmd.Flags().Changed("insecure")
			return runShareInit(printerOf(cmd), o, asked)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Server, "server", "", "`IP`v4 address of this storage server, as the boxes reach it; needed until there is a site file")
	f.StringVar(&o.Clients, "clients", "*", "who may mount the areas, as in exports(5): an address, a `NETWORK` like 10.40.0.0/16, or *")
	f.BoolVar(&o.Insecure, "insecure", false, "let clients mount from ports above 1023, as those behind a NAT do")
	f.IntVar(&o.UID, "anon-uid", 65534, "the `USER` id that the NFS server takes root of a box for; as in testbox.exports if that is there")
	f.IntVar(&o.GID, "anon-gid", 65534, "the `GROUP` id for the same")
	for _, name := range []string{"server", "clients", "anon-uid", "anon-gid"} {
		mustComplete(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// runShareInit checks the options and then makes the areas. If asked is set,
// the command line has something for the exports file, and it says what became
// of that.
func runShareInit(p printer, o sharesetup.Options, asked bool) error {
	plan, err := sharesetup.New(o)
	if err != nil {
		return err
	}
	result, err := plan.Make(func(c sharesetup.Change) {
		if !c.Many {
			p.printf("%s\n", c)
		}
	})
	if err != nil {
		return fmt.Errorf("%w; run it again when the cause is gone", err)
	}
	if asked && plan.KeepsExports() {
		p.printf("%s: kept, though this command line asks for others; remove it to have it made anew\n", plan.ExportsFile())
	}
	p.printf("%s: %d made, %d repaired, %d as they should be\n", plan.Dir, result.Made, result.Repaired, result.Right)
	warnings, err := plan.LookOver()
	for _, warning := range warnings {
		p.warnf("%s", warning)
	}
	if err != nil {
		return &exitError{exitFailed, err} // a part may be done, so this is no refusal
	}
	if plan.Clients == "*" && (asked || result.Made > 0) {
		p.printf("everybody who reaches this server may mount the areas; --clients NETWORK limits that\n")
	}
	p.printf("next: read %s, export the areas (%s says how), %s, "+
		"and have your DHCP server name this server and pxelinux.0 (shimx64.efi for UEFI)\n",
		plan.Boot.Path(site.FileName), plan.ExportsFile(), plan.Boot.BuildCommand(""))
	return nil
}
