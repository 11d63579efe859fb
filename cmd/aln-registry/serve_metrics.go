package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"phoenix-lab.org/aln-registry/server"
)

// scraperConnections bounds those of --metrics-listen: a few programs ask there, each now and then.
const scraperConnections = 64

// scraperDrain is how long an answer to a scraper may hold up the end.
const scraperDrain = time.Second

// scraped is the listener of --metrics-listen, zero where there is none.
type scraped struct{ net.Listener }

// listenForScraper opens it. No session is asked for there, so an address that
// others can reach is told.
func (f serveFlags) listenForScraper(ctx context.Context, log *slog.Logger) (scraped, error) {
	if f.metricsListen == "" {
		return scraped{}, nil
	}
	listener, err := listen(ctx, "--metrics-listen", f.metricsListen)
	if err != nil {
		return scraped{}, err
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		log.Warn("whoever reaches the address of --metrics-listen reads the metrics, without a session and in the clear", "address", listener.Addr().String())
	}
	return scraped{listener}, nil
}

// Close closes the listener where there is one.
func (l scraped) Close() error {
	if l.Listener == nil {
		return nil
	}
	return l.Listener.Close()
}

// serve answers until stop is called, so that who watches sees the drain too.
func (l scraped) serve(ctx context.Context, handler http.Handler, log *slog.Logger) (stop func()) {
	if l.Listener == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		listening := server.Listening{Handler: handler, Log: log, Connections: scraperConnections, DrainTimeout: scraperDrain}
		if err := listening.Serve(ctx, l.Listener); err != nil {
			log.Error("the metrics are not served any more", "error", err)
		}
	}()
	return func() { cancel(); <-done }
}
