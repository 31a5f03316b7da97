package main

import (
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/site"
)

// shareOptions are the flags of share init.
type shareOptions struct {
	dir      string
	server   string
	clients  string
	insecure bool
	uid, gid int  // whom the NFS server takes root of a box for
	keepAnon bool // uid and gid were not given: those of an exports file that is there count
	asked    bool // something was given that the exports file should say
}

func newShareCmd(w world) *cobra.Command {
	return newGroupCmd("share", "Set up the storage server of share mode", `Share mode needs no daemon of ours: boxes boot by TFTP from one exported folder and keep their
images in another.`, newShareInitCmd(w))
}

func newShareInitCmd(w world) *cobra.Command {
	var o shareOptions
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
			o.dir = exportDir(args)
			if err := mayBeFolder(o.dir); err != nil {
				return err
			}
			o.keepAnon = !cmd.Flags().Changed("anon-uid") && !cmd.Flags().Changed("anon-gid")
			o.asked = !o.keepAnon || cmd.Flags().Changed("clients") || cmd.Flags().Changed("insecure")
			return runShareInit(cmd, w, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "`IP`v4 address of this storage server, as the boxes reach it; needed until there is a site file")
	f.StringVar(&o.clients, "clients", "*", "who may mount the areas, as in exports(5): an address, a `NETWORK` like 10.40.0.0/16, or *")
	f.BoolVar(&o.insecure, "insecure", false, "let clients mount from ports above 1023, as those behind a NAT do")
	f.IntVar(&o.uid, "anon-uid", 65534, "the `USER` id that the NFS server takes root of a box for; as in testbox.exports if that is there")
	f.IntVar(&o.gid, "anon-gid", 65534, "the `GROUP` id for the same")
	for _, name := range []string{"server", "clients", "anon-uid", "anon-gid"} {
		mustComplete(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// sharePlan is what a share is made of, checked before anything is changed.
type sharePlan struct {
	shareOptions
	tftp, backup, nfsroot string
	loaders               []loaderFile
	site                  *site.Site // of the site file, or for it
	program               []byte
}

// runShareInit checks, then makes.
func runShareInit(cmd *cobra.Command, w world, o shareOptions) error {
	plan, err := planShare(w, o)
	if err != nil {
		return err
	}
	m := &shareMaker{sharePlan: plan, fsys: durable.OS{}, out: cmd.OutOrStdout()}
	if err := m.make(); err != nil {
		return fmt.Errorf("%w; run it again when the cause is gone", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %d made, %d repaired, %d as they should be\n", plan.dir, m.made, m.repaired, m.right)
	if err := plan.lookOver(cmd); err != nil {
		return err
	}
	if o.asked || m.made > 0 {
		plan.warnOfEverybody(cmd.OutOrStdout())
	}
	fmt.Fprintf(cmd.OutOrStdout(), "next: read %s, export the areas (%s says how), `testbox maintenance build`, and have your DHCP server name this server and pxelinux.0\n",
		filepath.Join(plan.configDir(), site.FileName), plan.exportsFile())
	return nil
}

// lookOver says what stands in the way of boxes and is not for this program to
// change: an admin's links, modes above the areas, boot files of somebody else's.
func (p *sharePlan) lookOver(cmd *cobra.Command) error {
	boot := bootfiles.New(durable.OS{}, p.configDir())
	if err := boot.CheckAbove(p.site.TFTPPath); err != nil {
		cmd.PrintErrf("testbox: WARNING: %v\n", err)
	}
	if err := boot.CheckPrefixes(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			cmd.PrintErrf("testbox: WARNING: %s; move it out of the folder\n", line)
		}
	}
	var files []string
	if v, err := boot.Version(p.site.Maintenance, box.RefreshInfo); err == nil {
		files = []string{v.KernelPath(), v.InitrdPath()}
	}
	if err := boot.CheckServed(files...); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// warnOfEverybody says what the default of --clients means.
func (p *sharePlan) warnOfEverybody(w io.Writer) {
	if p.clients == "*" {
		fmt.Fprintln(w, "everybody who reaches this server may mount the areas; --clients NETWORK limits that")
	}
}

func (p *sharePlan) configDir() string   { return filepath.Join(p.tftp, "pxelinux.cfg") }
func (p *sharePlan) exportsFile() string { return filepath.Join(p.dir, "testbox.exports") }

// exports is the text for exports(5). Set-uid programs, which the maintenance
// root needs, are honoured unless a client mounts with nosuid.
func (p *sharePlan) exports() []byte {
	common := ",no_subtree_check"
	if p.insecure {
		common += ",insecure"
	}
	write := fmt.Sprintf("(rw,sync,root_squash,anonuid=%d,anongid=%d%s)", p.uid, p.gid, common)
	var b strings.Builder
	b.WriteString("# NFS exports of the testbox areas. To install on Debian (package nfs-kernel-server):\n")
	fmt.Fprintf(&b, "#   mkdir -p /etc/exports.d && cp %s /etc/exports.d/ && exportfs -ra\n", p.exportsFile())
	b.WriteString("# sync: what a box was told is written is on the disk when it says that a backup is done.\n")
	for _, e := range []struct{ dir, options string }{{p.tftp, write}, {p.backup, write}, {p.nfsroot, "(ro,sync,no_root_squash" + common + ")"}} {
		fmt.Fprintf(&b, "%s %s%s\n", e.dir, p.clients, e.options)
	}
	return []byte(b.String())
}

// validClients reports whether s is a network, or one word that can be an
// address, a host name with wildcards or a netgroup.
func validClients(s string) bool {
	if strings.Contains(s, "/") {
		_, err := netip.ParsePrefix(s)
		return err == nil
	}
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*?@:") == ""
}
