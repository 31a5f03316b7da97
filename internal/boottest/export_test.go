package boottest

import "time"

// Emulated makes tests alike on all machines: they use no KVM where there is one.
func Emulated(o Options) Options {
	o.emulate = true
	return o
}

// Impatient is for a disk on which nothing can come after the firmware's last words.
func Impatient(o Options) Options {
	o.handed = 10 * time.Second
	return o
}

// These are confine and noSockets.
var (
	Confine   = confine
	NoSockets = noSockets
)
