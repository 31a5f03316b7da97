package page

// Forget has the next page read all boxes anew.
func (s *Site) Forget() {
	s.labs.mu.Lock()
	defer s.labs.mu.Unlock()
	s.labs.by = nil
}

// ForgetForms forgets what was answered to forms, as a restart of the server does.
func (s *Site) ForgetForms() {
	s.once.mu.Lock()
	defer s.once.mu.Unlock()
	s.once.forms, s.once.order, s.once.bytes = nil, nil, 0
}
