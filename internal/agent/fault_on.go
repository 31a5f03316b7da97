//go:build faults

package agent

import "time"

// fault breaks the agent where the word testbox-fault= of the command line
// says. At the point "", before the action, it obeys "panic" and "hang". At the
// point "-disarm", after the action and before disarming, it obeys
// "panic-disarm" and "hang-disarm". Only agents built for tests have it.
func (s *session) fault(point string) {
	switch s.cmd.Fault {
	case "panic" + point:
		panic("a panic that was asked for")
	case "hang" + point:
		s.log.Info("hanging, as asked")
		time.Sleep(24 * time.Hour)
	}
}
