package main

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"phoenix-lab.org/aln-registry/server"
)

// answering is a server that answers from when it holds its ports on: at first only
// that it starts, since who is sent there must not wait for engines that are away.
type answering struct {
	log         *slog.Logger
	certificate *server.Certificate
	gate, watch *server.Gate // for clients, and for --metrics-listen
	fatal       chan error
	ending      chan struct{} // closed when no more requests are taken
	ended       chan struct{}
	err         error // once ended is closed
	stopWatched func()
}

// errNotStarted ends the answering of a server that cannot start.
var errNotStarted = errors.New("the start has failed")

// answer begins to answer on both listeners.
func (f serveFlags) answer(ctx context.Context, listener net.Listener, watched scraped, certificate *server.Certificate, log *slog.Logger) *answering {
	up := &answering{
		log: log, certificate: certificate, gate: server.NewGate(f.publicURL), watch: server.NewGate(""),
		fatal: make(chan error, 1), ending: make(chan struct{}), ended: make(chan struct{}),
	}
	up.stopWatched = watched.serve(ctx, up.watch, log)
	listening := server.Listening{Handler: up.gate, Log: log, Certificate: certificate, Fatal: up.fatal, DrainDelay: f.drainDelay, Ending: func() { close(up.ending) }}
	go func() {
		defer close(up.ended)
		up.err = listening.Serve(ctx, listener)
	}()
	return up
}

// open lets it answer all, until the registry fails.
func (up *answering) open(c server.Config, failed <-chan error) {
	public := server.New(c)
	up.watch.Open(server.ForScraper(c))
	up.gate.Open(public)
	go func() {
		select {
		case err := <-failed:
			up.fatal <- err
		case <-up.ended:
		}
	}()
}

// wait waits until it answers no more, and says why.
func (up *answering) wait() error {
	<-up.ended
	return up.err
}

// stop ends the answering at once, where it has not ended yet. Who watches sees that too.
func (up *answering) stop() {
	select {
	case up.fatal <- errNotStarted:
	case <-up.ended:
	}
	<-up.ended
	up.stopWatched()
}
