package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/room"
	"testbox-imaging/internal/wire"
)

// Room is the room of boxes that restore the same image. Its requests are sent once, since
// who sends them has other sources meanwhile, and asks again soon.
type Room struct {
	g       *getter
	regions int
}

// RoomOf returns the room of an image that a Client has opened.
func RoomOf(im *chunk.Image) (*Room, error) {
	g, ok := im.Getter().(*getter)
	if !ok {
		return nil, fmt.Errorf("image %v was not opened at a server", im.Name)
	}
	return &Room{g, len(im.Root.Pages)}, nil
}

// Join joins the room, also after the server has lost it. It says how, or that boxes do not
// serve each other.
func (r *Room) Join(ctx context.Context, j wire.Join) (*wire.Joined, error) {
	b, err := r.send(ctx, http.MethodPut, wire.Marshal(j))
	if errors.Is(err, wire.ErrNotOpen) {
		if err = r.g.ask(ctx); err == nil {
			b, err = r.send(ctx, http.MethodPut, wire.Marshal(j))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("join the other boxes: %w", err)
	}
	return wire.ParseJoined(b, r.regions)
}

// Ask asks for peers and units. If the error matches wire.ErrNotOpen, the box must join again.
func (r *Room) Ask(ctx context.Context, q room.Ask) (*wire.RoomAnswer, error) {
	b, err := r.send(ctx, http.MethodPost, wire.Marshal(q))
	if err != nil {
		return nil, err
	}
	return wire.ParseRoomAnswer(b)
}

// Leave says that this box serves nobody any more.
func (r *Room) Leave(ctx context.Context) error {
	return r.g.c.do(ctx, call{method: http.MethodDelete, path: wire.RoomPath(r.g.number)}, none)
}

func (r *Room) send(ctx context.Context, method string, body []byte) (answer []byte, err error) {
	q := call{method: method, path: wire.RoomPath(r.g.number), parts: [][]byte{body}}
	err = r.g.c.do(ctx, q, text(&answer, wire.MaxProblem))
	return answer, err
}
