package server

import (
	"bytes"
	_ "embed"
	"net/http"

	"github.com/go-json-experiment/json"
)

// openapi describes every route (OpenAPI 3.1). It is written by hand; tests hold
// it against the routes and every answer that they get against it.
//
//go:embed openapi.json
var openapi []byte

// placeholderURL stands in openapi for this registry's public URL.
const placeholderURL = `"https://registry.invalid"`

// describe is GET /openapi.json.
func (s *Server) describe(w http.ResponseWriter, r *http.Request) error {
	url, err := json.Marshal(s.registry.PublicURL)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return s.revalidated(w, r, bytes.Replace(openapi, []byte(placeholderURL), url, 1))
}
