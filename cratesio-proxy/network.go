package cratesioproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var (
	// errProtocol: what came over a connection that several share ended it. Which of their
	// answers that was nobody says, so that each is asked for again over a connection of its own.
	errProtocol = errors.New("an answer of it does not keep to HTTP/2, or its headers are far too large")
	// errNonsense: it answered, and that was not HTTP. It says nothing of other files.
	errNonsense = errors.New("its answer is not HTTP, or breaks off before it begins")
	errHeader   = fmt.Errorf("%w: its headers are larger than %d bytes", ErrBroken, headerBytes)
)

// unreached is why upstream cannot be reached. What the network says of that names
// addresses, names and proxies that are not for everybody: it is for the log alone.
type unreached struct {
	kind         error // one of this package
	text, inside string
}

func (u *unreached) Error() string { return fmt.Sprintf("%s: %s", u.kind, u.text) }
func (u *unreached) Unwrap() error { return u.kind }

// inside is what an error says to operators alone, "" for nothing.
func inside(err error) string {
	if u := (*unreached)(nil); errors.As(err, &u) {
		return u.inside
	}
	return ""
}

// network is why a request or the reading of its answer failed, without its URL.
func network(ctx context.Context, err error) error {
	var in *url.Error
	if errors.As(err, &in) {
		err = in.Err
	}
	var untrusted *tls.CertificateVerificationError
	var closed *closedProxy
	switch cause := context.Cause(ctx); {
	case errors.Is(err, errRedirect):
		return fmt.Errorf("%w: %w", ErrBroken, errRedirect)
	case errors.Is(err, errNotHere):
		return &unreached{ErrBroken, errNotHere.Error(), outside(err)}
	case errors.As(err, &untrusted):
		return &unreached{ErrBroken, "its certificate is not trusted; give the certificates to trust for it with ca=FILE", outside(err)}
	case tooMuchHeader(err): // of this file alone
		return errHeader
	case cause != nil: // more telling than that something was canceled
		return fmt.Errorf("%w: %w", ErrUnavailable, cause)
	case errors.Is(err, errNoTurn):
		return fmt.Errorf("%w: %w", ErrUnavailable, errNoTurn)
	case errors.As(err, &closed):
		return fmt.Errorf("%w: %w", ErrUnavailable, closed)
	case endedForAll(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, errProtocol)
	case isNonsense(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, errNonsense)
	}
	return &unreached{ErrUnavailable, "it cannot be reached, or its answer broke off", outside(err)}
}

// For what follows net/http has no values: it has to be told by the words. The tests
// of network_test.go notice where those change.

// tooMuchHeader reports whether err is that of headers beyond what is read of them.
func tooMuchHeader(err error) bool {
	text := err.Error()
	return strings.Contains(text, "server response headers exceeded") || strings.Contains(text, "response header list larger than")
}

// endedForAll reports whether a connection of HTTP/2 was ended by something that came over it: for
// whichever of those who share it that was.
func endedForAll(err error) bool {
	text := err.Error()
	return strings.Contains(text, "connection error: ") || strings.Contains(text, "http2: frame too large")
}

// isNonsense reports whether something came in place of an answer: not of a host that is gone, or
// never was there.
func isNonsense(err error) bool {
	text := err.Error()
	if strings.Contains(text, "stream error: stream ID") || strings.Contains(text, "http2: server sent GOAWAY") { // of HTTP/2
		return true
	}
	var gone *net.OpError
	return strings.Contains(text, "transport connection broken") && !errors.As(err, &gone) && !errors.Is(err, io.EOF)
}

// sizeOf is what a header takes, more or less.
func sizeOf(h http.Header) (bytes int) {
	for name, values := range h {
		for _, v := range values {
			bytes += len(name) + len(v) + len(": \r\n")
		}
	}
	return bytes
}

// quoted is what errors of the network repeat of what they were sent, or of where that was to go.
var quoted = regexp.MustCompile(`"(\\.|[^"\\])*"`)

// outside is what an error of the network says, in one short line: without what somebody out there
// said, word for word, which may be anything.
func outside(err error) string {
	return words(errors.New(quoted.ReplaceAllString(err.Error(), `"…"`)))
}
