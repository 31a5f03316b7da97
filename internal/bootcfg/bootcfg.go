// Package bootcfg reads and writes what makes a box boot into maintenance: the
// kernel command line, PXELINUX's boot files, and the version file beside a
// maintenance system's kernel. What it writes it can read, and it reads strictly.
package bootcfg
