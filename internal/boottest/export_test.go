package boottest

// Emulated makes tests alike on all machines: they use no KVM where there is one.
func Emulated(o Options) Options {
	o.emulate = true
	return o
}
