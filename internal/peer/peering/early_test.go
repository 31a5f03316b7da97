package peering

import (
	"context"
	"slices"
	"testing"
	"time"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// lateImage plans nothing before late is closed, and reads from the server meanwhile.
type lateImage struct {
	*Image
	late chan struct{}
}

func (im lateImage) Gather(ctx context.Context, g copier.Gathering) (func(), error) {
	coming := g.Coming
	g.Coming = func(ctx context.Context) (*copier.Coming, error) {
		<-im.late
		return coming(ctx)
	}
	end, err := im.Image.Gather(ctx, g)
	im.s.mu.Lock()
	im.s.lost = true
	im.s.broadcast()
	im.s.mu.Unlock()
	return end, err
}

// lateRoom says nothing before late is closed.
type lateRoom struct {
	fakeRoom
	late chan struct{}
}

func (r lateRoom) Ask(ctx context.Context, q room.Ask) (*wire.RoomAnswer, error) {
	select {
	case <-r.late:
	case <-ctx.Done():
	}
	return r.fakeRoom.Ask(ctx, q)
}

// TestEarly: what the copier has read from the server before it was planned is not waited for,
// and does not fill the window.
func TestEarly(t *testing.T) {
	t.Parallel()
	st := newTestImage(t)
	d := &stuckDisk{faults.NewDisk(make([]byte, len(st.content))), make(chan struct{}, 1), make(chan struct{})}
	im, err := chunk.OpenImage(t.Context(), st.Getter(st.root), st.root)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNode(Config{Memory: 2 << 20, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	late := make(chan struct{})
	shared := lateImage{n.Image(im, lateRoom{late: late}), late}
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := copier.Restore(t.Context(), []copier.Job{{Name: "sda", Image: shared, Target: d, SectorSize: 512}}, copier.RestoreOptions{})
		done <- err
	}()
	<-d.begun
	close(late)
	s := shared.s
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		lost, planned := s.lost, len(s.regions) > 0 && s.regions[0].upTo > 0
		s.mu.Unlock()
		if !lost && planned {
			break
		}
	}
	close(d.free)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(d.Bytes(), st.content) {
		t.Error("the disk has other bytes")
	}
	s.mu.Lock()
	left := 0
	for _, u := range s.units {
		if u.left > 0 {
			left++
		}
	}
	if left > 0 || !s.picker.Done() {
		t.Errorf("after %v the room still waits for %d units", time.Since(began), left)
	}
	s.mu.Unlock()
	shared.Close()
}
