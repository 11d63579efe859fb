package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// readyTimeout bounds the question whether a server is ready.
	readyTimeout = 5 * time.Second
	// maxReadyAnswer bounds the answer, in bytes.
	maxReadyAnswer = 4 << 10
)

// ready asks the server at base, straight and by no proxy, whether it can do its work
// now (GET /readyz). The error says why not, in the server's words.
func (a *app) ready(ctx context.Context, base string) error {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return usageError{errors.New("--ready is not the URL of a server; write it like http://127.0.0.1:8585")}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(u.String(), "/")+"/readyz", nil)
	if err != nil {
		return usageError{fmt.Errorf("--ready: %w", err)}
	}
	req.Header.Set("User-Agent", "aln-registry/"+version)
	straight := &http.Transport{DisableKeepAlives: true}
	resp, err := straight.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", u.Host, err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxReadyAnswer))
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", u.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready (%d): %s", u.Host, resp.StatusCode, printableLine(string(said)))
	}
	fmt.Fprintln(a.out, "ready")
	return nil
}

// printableLine is what another program said, as a part of one line.
func printableLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
