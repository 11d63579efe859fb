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

// ready says whether the server at base can do its work now, and if not why.
func (a *app) ready(ctx context.Context, base string) error {
	err := askReady(ctx, base)
	if !a.json {
		if err == nil {
			fmt.Fprintln(a.out, "ready")
		}
		return err
	}
	answer := struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitzero"`
	}{Ready: err == nil}
	if err != nil {
		if isUsage(err) || interrupted(ctx, err) {
			return err
		}
		answer.Reason, err = tidy(err.Error()), errSilent
	}
	if printed := a.printJSON(answer); printed != nil {
		return printed
	}
	return err
}

// askReady asks the server at base, straight and by no proxy, whether it can do its
// work now (GET /readyz). The error says why not, in the server's words.
func askReady(ctx context.Context, base string) error {
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
		return fmt.Errorf("%s is not ready (%d): %s", u.Host, resp.StatusCode, strings.Join(strings.Fields(string(said)), " "))
	}
	return nil
}
