package main

import (
	"github.com/spf13/cobra"

	"testbox-imaging/internal/box"
)

// completePxe offers boxes and, after the first box, actions.
func completePxe(w world, dir string, args []string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if len(args) > 0 {
		for _, a := range box.Actions {
			words = append(words, string(a))
		}
	}
	boxes, directive := completeBoxes(w, dir)
	return append(words, boxes...), directive
}

// completeBoxes offers the boxes that have a folder in the backup area.
func completeBoxes(w world, dir string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if place, err := w.place(dir); err == nil {
		boxes, _ := place.Boxes()
		for _, addr := range boxes {
			words = append(words, addr.String())
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeArmed offers the boxes that are armed.
func completeArmed(w world, dir string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if place, err := w.place(dir); err == nil {
		files, _ := place.Boot.List()
		for _, f := range files {
			if f.Cmdline != nil {
				words = append(words, f.Addr.String()+"\t"+string(f.Cmdline.Action))
			}
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
