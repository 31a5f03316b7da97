// Package bootcfg has the texts that make a box boot into maintenance: the
// kernel command line, PXELINUX's boot files, and the version file beside a
// maintenance system's kernel. It only makes and parses these texts. Package
// bootfiles reads and writes the folder of boot files. The parsers are strict,
// and they can parse every text that this package makes.
package bootcfg
