package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"testbox-imaging/internal/wire"
)

// Hello begins the session of this client's token. The token and the version of the
// protocol are filled in.
func (c *Client) Hello(ctx context.Context, h *wire.Hello) (*wire.Welcome, error) {
	said := *h
	said.Protocol, said.Token = wire.Version, c.cfg.Token
	q := call{method: http.MethodPost, path: wire.HelloPath, parts: [][]byte{wire.Marshal(&said)}, hello: true}
	return ask(ctx, c, "say hello to the server", q, wire.MaxWelcome, wire.ParseWelcome)
}

// Report gives a sign of life. What Split would return must not be in it.
func (c *Client) Report(ctx context.Context, r *wire.Report) (*wire.Told, error) {
	q := call{method: http.MethodPost, path: wire.ReportPath, parts: [][]byte{wire.Marshal(r)}}
	return ask(ctx, c, "report to the server", q, wire.MaxProblem, wire.ParseTold)
}

// Result says how the action ended. It is durable when Result returns. What is too much
// to be sent is left out.
func (c *Client) Result(ctx context.Context, r *wire.Result) (*wire.Told, error) {
	q := call{method: http.MethodPost, path: wire.ResultPath, parts: [][]byte{wire.MarshalResult(r)}}
	return ask(ctx, c, "tell the server how the action ended", q, wire.MaxProblem, wire.ParseTold)
}

// ask sends a request that is answered in JSON.
func ask[A any](ctx context.Context, c *Client, what string, q call, most int64, parse func([]byte) (*A, error)) (*A, error) {
	var answer []byte
	err := c.try(ctx, func(ctx context.Context) (bool, error) { return false, c.do(ctx, q, text(&answer, most)) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	a, err := parse(answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return a, nil
}

// Inventory stores a file of the box's inventory. It is durable when Inventory returns.
func (c *Client) Inventory(ctx context.Context, name string, data []byte) error {
	if !wire.ValidInventory(name) || len(data) > wire.MaxInventory {
		return errors.New("the inventory has no such file, or not such a large one")
	}
	q := call{method: http.MethodPut, path: wire.InventoryPath + name, parts: [][]byte{data}}
	err := c.try(ctx, func(ctx context.Context) (bool, error) { return false, c.do(ctx, q, none) })
	if err != nil {
		return fmt.Errorf("store %s at the server: %w", name, err)
	}
	return nil
}

// Firmware asks what the server knows of the firmware of this box.
func (c *Client) Firmware(ctx context.Context) (*wire.Firmware, error) {
	q := call{method: http.MethodGet, path: wire.FirmwarePath}
	return ask(ctx, c, "ask the server about the firmware", q, wire.MaxFirmware, wire.ParseFirmware)
}
