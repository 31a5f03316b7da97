// Package bootcfg has the texts that make a box boot into maintenance: the kernel
// command line, PXELINUX's boot files, and the version file beside a maintenance
// system's kernel. It makes and parses these texts and touches no file: package
// bootfiles has the folder with the boot files. What it makes it can parse, and
// it parses strictly.
package bootcfg
