//go:build !faults

package agent

// fault does nothing. Only agents built for tests break on purpose.
func (s *session) fault(string) {}
