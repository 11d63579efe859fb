package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"phoenix-lab.org/aln-registry/server"
)

// listen opens address, which flag gave.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, usageError{fmt.Errorf("%s %.80q is not an address and a port; write it like 127.0.0.1:8585", flag, address)}
	}
	var network net.ListenConfig
	listener, err := network.Listen(ctx, "tcp", address)
	if errors.Is(err, errAddressInUse) {
		return nil, fmt.Errorf("cannot listen on %s: %w; is another server running there? %s names another address", address, err, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; %s names another address", address, err, flag)
	}
	return listener, nil
}

// defaultURL is how this computer reaches the listener. The first one used goes
// into the log's first entry, so it is not guessed where other computers may come in.
func defaultURL(addr net.Addr, tls bool) (string, error) {
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		with := "; for https give --tls-cert and --tls-key too, or put a TLS proxy in front"
		if tls {
			with = ""
		}
		return "", usageError{fmt.Errorf("listening on %s needs --public-url: the https:// URL by which clients reach this registry%s", addr, with)}
	}
	if tls {
		return "https://" + addr.String(), nil
	}
	return "http://" + addr.String(), nil
}

// certificate is the one that the flags name, nil where they name none.
func (f serveFlags) certificate(log *slog.Logger) (*server.Certificate, error) {
	if f.tlsCert == "" && f.tlsKey == "" {
		return nil, nil
	}
	if f.tlsCert == "" || f.tlsKey == "" {
		return nil, usageError{errors.New("--tls-cert and --tls-key go together: the certificate chain and its private key, both in PEM")}
	}
	return server.OpenCertificate(f.tlsCert, f.tlsKey, log, time.Now)
}

// reloadOnHangup reads the certificate again at each SIGHUP, until ctx ends.
func reloadOnHangup(ctx context.Context, certificate *server.Certificate) {
	if certificate == nil {
		return
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-hangup:
				certificate.Reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}
