package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func newStoreTakeOverCmd(w world) *cobra.Command {
	var o storeFlag
	var yes, only bool
	cmd := &cobra.Command{
		Use:   "take-over [FOLDER]",
		Short: "Make a folder the one that writes to a bucket",
		Long: `Of a store in object storage, one folder is the owner: only it writes, others read. This makes FOLDER
the owner, for example because the folder before is lost, or its machine is. Without --yes it only
says who the owner is.

End what runs with the folder before. If something of it is still at work, it can commit no backup
and remove nothing any more: it ends with an error, and what it had not committed is lost.

--only-writer declares that no other folder and no other program ever writes to this bucket and
prefix. It is for servers that do not keep conditions on writes ("If-None-Match"), and is kept in
the folder until it is said otherwise with --only-writer=false. Where it is not true, backups that
were reported as done can be lost.`,
		Example: `  testbox store take-over /var/lib/testbox-store
  testbox store take-over /var/lib/testbox-store --yes`,
		Args:              func(_ *cobra.Command, args []string) error { return storeArg(&o, args) },
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var declared *bool
			if cmd.Flags().Changed(onlyWriter) {
				declared = &only
			}
			err := runStoreTakeOver(cmd.Context(), printerOf(cmd), o.dir, declared, yes)
			return o.wantsAlone(cmd.Context(), printerOf(cmd), w, err)
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&only, onlyWriter, false, "declare that nothing else ever writes to this bucket and prefix")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it, not only say who the owner is")
	return cmd
}

func runStoreTakeOver(ctx context.Context, p printer, dir string, declared *bool, yes bool) error {
	r, err := readRemote(dir)
	if err != nil {
		return err
	}
	if r == nil {
		return wrong("%s has no file %q: it is no folder of a store in object storage, and whoever can write to it is an owner", dir, remoteName)
	}
	if declared != nil {
		r.onlyWriter = *declared
	}
	r.takeOver = true
	if !yes {
		place, err := r.open(ctx, dir)
		if err != nil {
			return err
		}
		p.printf("%s\n", whoOwns(ctx, place))
		p.printf("nothing was done; --yes makes this folder the owner\n")
		return nil
	}
	s, err := openPlace(ctx, p, dir, r, false)
	if err != nil {
		return err
	}
	if err := errors.Join(r.write(dir), s.Close()); err != nil {
		return err
	}
	p.printf("the folder %s is the owner now\n", dir)
	return nil
}
