package labpage

import (
	"net/http"

	"testbox-imaging/internal/api"
)

func (p *Pages) status(r *http.Request, v Visitor) (any, error) {
	var st api.ServerStatus
	err := v.Ask(r.Context(), "get-status", nil, nil, &st)
	return &st, err
}
