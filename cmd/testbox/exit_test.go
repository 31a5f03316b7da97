package main

import "testing"

// TestWorst: of several boxes the exit code is that of the one whose end is
// worst, whatever their order.
func TestWorst(t *testing.T) {
	order := []int{exitFailed, exitRefused, exitLost, exitCancelled, exitExpired, exitNotUp, exitPending, exitBadSectors, exitDiffer,
		exitRescue, exitDone}
	for i, bad := range order {
		for _, better := range order[i:] {
			for _, codes := range [][]int{{bad, better}, {better, bad}} {
				if got := exitCode(worst(codes, []string{"why"}), true); got != bad {
					t.Errorf("of %v the code is %d", codes, got)
				}
			}
		}
	}
}
