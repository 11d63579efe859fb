package server

import (
	"bytes"
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds on connections.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
	// maxConnections is how many there may be; for more, those without a request give way.
	maxConnections = 4096
	maxStreams     = 100 // requests at once on one connection of HTTP/2
	drainTimeout   = 30 * time.Second
	pingAfter      = 30 * time.Second // of silence on a connection of HTTP/2
	pingTimeout    = 15 * time.Second
)

// Listening is how a handler is served: with deadlines for slow clients, a
// bound on connections, and an end that lets requests finish. How slow bodies
// and answers may be is Config.Pace.
type Listening struct {
	Handler http.Handler
	Log     *slog.Logger
	// Certificate makes it TLS with HTTP/2; nil is plain HTTP/1.1.
	Certificate *Certificate
	// Fatal yields the error after which nothing may be served any more.
	Fatal <-chan error
	// DrainDelay is how long requests are still taken after the context has ended,
	// so that who asks /readyz sends no more.
	DrainDelay time.Duration
	// Ending is called once when no more requests are taken, so that those under way do not
	// wait for what may never come; nil: nobody is told.
	Ending func()
	// DrainTimeout is how long requests may take then; 30 seconds where it is zero.
	DrainTimeout time.Duration
	// HeaderTimeout bounds a request's header and the TLS handshake; 10 seconds where it is zero.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection without a request is kept; 2 minutes where it is zero.
	IdleTimeout time.Duration
	// Connections bounds how many there are at once; 4096 where it is zero.
	Connections int
}

// Serve answers on listener, which it closes, until ctx ends; then it takes no
// more and lets what is under way finish. nil is an orderly end, also where
// requests had to be cut off.
func (l Listening) Serve(ctx context.Context, listener net.Listener) error {
	l = l.orDefault()
	bounded := newBoundedListener(listener, l.Connections)
	s := l.server()
	s.ConnState = bounded.note
	failed := make(chan error, 1)
	go func() {
		if l.Certificate != nil {
			failed <- s.ServeTLS(bounded, "", "")
			return
		}
		failed <- s.Serve(bounded)
	}()
	select {
	case err := <-failed:
		return errors.Join(err, s.Close())
	case err := <-l.Fatal:
		return errors.Join(err, s.Close())
	case <-ctx.Done():
	}
	return l.drain(context.WithoutCancel(ctx), s)
}

func (l Listening) orDefault() Listening {
	if l.DrainTimeout == 0 {
		l.DrainTimeout = drainTimeout
	}
	if l.HeaderTimeout == 0 {
		l.HeaderTimeout = headerTimeout
	}
	if l.IdleTimeout == 0 {
		l.IdleTimeout = idleTimeout
	}
	if l.Connections == 0 {
		l.Connections = maxConnections
	}
	return l
}

func (l Listening) server() *http.Server {
	s := &http.Server{
		Handler: l.Handler, ReadHeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ConnContext: keepArmed,
		ErrorLog:    log.New(connectionLog{l.Log}, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: defaultStall,
		},
	}
	if l.Certificate != nil {
		s.TLSConfig = l.Certificate.TLSConfig()
	}
	return s
}

// connectionLog passes on what net/http says of connections. A handshake that
// failed is the client's doing, and scanners do it all day.
type connectionLog struct{ log *slog.Logger }

func (c connectionLog) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.HasPrefix(line, []byte("http: TLS handshake error")) {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, "connection", "problem", string(bytes.TrimSpace(line)))
	return len(line), nil
}

func (l Listening) drain(ctx context.Context, s *http.Server) error {
	l.Log.Info("stopping", "delay", l.DrainDelay, "requests_may_take", l.DrainTimeout)
	select {
	case err := <-l.Fatal:
		return errors.Join(err, s.Close())
	case <-time.After(l.DrainDelay):
	}
	if l.Ending != nil {
		l.Ending()
	}
	ctx, cancel := context.WithTimeout(ctx, l.DrainTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		l.Log.Warn("requests were cut off", "after", l.DrainTimeout, "error", errors.Join(err, s.Close()))
	}
	return nil
}
