package page

// Forget has the next page read all boxes anew.
func (s *Site) Forget() {
	s.labs.mu.Lock()
	defer s.labs.mu.Unlock()
	s.labs.by = nil
}
